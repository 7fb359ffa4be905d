//! When a crash was. Four clocks speak of it: the log's own, which counts from the boot and
//! drifts; the boot's, in the journal; the system's, in the journal and in what pstore
//! writes; and the firmware's, in the line with which the kernel sets the system's clock at
//! the boot, and in the dates of files that a crash kernel writes. The firmware's may be
//! wrong by hours until something sets it right, so it decides only where nothing else is
//! known.

use std::time::Duration;

use super::{Precision, When};
use crate::{
    lifecycle::{History, SignalSeen},
    transition::BootTime,
};

/// A clock that nobody has set right is off by no more than this: a day in another time
/// zone. What is further away is of another time.
pub const CLOCK_WRONG_SECONDS: f64 = 26.0 * 3600.0;
/// A date before this (2017) is that of a firmware's clock that was never set, and is none.
pub(super) const NEVER_SET_BEFORE: f64 = 1.5e9;
/// The log's clock (`local_clock()`) and the boot's may drift apart by this part of the
/// uptime. A report has 10 hours, after some weeks.
pub const DRIFT: f64 = 0.02;
/// Two readings of the right clock for one moment differ by no more than this.
const SAME_MOMENT_SECONDS: f64 = 15.0;
const SLACK_SECONDS: f64 = 60.0;
/// Two clocks read for one moment, of a boot that is young.
const LEAST_DRIFT_SECONDS: f64 = 5.0;

/// By how much the log's clock may differ from the boot's at that moment.
#[must_use]
pub(super) fn drift_seconds(when: &When) -> f64 {
    let uptime = when.uptime_seconds.unwrap_or(0.0).max(0.0);
    LEAST_DRIFT_SECONDS + uptime * DRIFT
}

/// Whether the date was read from the system's clock when it happened.
#[must_use]
pub(super) fn is_of_system(when: &When) -> bool {
    when.unix_seconds.is_some() && matches!(when.precision, Precision::Dump | Precision::Line)
}

/// Dates a crash of a boot: `seen` is the journal's entry for it, `next` the start of the
/// next boot.
pub(super) fn date(
    history: &History,
    seen: Option<&SignalSeen>,
    next: Option<f64>,
    when: &mut When,
) {
    let precise = |seconds: f64, when: &mut When| {
        when.unix_seconds = Some(seconds);
        when.precision = Precision::Journal;
    };
    let Some(last) = history.last_unix_seconds else {
        return;
    };
    let last_time = history.last_time.as_duration().as_secs_f64();
    let by_uptime = when.uptime_seconds.map(|uptime| last + uptime - last_time);
    if is_of_system(when) {
        let date = when.unix_seconds.unwrap_or(last);
        let apart = by_uptime.map_or(0.0, |other| (date - other).abs());
        let after = next.is_none_or(|next| date <= next + SLACK_SECONDS);
        // It was read after the journal's last entry, so it is at least as right.
        if apart <= SLACK_SECONDS + drift_seconds(when) || (date >= last && after) {
            return;
        }
    }
    if let Some(seconds) = seen.and_then(|seen| seen.unix_seconds) {
        precise(seconds, when);
        return;
    }
    if let Some(seconds) = by_uptime {
        precise(next.map_or(seconds, |next| seconds.min(next)), when);
    }
}

/// The moment of a crash on the boot's clock, as well as it can be known.
pub(super) fn moment(history: &History, seen: Option<&SignalSeen>, when: &When) -> BootTime {
    if let Some(seen) = seen {
        return seen.time;
    }
    let at = |seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .ok()
            .map(BootTime::from_duration)
    };
    let last_time = history.last_time.as_duration().as_secs_f64();
    let by_date = history
        .last_unix_seconds
        .zip(when.unix_seconds)
        .filter(|_| is_of_system(when))
        .and_then(|(last, date)| at(last_time + date - last));
    by_date
        .or_else(|| when.uptime_seconds.and_then(at))
        .unwrap_or(history.last_time)
}

/// Whether two dates may be of one moment, each as exact as it is.
#[must_use]
pub(super) fn agree(one: &When, other: &When) -> bool {
    let tolerance = |when: &When| match when.precision {
        Precision::Line | Precision::Dump => Some(0.0),
        Precision::Journal => Some(SLACK_SECONDS + drift_seconds(when)),
        Precision::LogClock | Precision::File => Some(CLOCK_WRONG_SECONDS),
        Precision::Unknown | Precision::NoYear | Precision::After | Precision::LocalTime => None,
    };
    let (Some(first), Some(second)) = (one.unix_seconds, other.unix_seconds) else {
        return true;
    };
    let (Some(of_one), Some(of_other)) = (tolerance(one), tolerance(other)) else {
        return true;
    };
    // One text read twice gives the same date, right or wrong.
    let tolerance = match one.precision == other.precision {
        true => 0.0,
        false => of_one.max(of_other),
    };
    (first - second).abs() < SAME_MOMENT_SECONDS + tolerance
}
