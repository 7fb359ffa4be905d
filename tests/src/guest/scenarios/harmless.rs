//! The monitor does not get in the way of what it watches.

use std::{
    fs,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    eventually::seconds,
    files,
    guest::Guest,
    helpers::{Hold, Task},
    livepatch::{Livepatch, PATCH_A, PROBED, VMLINUX},
    target,
};

/// Each round is a patch and an unpatch with the monitor, and the same without.
const ROUNDS: usize = 10;

/// A median of so few may be off by one attempt, which is about a second.
const ATTEMPT_ERROR: f64 = 1.0;
const DURATION_ERROR: f64 = 1.0;

const KPROBE_EVENTS: &str = "/sys/kernel/tracing/kprobe_events";
const PROFILE: &str = "/sys/kernel/tracing/kprobe_profile";
const ENABLE: &str = "/sys/kernel/tracing/events/lpm/attempt/enable";

/// What one transition took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    attempts: f64,
    seconds: f64,
}

/// Transitions on a busy machine take no more attempts and no longer with the
/// monitor than without. A kprobe of the machine's own counts the attempts of both.
pub(super) fn transitions_take_no_longer(guest: &mut Guest) -> Result<()> {
    let result = compare(guest);
    remove_counter()?;
    let (with, without) = result?;
    let mut worse = Vec::new();
    for (what, allowed, pick) in [
        (
            "attempts",
            ATTEMPT_ERROR,
            (|cost: &Cost| cost.attempts) as fn(&Cost) -> f64,
        ),
        ("seconds", DURATION_ERROR, |cost: &Cost| cost.seconds),
    ] {
        let median_with = median(&with, pick)?;
        let median_without = median(&without, pick)?;
        let text = format!(
            "{what} of a transition on a busy machine, median of {}: \
             {median_with:.2} with the monitor, {median_without:.2} without",
            with.len()
        );
        guest.note(text.clone())?;
        if median_with > median_without + allowed {
            worse.push(text);
        }
    }
    if !worse.is_empty() {
        bail!("{}", worse.join("; "));
    }
    Ok(())
}

fn compare(guest: &mut Guest) -> Result<(Vec<Cost>, Vec<Cost>)> {
    files::write(KPROBE_EVENTS, "p:lpm/attempt klp_try_complete_transition")?;
    files::write(ENABLE, "1")?;
    guest.helper(&Task::Busy { threads: 4 })?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Turns, so that neither always comes first.
        for monitored in [round % 2 == 0, round % 2 == 1] {
            if monitored {
                guest.start_monitor(&[])?;
                with.extend(patch_and_unpatch(guest, true)?);
                guest.stop_monitor()?;
            } else {
                without.extend(patch_and_unpatch(guest, false)?);
            }
        }
        guest.note(format!("round {} of {ROUNDS}", round + 1))?;
    }
    Ok((with, without))
}

fn patch_and_unpatch(guest: &Guest, monitored: bool) -> Result<[Cost; 2]> {
    let patching = measure(guest, monitored, || VMLINUX.load())?;
    let unpatching = measure(guest, monitored, || VMLINUX.disable())?;
    // The module goes with its livepatch.
    crate::modules::unload(VMLINUX.name)?;
    Ok([patching, unpatching])
}

fn measure(guest: &Guest, monitored: bool, start: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let before = attempts()?;
    let begin = Instant::now();
    start()?;
    let mut scraped = Instant::now();
    while VMLINUX.in_transition()? {
        ensure!(
            begin.elapsed() < seconds(120),
            "a transition does not end in two minutes"
        );
        // A Prometheus is part of what may do harm.
        if monitored && scraped.elapsed() > seconds(1) {
            guest.monitor()?.scrape()?;
            scraped = Instant::now();
        }
        thread::sleep(Duration::from_millis(20));
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Cost {
        attempts: attempts()? - before,
        seconds,
    })
}

/// How often the kernel has tried to complete a transition.
fn attempts() -> Result<f64> {
    let profile = files::read(PROFILE)?;
    profile
        .lines()
        .find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "attempt").then(|| words.next()?.parse().ok())?
        })
        .with_context(|| format!("no probe called attempt in {PROFILE}: {profile}"))
}

fn remove_counter() -> Result<()> {
    if !fs::exists(ENABLE).unwrap_or(false) {
        return Ok(());
    }
    files::write(ENABLE, "0")?;
    files::write(KPROBE_EVENTS, "-:lpm/attempt")
}

fn median(costs: &[Cost], pick: fn(&Cost) -> f64) -> Result<f64> {
    let mut values: Vec<f64> = costs.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).context("nothing was measured")?;
    let lower = values.get(middle.saturating_sub(1)).unwrap_or(upper);
    Ok(if values.len() % 2 == 0 {
        f64::midpoint(*lower, *upper)
    } else {
        *upper
    })
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
        metrics.expect_sum("livepatch_monitor_probe_attached{probe=klp_force_transition}", 1.0)
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
    crate::modules::unload(target::NAME)
}
