//! The monitor does not get in the way of what it watches.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    counters::Counters,
    eventually::seconds,
    guest::Guest,
    helpers::{Hold, Task},
    livepatch::{Livepatch, PATCH_A, PROBED, VMLINUX},
    modules, target,
};

/// In each round a patch and an unpatch with the monitor, and the same without.
const ROUNDS: usize = 10;

/// How much longer a transition may take with the monitor, in the median: this
/// share of its duration, and at least so many seconds. The machine is emulated
/// and has neighbours; a transition held up for one attempt would take a second.
const SHARE: f64 = 0.5;
const LEAST: f64 = 0.5;

/// One attempt of the kernel to complete a transition.
const ATTEMPT: &str = "klp_try_complete_transition";

/// What one transition took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    attempts: f64,
    seconds: f64,
}

/// Transitions on a busy machine take no more attempts and no longer with the
/// monitor than without. A kprobe of the machine's own counts the attempts of both.
pub(super) fn transitions_take_no_longer(guest: &mut Guest) -> Result<()> {
    let counters = Counters::of(&[ATTEMPT])?;
    let pairs = compare(guest, &counters)?;
    let attempts = Comparison::of(&pairs, |cost| cost.attempts)?;
    let seconds = Comparison::of(&pairs, |cost| cost.seconds)?;
    guest.note(format!("attempts of a transition: {attempts}"))?;
    guest.note(format!("seconds of a transition: {seconds}"))?;
    ensure!(
        attempts.difference <= 0.0,
        "with the monitor, transitions take more attempts: {attempts}"
    );
    ensure!(
        seconds.difference <= f64::max(SHARE * seconds.without, LEAST),
        "with the monitor, transitions take longer: {seconds}"
    );
    Ok(())
}

/// Medians over all transitions.
#[derive(Debug)]
struct Comparison {
    transitions: usize,
    with: f64,
    without: f64,
    /// Of the differences of neighbours: the machine's mood changes from round to
    /// round, not within one.
    difference: f64,
}

impl Comparison {
    fn of(pairs: &[Pair], pick: fn(&Cost) -> f64) -> Result<Self> {
        Ok(Self {
            transitions: pairs.len(),
            with: median(pairs.iter().map(|pair| pick(&pair.with)))?,
            without: median(pairs.iter().map(|pair| pick(&pair.without)))?,
            difference: median(
                pairs
                    .iter()
                    .map(|pair| pick(&pair.with) - pick(&pair.without)),
            )?,
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "median {:.2} with the monitor and {:.2} without, over {} transitions each; \
             median difference {:+.2}",
            self.with, self.without, self.transitions, self.difference
        )
    }
}

/// A transition with the monitor, and its like without.
#[derive(Clone, Copy, Debug)]
struct Pair {
    with: Cost,
    without: Cost,
}

fn compare(guest: &mut Guest, counters: &Counters) -> Result<Vec<Pair>> {
    guest.helper(&Task::Busy { threads: 2 })?;
    let mut pairs = Vec::new();
    for round in 1..=ROUNDS {
        // Turns, so that neither always comes first.
        let (with, without) = if round % 2 == 0 {
            let with = monitored(guest, counters)?;
            (with, patch_and_unpatch(guest, counters)?)
        } else {
            let without = patch_and_unpatch(guest, counters)?;
            (monitored(guest, counters)?, without)
        };
        pairs.extend(
            with.into_iter()
                .zip(without)
                .map(|(with, without)| Pair { with, without }),
        );
        guest.note(format!("round {round} of {ROUNDS}"))?;
    }
    Ok(pairs)
}

fn monitored(guest: &mut Guest, counters: &Counters) -> Result<[Cost; 2]> {
    guest.start_monitor(&[])?;
    let costs = patch_and_unpatch(guest, counters)?;
    guest.stop_monitor()?;
    Ok(costs)
}

fn patch_and_unpatch(guest: &Guest, counters: &Counters) -> Result<[Cost; 2]> {
    let patching = measure(guest, counters, || VMLINUX.load())?;
    let unpatching = measure(guest, counters, || VMLINUX.disable())?;
    modules::unload(VMLINUX.name)?;
    Ok([patching, unpatching])
}

fn measure(guest: &Guest, counters: &Counters, start: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let before = counters.get(ATTEMPT)?;
    let begin = Instant::now();
    start()?;
    let mut scraped = Instant::now();
    while VMLINUX.in_transition()? {
        ensure!(
            begin.elapsed() < seconds(120),
            "a transition does not end in two minutes"
        );
        // A Prometheus is part of what may do harm.
        if let Ok(monitor) = guest.monitor()
            && scraped.elapsed() > seconds(1)
        {
            monitor.scrape()?;
            scraped = Instant::now();
        }
        thread::sleep(Duration::from_millis(20));
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Cost {
        attempts: whole(counters.get(ATTEMPT)? - before),
        seconds,
    })
}

#[expect(clippy::cast_precision_loss, reason = "some attempts")]
fn whole(count: u64) -> f64 {
    count as f64
}

fn median(values: impl Iterator<Item = f64>) -> Result<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).context("nothing was measured")?;
    let lower = values.get(middle.saturating_sub(1)).unwrap_or(upper);
    Ok(if values.len().is_multiple_of(2) {
        f64::midpoint(*lower, *upper)
    } else {
        *upper
    })
}

