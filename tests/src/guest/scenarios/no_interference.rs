//! The monitor does not interfere with transitions.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    counters::{ATTEMPT, Counters},
    eventually::seconds,
    exposition::{Exposition, ended},
    guest::Guest,
    helpers::{Hold, Task},
    livepatch::{Livepatch, PATCH_A, PROBED, VMLINUX},
    modules,
    monitor::Monitor,
    process::context_switches_by_thread,
    target,
};

/// Each round has [`PAIRS`] with the monitor and as many without.
const ROUNDS: usize = 5;

/// Number of times that it patches and unpatches during one run of the monitor.
const PAIRS: usize = 2;

/// A difference of this many standard deviations occurs by chance once in a thousand runs (normal
/// distribution).
const ONE_IN_A_THOUSAND: f64 = 3.09;

/// Transitions on a busy machine take no more attempts with the monitor than without. A separate
/// kprobe counts the attempts of both.
pub(super) fn transitions_take_no_longer(guest: &mut Guest) -> Result<()> {
    let counters = Counters::of(&[ATTEMPT])?;
    let (with, without) = compare(guest, &counters)?;
    let higher = higher(&with, &without);
    guest.note(format!(
        "attempts with the monitor {with:?}, without {without:?}: {higher:.2} standard \
         deviations higher"
    ))?;
    ensure!(
        higher < ONE_IN_A_THOUSAND,
        "transitions take more attempts with the monitor, {with:?}, than without, {without:?}: \
         by {higher:.2} standard deviations"
    );
    Ok(())
}

