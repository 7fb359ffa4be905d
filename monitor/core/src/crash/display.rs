//! Describes a crash in sentences for people.

use std::time::{Duration, SystemTime};

use super::{
    CrashRecord, Evidence, EvidenceKind, HostCrash, Marker, Patch, Phase, Precision, When,
};
use crate::{blockers::printable, transition::doing};

/// Foreign text with control characters escaped.
#[must_use]
pub fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

/// Whether the machine survived the crash.
#[must_use]
pub const fn end(crash: &HostCrash) -> &'static str {
    match crash.ended_boot {
        Some(true) => "the machine went down with it",
        Some(false) => "the machine kept running",
        None => "not known",
    }
}

/// Date and uptime of the crash, and how precise they are.
#[must_use]
pub fn when(when: &When) -> String {
    let uptime = when
        .uptime_seconds
        .map(|seconds| format!("{seconds:.6} s after boot"));
    let date = date(when.unix_seconds).map(|date| match when.is_utc() {
        true => date,
        false => date.trim_end_matches('Z').to_owned(),
    });
    let source = match when.precision {
        Precision::Unknown => "",
        Precision::NoYear => "the log's dates have no year",
        Precision::LocalTime => " (local time; its zone is not in the log)",
        Precision::After => " or later (the last known time of that boot)",
        Precision::File => " (by the date of the dump's file, which is the firmware's clock)",
        Precision::LogClock => " (by an earlier line's clock)",
        Precision::Journal => " (by the monitor's journal and the uptime)",
        Precision::Dump => " (by pstore's record, to about a second)",
        Precision::Line => " (by the line's own date)",
    };
    match (date, uptime) {
        (Some(date), Some(uptime)) => format!("{date}{source}, {uptime}"),
        (Some(date), None) => format!("{date}{source}"),
        (None, uptime) if when.precision == Precision::NoYear => {
            uptime.map_or_else(|| source.to_owned(), |uptime| format!("{uptime}; {source}"))
        }
        (None, Some(uptime)) => format!("{uptime}; the date is not in the log"),
        (None, None) => "unknown".to_owned(),
    }
}

/// In UTC; `None` if it cannot be written as a date.
#[must_use]
pub fn date(unix_seconds: Option<f64>) -> Option<String> {
    let seconds = unix_seconds?;
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    let date = SystemTime::UNIX_EPOCH.checked_add(since)?;
    // Dates after the year 9999 cannot be written.
    (seconds < 253_402_300_800.0).then(|| humantime::format_rfc3339_seconds(date).to_string())
}

fn seconds(seconds: Option<f64>) -> Option<String> {
    seconds.map(|seconds| format!("{seconds:.1} s"))
}

/// The phase of a patch's life, with the transition or load that explains it.
#[must_use]
pub fn phase(record: &CrashRecord) -> String {
    let name = record.phase.name();
    let transition = || {
        let running = record.transition.as_ref()?;
        let (patch, to) = (shown(&running.patch), doing(running.direction));
        Some(match seconds(running.seconds) {
            Some(age) => format!("{name}: {to} of {patch} had run for {age}"),
            None => format!("{name}: {to} of {patch} ran"),
        })
    };
    let last = || {
        let last = record.last_transition.as_ref()?;
        let (patch, to) = (shown(&last.patch), doing(last.direction));
        let ago = seconds(last.seconds)?;
        Some(format!("{name}: {to} of {patch} had ended {ago} before"))
    };
    let loading = || {
        let loading = |patch: &&Patch| patch.state == Some(Marker::Loading);
        let patch = record
            .patches
            .iter()
            .find(loading)
            .or(record.patches.last())?;
        Some(format!(
            "{name}: {} had not finished loading",
            shown(&patch.name)
        ))
    };
    let details = match record.phase {
        Phase::Load => loading(),
        Phase::Transition => transition(),
        Phase::Soak | Phase::Patched | Phase::Unpatched => last(),
        Phase::Unknown => None,
    };
    details.unwrap_or_else(|| name.to_owned())
}

/// Whether a livepatch is implicated, and by what.
#[must_use]
pub fn implicated(record: &CrashRecord) -> String {
    let name = record.implicated.name();
    let reasons: Vec<String> = match record.evidence.is_empty() {
        false => record.evidence.iter().map(reason).collect(),
        true => record.unproven.iter().map(|reason| shown(reason)).collect(),
    };
    match reasons.is_empty() {
        true => name.to_owned(),
        false => format!("{name}: {}", reasons.join("; ")),
    }
}

fn reason(evidence: &Evidence) -> String {
    let patch = evidence.patch.as_deref().map_or_else(String::new, shown);
    let function = evidence.function.as_ref();
    let function = function.map_or_else(String::new, |function| shown(&function.to_string()));
    let of = if patch.is_empty() { "" } else { ", handling " };
    match evidence.kind {
        EvidenceKind::FaultInPatch => format!("the fault is in livepatch {patch}, {function}"),
        EvidenceKind::FaultInReplaced => {
            format!("the fault is in {function}, which livepatch {patch} replaces")
        }
        EvidenceKind::FaultInCore => {
            format!("the fault is in the livepatch core, {function}{of}{patch}")
        }
        EvidenceKind::StackInPatch => format!("livepatch {patch} is on the stack, {function}"),
        EvidenceKind::StackInReplaced => {
            format!("{function}, which livepatch {patch} replaces, is on the stack")
        }
        EvidenceKind::StackInCore => {
            format!("the livepatch core is on the stack, {function}{of}{patch}")
        }
        EvidenceKind::PatchLoading => format!("livepatch {patch} had not finished loading"),
    }
}

/// The task in which it happened, and where, as far as the log says.
#[must_use]
pub fn task(record: &CrashRecord) -> Option<String> {
    let mut words = Vec::new();
    if let Some(comm) = &record.comm {
        words.push(format!("\"{}\"", shown(comm)));
    }
    if let Some(pid) = record.pid {
        words.push(format!("pid {pid}"));
    }
    if let Some(cpu) = record.cpu {
        words.push(format!("on CPU {cpu}"));
    }
    (!words.is_empty()).then(|| words.join(" "))
}