/// Patchings and unpatchings with the monitor, and as many without.
const QUIET_ROUNDS: usize = 8;
/// How many of the transitions may need another attempt that would not without the
/// monitor. One that woke up at the start of each would hinder every fourth.
const HINDERED: usize = 2;

/// On a machine where nothing else runs, a monitor that wakes up at the start of a
/// transition is what the kernel's first attempt fails for: it does not.
pub(super) fn first_attempts_succeed(guest: &mut Guest) -> Result<()> {
    let counters = Counters::of(&[ATTEMPT])?;
    let (without, with) = hindered(guest, &counters)?;
    let all = 2 * QUIET_ROUNDS;
    guest.note(format!(
        "of {all} transitions, {with} needed a second attempt with the monitor, {without} without"
    ))?;
    ensure!(
        with <= without + HINDERED,
        "of {all} transitions on a quiet machine, {with} needed a second attempt with the \
         monitor and {without} without"
    );
    Ok(())
}

fn hindered(guest: &mut Guest, counters: &Counters) -> Result<(usize, usize)> {
    let without = count_hindered(guest, counters)?;
    guest.start_monitor(&[])?;
    let with = count_hindered(guest, counters)?;
    guest.stop_monitor()?;
    Ok((without, with))
}

fn count_hindered(guest: &Guest, counters: &Counters) -> Result<usize> {
    let mut hindered = 0;
    for _ in 0..QUIET_ROUNDS {
        // What the round before has stirred up comes to rest.
        thread::sleep(Duration::from_millis(500));
        let costs = patch_and_unpatch(guest, counters)?;
        hindered += costs.iter().filter(|cost| cost.attempts > 1.0).count();
    }
    Ok(hindered)
}

/// A livepatch of a function that the monitor probes: both work, whichever came
/// first.
pub(super) fn probed_function_can_be_patched(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    PROBED.apply(seconds(30))?;
    expect_known(guest, PROBED)?;
    expect_forcing_is_off(guest)?;
    guest.stop_monitor()?;

    guest.start_monitor(&[])?;
    expect_known(guest, PROBED)?;
    let metrics = guest.metrics(seconds(5), |metrics| {
        metrics.expect_sum(
            "livepatch_monitor_probe_attached{probe=klp_force_transition}",
            1.0,
        )
    })?;
    metrics.expect_absent("livepatch_monitor_probe_attached{method=none}")?;
    expect_forcing_is_off(guest)?;
    PROBED.remove(seconds(30))?;
    guest.metrics(seconds(10), |metrics| {
        metrics.expect_absent("livepatch_patch_info{patch=lpm_probed}")
    })?;
    Ok(())
}

fn expect_known(guest: &mut Guest, patch: Livepatch) -> Result<()> {
    guest.metrics(seconds(10), |metrics| {
        metrics.expect(
            &format!("livepatch_patch_enabled{{patch={}}}", patch.name),
            1.0,
        )
    })?;
    Ok(())
}

/// The livepatch's function runs instead of the kernel's: nothing is forced.
fn expect_forcing_is_off(guest: &mut Guest) -> Result<()> {
    target::load()?;
    target::hold()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    PATCH_A.force()?;
    PATCH_A.expect_held()?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    PATCH_A.remove(seconds(30))?;
    modules::unload(target::NAME)
}