/// By how many standard deviations the ranks of `some` are above the ranks expected if both had the
/// same distribution: the test of Mann and Whitney, with the correction for ties.
fn higher(some: &[u64], others: &[u64]) -> f64 {
    let pairs = some
        .iter()
        .flat_map(|one| others.iter().map(move |other| one.cmp(other)));
    let wins: f64 = pairs
        .map(|order| match order {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum();
    let (first, second) = (size(some.len()), size(others.len()));
    let all = first + second;
    let mut values: Vec<u64> = some.iter().chain(others).copied().collect();
    values.sort_unstable();
    let ties = values.chunk_by(|one, next| one == next);
    let ties: f64 = ties
        .map(|tied| size(tied.len()).powi(3) - size(tied.len()))
        .sum();
    let variance = first * second / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    let difference = wins - first * second / 2.0;
    if variance > 0.0 {
        difference / variance.sqrt()
    } else {
        0.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "some tens of transitions")]
fn size(count: usize) -> f64 {
    count as f64
}

/// The attempts of each transition, with the monitor and without.
fn compare(guest: &mut Guest, counters: &Counters) -> Result<(Vec<u64>, Vec<u64>)> {
    guest.helper(&Task::Busy { threads: 2 })?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        // Alternating, so that neither always comes first.
        if round % 2 == 0 {
            with.extend(monitored(guest, counters)?);
            without.extend(pairs(guest, counters)?);
        } else {
            without.extend(pairs(guest, counters)?);
            with.extend(monitored(guest, counters)?);
        }
        guest.note(format!("round {round} of {ROUNDS}"))?;
    }
    Ok((with, without))
}

/// The attempts of each transition of [`PAIRS`] with the monitor.
fn monitored(guest: &mut Guest, counters: &Counters) -> Result<Vec<u64>> {
    guest.start_monitor(&[])?;
    let attempts = pairs(guest, counters)?;
    guest.stop_monitor()?;
    Ok(attempts)
}

fn pairs(guest: &Guest, counters: &Counters) -> Result<Vec<u64>> {
    let mut attempts = Vec::new();
    for _ in 0..PAIRS {
        let both = patch_and_unpatch(guest, counters)?;
        attempts.extend(both.map(|transition| transition.attempts));
    }
    Ok(attempts)
}

/// What a transition took.
#[derive(Clone, Copy, Debug)]
struct Transition {
    /// Attempts of the kernel.
    attempts: u64,
    /// Whether a thread of the monitor was woken before the first attempt was over, and that
    /// attempt failed.
    disturbed: bool,
}

fn patch_and_unpatch(guest: &Guest, counters: &Counters) -> Result<[Transition; 2]> {
    let patching = transition(guest, counters, || VMLINUX.load())?;
    guest.note(format!("to patch: {patching:?}"))?;
    let unpatching = transition(guest, counters, || VMLINUX.disable())?;
    guest.note(format!("to unpatch: {unpatching:?}"))?;
    modules::unload(VMLINUX.name)?;
    Ok([patching, unpatching])
}

/// Starts a transition with an action that returns after the first attempt, and waits for its end.
fn transition(
    guest: &Guest,
    counters: &Counters,
    start: impl FnOnce() -> Result<()>,
) -> Result<Transition> {
    let pid = guest.monitor().ok().map(Monitor::pid);
    let switches = || pid.map_or_else(|| Ok(BTreeMap::new()), context_switches_by_thread);
    let before = counters.get(ATTEMPT)?;
    let switches_before = switches()?;
    let begin = Instant::now();
    start()?;
    let woken = switches()?.iter().any(|(thread, count)| {
        switches_before
            .get(thread)
            .is_none_or(|before| count > before)
    });
    // From the second attempt on, and from the end, it may run.
    let first = counters.get(ATTEMPT)? - before == 1;
    let mut scraped = Instant::now();
    while VMLINUX.in_transition()? {
        ensure!(
            begin.elapsed() < seconds(120),
            "a transition does not end in two minutes"
        );
        // Scrapes could interfere too.
        if let Ok(monitor) = guest.monitor()
            && scraped.elapsed() > seconds(1)
        {
            monitor.scrape()?;
            scraped = Instant::now();
        }
        thread::sleep(Duration::from_millis(20));
    }
    let attempts = counters.get(ATTEMPT)? - before;
    Ok(Transition {
        attempts,
        disturbed: attempts > 1 && first && woken,
    })
}

/// Patchings and unpatchings with the monitor, and as many without.
const QUIET_ROUNDS: usize = 8;

/// How many more of the transitions may need a second attempt with the monitor, if some do without
/// it. A monitor that woke up at the start of each would hinder every fourth.
const HINDERED: usize = 2;

/// On a machine where nothing else runs, a monitor that wakes up at the start of a transition would
/// make the kernel's first attempt fail. None of its threads does, and the transitions take no more
/// attempts.
pub(super) fn first_attempts_succeed(guest: &mut Guest) -> Result<()> {
    let counters = Counters::of(&[ATTEMPT])?;
    let without = quiet_transitions(guest, &counters)?;
    guest.start_monitor(&[])?;
    let with = quiet_transitions(guest, &counters)?;
    guest.stop_monitor()?;
    let attempts = |of: &[Transition]| of.iter().map(|one| one.attempts).collect::<Vec<_>>();
    let (with_attempts, without_attempts) = (attempts(&with), attempts(&without));
    guest.note(format!(
        "attempts with the monitor {with_attempts:?}, without {without_attempts:?}"
    ))?;
    // If transitions without the monitor need a second attempt too, the host is busy: between the
    // first attempt and the check of the threads the monitor has time to wake up later, so the
    // number of second attempts is compared instead.
    let hindered = |attempts: &[u64]| attempts.iter().filter(|attempts| **attempts > 1).count();
    let (with_second, without_second) = (hindered(&with_attempts), hindered(&without_attempts));
    let disturbed = with.iter().filter(|one| one.disturbed).count();
    ensure!(
        disturbed == 0 || without_second > 0 && with_second <= without_second + HINDERED,
        "of {} transitions on a quiet machine, {disturbed} needed a second attempt after the \
         monitor had been woken in the first",
        with.len()
    );
    let higher = higher(&with_attempts, &without_attempts);
    ensure!(
        higher < ONE_IN_A_THOUSAND,
        "on a quiet machine transitions take more attempts with the monitor, \
         {with_attempts:?}, than without, {without_attempts:?}: by {higher:.2} standard \
         deviations"
    );
    Ok(())
}

fn quiet_transitions(guest: &Guest, counters: &Counters) -> Result<Vec<Transition>> {
    let mut all = Vec::new();
    for _ in 0..QUIET_ROUNDS {
        // The work from the round before is done.
        if guest.monitor().is_ok() {
            guest.wait_idle()?;
        }
        all.extend(patch_and_unpatch(guest, counters)?);
    }
    Ok(all)
}

/// A livepatch of a function that the monitor probes: both work, in either order.
pub(super) fn probed_function_can_be_patched(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    PROBED.apply(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 1.0)?;
    expect_enabled(&metrics, PROBED)?;
    expect_forcing_is_off(guest)?;
    guest.stop_monitor()?;

    guest.start_monitor(&[])?;
    let metrics = guest.scrape()?;
    expect_enabled(&metrics, PROBED)?;
    metrics.expect_absent("livepatch_monitor_probe_attached{method=none}")?;
    expect_forcing_is_off(guest)?;
    PROBED.remove(seconds(30))?;
    guest
        .scrape()?
        .expect_absent("livepatch_patch_info{patch=lpm_probed}")
}

fn expect_enabled(metrics: &Exposition, patch: Livepatch) -> Result<()> {
    metrics.expect(
        &format!("livepatch_patch_enabled{{patch={}}}", patch.name),
        1.0,
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_attempt_each_is_noticed() {
        let without = [1, 2, 2, 1, 3, 2, 1, 2, 2, 4, 2, 1, 2, 3, 2, 2, 1, 2, 2, 3];
        let with = without.map(|attempts| attempts + 1);
        assert!(higher(&with, &without) > ONE_IN_A_THOUSAND);
        assert!(higher(&without, &with) < -ONE_IN_A_THOUSAND);
    }

    #[test]
    fn the_same_distribution_is_not() {
        let some = [1, 2, 2, 1, 3, 2, 1, 2];
        assert!(higher(&some, &some).abs() < f64::EPSILON);
        assert!(higher(&[1; 20], &[1; 20]).abs() < f64::EPSILON);
        assert!(higher(&[1, 1, 1, 2], &[1, 1, 1, 1]) < ONE_IN_A_THOUSAND);
    }

    #[test]
    fn ranks_with_ties_are_as_in_the_textbook() {
        // U = 2: 4 and 5 win or tie thrice; variance 25/12 * (11 - 12/90).
        let value = higher(&[1, 2, 3, 4, 5], &[4, 5, 6, 7, 8]);
        let expected = (2.0 - 12.5) / (25.0_f64 / 12.0 * (11.0 - 12.0 / 90.0)).sqrt();
        assert!((value - expected).abs() < 1e-9, "{value}");
    }
}
