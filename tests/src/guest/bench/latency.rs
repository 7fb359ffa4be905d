//! From what happens to the metric that says so.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Table, median_and_worst, milliseconds};
use crate::{
    eventually::seconds, exposition::Exposition, guest::Guest, helpers::Hold, livepatch::PATCH_A,
    target,
};

const ROUNDS: usize = 5;

/// Between two scrapes: the resolution of the result.
const POLL: Duration = Duration::from_millis(20);

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let mut active = Vec::new();
    let mut named = Vec::new();
    let mut ended = Vec::new();
    guest.start_monitor(&[])?;
    target::load()?;
    for _ in 0..ROUNDS {
        target::hold()?;
        guest.hold(&Hold::ONE)?;
        let begin = Instant::now();
        PATCH_A.load()?;
        active.push(until(guest, begin, |metrics| {
            metrics.sum("livepatch_transition_active").map(is_one)
        })?);
        named.push(until(guest, begin, |metrics| {
            metrics
                .sum("livepatch_blocking_tasks{function=lpm_hold}")
                .map(is_one)
        })?);
        target::release()?;
        while PATCH_A.in_transition()? {
            thread::sleep(Duration::from_millis(5));
        }
        let begin = Instant::now();
        ended.push(until(guest, begin, |metrics| {
            metrics
                .sum("livepatch_transition_active")
                .map(|sum| !is_one(sum))
        })?);
        PATCH_A.remove(seconds(30))?;
    }
    let mut table = Table::new(
        &format!("From the event to the metric, over {ROUNDS} transitions (milliseconds)"),
        &["", "median", "worst"],
    );
    for (what, durations) in [
        ("insmod to transition_active", active),
        ("insmod to the blocking function's name", named),
        ("completion to no transition_active", ended),
    ] {
        let (median, worst) = median_and_worst(durations)?;
        table.row(&[what.to_owned(), milliseconds(median), milliseconds(worst)]);
    }
    Ok(table)
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

fn is_one(sum: f64) -> bool {
    (sum - 1.0).abs() < f64::EPSILON
}
