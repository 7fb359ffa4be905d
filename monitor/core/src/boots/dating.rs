//! Dates a crash from the journal. Four clocks are involved: the log's own, which counts from the
//! boot and drifts; the boot's, in the journal; the system's, in the journal and in what pstore
//! writes; and the firmware's, in the line with which the kernel sets the system's clock at the
//! boot, and in the dates of files that a crash kernel writes. The firmware's may be wrong by hours
//! until something corrects it, so it is used only if nothing else is known.

use std::time::Duration;

use crate::{
    crash::{Precision, When},
    journal::history::{History, SignalSeen},
    transition::BootTime,
};

/// By how much clocks that are set correctly may disagree.
const SLACK_SECONDS: f64 = 60.0;

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
    if when.is_of_system() {
        let date = when.unix_seconds.unwrap_or(last);
        let apart = by_uptime.map_or(0.0, |other| (date - other).abs());
        let after = next.is_none_or(|next| date <= next + SLACK_SECONDS);
        // It was read after the journal's last entry, so it is at least as accurate.
        if apart <= SLACK_SECONDS + when.drift_seconds() || (date >= last && after) {
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
        .filter(|_| when.is_of_system())
        .and_then(|(last, date)| at(last_time + date - last));
    by_date
        .or_else(|| when.uptime_seconds.and_then(at))
        .unwrap_or(history.last_time)
}
