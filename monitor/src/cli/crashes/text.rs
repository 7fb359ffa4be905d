//! A crash as a person reads it.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use crate::{
    crash::{self, CrashRecord, Evidence, EvidenceKind, Marker, Phase, Precision, When},
    livepatch::{Direction, blockers::printable},
};

pub(super) fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

/// One crash as a ticket wants it.
pub(super) fn show(text: &mut String, record: &CrashRecord) {
    let _ = writeln!(text, "{}: {}", record.kind.name(), shown(&record.headline));
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "  {key:<11} {value}");
    };
    line("when", &when(&record.when));
    line(
        "kernel",
        &record.release.as_deref().map_or("not told".into(), shown),
    );
    line("phase", &phase(record));
    line("implicated", &implicated(record));
    if let Some(function) = &record.function {
        line("function", &shown(&function.to_string()));
    }
    if let Some(task) = task(record) {
        line("task", &task);
    }
    if let Some(panic) = record
        .panic
        .as_ref()
        .filter(|panic| !record.headline.ends_with(*panic))
    {
        line("then", &format!("Kernel panic: {}", shown(panic)));
    }
    if record.reports > 1 {
        line("reported", &format!("{} times", record.reports));
    }
    let taint = match record.taint.as_deref() {
        None => "not told".to_owned(),
        Some("") => "none".to_owned(),
        Some(taint) => shown(taint),
    };
    line("taint", &taint);
    line("patches", &patches(record));
    if let Some(modules) = &record.modules {
        line("modules", &modules_line(modules));
    }
    for (index, file) in record.files.iter().enumerate() {
        line(if index == 0 { "evidence" } else { "" }, &shown(file));
    }
    if !record.trace.is_empty() {
        text.push_str("  call trace\n");
    }
    for frame in &record.trace {
        let mark = if frame.reliable { "" } else { "? " };
        let _ = writeln!(text, "    {mark}{}", shown(&frame.function.to_string()));
    }
    if record.cut {
        text.push_str("    (some of the trace or the modules was left out)\n");
    }
}

pub(super) fn when(when: &When) -> String {
    let uptime = when
        .uptime_seconds
        .map(|seconds| format!("{seconds:.6} s after boot"));
    let date = date(when.unix_seconds);
    let source = match when.precision {
        Precision::Unknown => "",
        Precision::After => " or later (the last that is known of that boot)",
        Precision::LogClock => " (by an earlier line's clock)",
        Precision::Dump => " (by pstore's record number, to about a second)",
        Precision::Line => " (by the line's own date)",
    };
    match (date, uptime) {
        (Some(date), Some(uptime)) => format!("{date}{source}, {uptime}"),
        (Some(date), None) => format!("{date}{source}"),
        (None, Some(uptime)) => format!("{uptime}; the date is not in the log"),
        (None, None) => "not told".to_owned(),
    }
}

/// In UTC; none where there is no form for it.
pub(super) fn date(unix_seconds: Option<f64>) -> Option<String> {
    let seconds = unix_seconds?;
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    let date = SystemTime::UNIX_EPOCH.checked_add(since)?;
    // Dates behind the year 9999 have no form.
    (seconds < 253_402_300_800.0).then(|| humantime::format_rfc3339_seconds(date).to_string())
}

fn seconds(seconds: Option<f64>) -> Option<String> {
    seconds.map(|seconds| format!("{seconds:.1} s"))
}

const fn towards(direction: Direction) -> &'static str {
    match direction {
        Direction::Patch => "patching",
        Direction::Unpatch => "unpatching",
    }
}

fn phase(record: &CrashRecord) -> String {
    let name = record.phase.name();
    let transition = || {
        let running = record.transition.as_ref()?;
        let (patch, to) = (shown(&running.patch), towards(running.direction));
        Some(match seconds(running.running_for_seconds) {
            Some(age) => format!("{name}: {to} of {patch} had run for {age}"),
            None => format!("{name}: {to} of {patch} ran"),
        })
    };
    let last = || {
        let last = record.last_transition.as_ref()?;
        let (patch, to) = (shown(&last.patch), towards(last.direction));
        let ago = seconds(last.ended_before_seconds)?;
        Some(format!("{name}: {to} of {patch} had ended {ago} before"))
    };
    let loading = || {
        let loading = |patch: &&crash::Patch| patch.state == Some(Marker::Loading);
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
    let told = match record.phase {
        Phase::Load => loading(),
        Phase::Transition => transition(),
        Phase::Soak | Phase::Patched | Phase::Unpatched => last(),
        Phase::Unknown => None,
    };
    told.unwrap_or_else(|| name.to_owned())
}

fn implicated(record: &CrashRecord) -> String {
    let name = record.implicated.name();
    let reasons: Vec<String> = record.evidence.iter().map(reason).collect();
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

fn task(record: &CrashRecord) -> Option<String> {
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

fn patches(record: &CrashRecord) -> String {
    if record.patches.is_empty() {
        return if record.modules.is_some() || record.phase == Phase::Unpatched {
            "none".to_owned()
        } else {
            "not told".to_owned()
        };
    }
    let one = |patch: &crash::Patch| {
        let state = match (patch.state, patch.kpatch) {
            (Some(Marker::Loading), _) => " (loading)",
            (Some(Marker::Unloading), _) => " (unloading)",
            (_, true) => " (kpatch)",
            (Some(Marker::Live) | None, false) => "",
        };
        shown(&patch.name) + state
    };
    let names: Vec<String> = record.patches.iter().map(one).collect();
    names.join(", ")
}

fn modules_line(modules: &[crash::Module]) -> String {
    let one = |module: &crash::Module| {
        let state = match module.state {
            Marker::Live => "",
            Marker::Loading => "+",
            Marker::Unloading => "-",
        };
        match module.taints.is_empty() && state.is_empty() {
            true => shown(&module.name),
            false => format!("{}({}{state})", shown(&module.name), shown(&module.taints)),
        }
    };
    let names: Vec<String> = modules.iter().map(one).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}
