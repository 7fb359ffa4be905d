//! Counts how often the kernel reaches a function, with separate kprobes that lose nothing.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::files;

const EVENTS: &str = "/sys/kernel/tracing/kprobe_events";
const PROFILE: &str = "/sys/kernel/tracing/kprobe_profile";
const GROUP: &str = "/sys/kernel/tracing/events/lpm";
const TRACE: &str = "/sys/kernel/tracing/trace";
const CLOCK: &str = "/sys/kernel/tracing/trace_clock";

/// One attempt of the kernel to complete a transition. Attempts are a second apart, so their number
/// shows how long a transition takes.
pub(crate) const ATTEMPT: &str = "klp_try_complete_transition";

/// Counts until it is dropped.
pub(crate) struct Counters(());

impl Counters {
    /// Counts each of the functions from now on.
    pub(crate) fn of(functions: &[&str]) -> Result<Self> {
        ensure!(
            !fs::exists(GROUP).unwrap_or(false),
            "the functions are counted already"
        );
        let counters = Self(());
        for function in functions {
            fs::OpenOptions::new()
                .append(true)
                .open(EVENTS)
                .and_then(|mut file| {
                    let line = format!("p:lpm/{function} {function}\n");
                    std::io::Write::write_all(&mut file, line.as_bytes())
                })
                .with_context(|| format!("cannot put a kprobe on {function}"))?;
        }
        files::write(&format!("{GROUP}/enable"), "1")?;
        Ok(counters)
    }

    /// The same, and from now on the time of the last call of each is recorded, by CLOCK_MONOTONIC.
    pub(crate) fn timed(functions: &[&str]) -> Result<Self> {
        files::write(CLOCK, "mono")?;
        Self::of(functions)
    }

    /// When this function was last called; for those that are [`timed`](Self::timed).
    pub(crate) fn last_time(&self, function: &str) -> Result<Duration> {
        let trace = files::read(TRACE)?;
        let found = time_of_last(&trace, function);
        found.with_context(|| format!("no {function} in {TRACE}:\n{trace}"))
    }

    /// How often each function was reached.
    pub(crate) fn read(&self) -> Result<BTreeMap<String, u64>> {
        // The name, the hits, and the hits that were missed because the CPU was in another kprobe.
        files::read(PROFILE)?
            .lines()
            .map(|line| {
                let mut words = line.split_whitespace();
                let name = words.next()?;
                let hits: u64 = words.next()?.parse().ok()?;
                let missed: u64 = words.next()?.parse().ok()?;
                Some((name.to_owned(), hits + missed))
            })
            .collect::<Option<_>>()
            .with_context(|| format!("{PROFILE} has a line of another form"))
    }

    /// How often this function was reached, as a metric value.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of one run are below 2^52"
    )]
    pub(crate) fn metric(&self, function: &str) -> Result<f64> {
        Ok(self.get(function)? as f64)
    }

    /// How often this function was reached.
    pub(crate) fn get(&self, function: &str) -> Result<u64> {
        let counts = self.read()?;
        let count = counts.get(function).copied();
        count.with_context(|| format!("no kprobe on {function} in {PROFILE}: {counts:?}"))
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // If it cannot be removed, the next counter reports that.
        let _ = files::write(&format!("{GROUP}/enable"), "0");
        let _ = fs::write(EVENTS, "");
        let _ = files::write(CLOCK, "local");
    }
}

/// As in `  insmod-263  [001] .....    12.345678: klp_enable_patch: (klp_enable_patch+0x0/0xb40)`.
fn time_of_last(trace: &str, function: &str) -> Option<Duration> {
    let event = format!(": {function}: (");
    let line = trace.lines().rev().find(|line| line.contains(&event))?;
    let (before, _) = line.split_once(&event)?;
    let (_, time) = before.rsplit_once(' ')?;
    Duration::try_from_secs_f64(time.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_is_found() {
        let trace = "# tracer: nop\n\
                     \x20          insmod-263     [001] .....    12.345678: klp_enable_patch: (klp_enable_patch+0x0/0xb40)\n\
                     \x20      odd: name-264     [000] d..1.   100.000005: klp_enable_patch: (klp_enable_patch+0x0/0xb40)\n\
                     \x20          insmod-263     [001] .....   101.000000: __warn: (__warn+0x0/0x150)\n";
        let time = time_of_last(trace, "klp_enable_patch");
        assert_eq!(time, Some(Duration::from_micros(100_000_005)));
        assert_eq!(time_of_last(trace, "klp_enable"), None);
    }
}
