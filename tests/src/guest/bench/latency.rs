//! The time from an event to the metric that shows it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};

use super::{Table, median_and_worst, milliseconds};
use crate::{
    eventually::seconds, exposition::Exposition, guest::Guest, helpers::Hold, livepatch::PATCH_A,
    target,
};

const ROUNDS: usize = 5;

/// The interval of scrapes and of reading sysfs, which is the resolution of the result.
const POLL: Duration = Duration::from_millis(5);

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let mut active = Vec::new();
    let mut named = Vec::new();
    let mut ended = Vec::new();
    guest.start_monitor(&[])?;
    target::load()?;
    for _ in 0..ROUNDS {
        target::hold()?;
        guest.hold(&Hold::ONE)?;
        // On another thread, because insmod returns only some time after the transition has begun.
        let insmod = thread::spawn(|| PATCH_A.load());
        let begin = wait_for(true)?;
        active.push(until(guest, begin, |metrics| {
            metrics
                .sum_of_any("livepatch_transition_active")
                .map(is_one)
        })?);
        named.push(until(guest, begin, |metrics| {
            metrics
                .sum_of_any("livepatch_blocking_tasks{function=lpm_hold}")
                .map(is_one)
        })?);
        insmod
            .join()
            .map_err(|_| anyhow!("the thread that loads panicked"))??;
        target::release()?;
        let begin = wait_for(false)?;
        ended.push(until(guest, begin, |metrics| {
            metrics
                .sum_of_any("livepatch_transition_active")
                .map(|sum| !is_one(sum))
        })?);
        PATCH_A.remove(seconds(30))?;
    }
    let mut table = Table::new(
        &format!(
            "From sysfs's `transition` to the metric, over {ROUNDS} transitions (milliseconds)"
        ),
        &["", "median", "worst"],
    );
    for (what, durations) in [
        ("start to transition_active", active),
        ("start to the blocking function's name", named),
        ("end to no transition_active", ended),
    ] {
        let (median, worst) = median_and_worst(durations)?;
        table.row(&[what.to_owned(), milliseconds(median), milliseconds(worst)]);
    }
    Ok(table)
}

/// Waits until sysfs shows that a transition runs, or that none does.
fn wait_for(running: bool) -> Result<Instant> {
    let begin = Instant::now();
    while PATCH_A.in_transition()? != running {
        ensure!(begin.elapsed() < seconds(60), "no change in a minute");
        thread::sleep(POLL);
    }
    Ok(Instant::now())
}

fn until(
    guest: &Guest,
    begin: Instant,
    check: impl Fn(&Exposition) -> Result<bool>,
) -> Result<Duration> {
    while !check(&guest.monitor()?.scrape()?)? {
        ensure!(begin.elapsed() < seconds(60), "not seen in a minute");
        thread::sleep(POLL);
    }
    Ok(begin.elapsed())
}

fn is_one(sum: Option<f64>) -> bool {
    sum.is_some_and(|sum| (sum - 1.0).abs() < f64::EPSILON)
}
