//! Shows a crash as text.

use std::fmt::Write as _;

use livepatch_core::{
    crash::{
        CrashRecord, Frame, Marker, Module, Patch, Phase, Precision, When,
        display::{date, implicated, phase, shown, task, when},
    },
    updates::run::UpdateRun,
};

/// Writes one crash in full, ready for a ticket.
pub(super) fn show(text: &mut String, record: &CrashRecord) {
    let _ = writeln!(text, "{}: {}", record.kind.name(), shown(&record.headline));
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "  {key:<11} {value}");
    };
    if let Some(report) = &record.report {
        line("report", report);
    }
    if let Some(host) = &record.host {
        line("host", &shown(host));
    }
    line("when", &when(&record.when));
    line(
        "kernel",
        &record.release.as_deref().map_or("unknown".into(), shown),
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
        None => "unknown".to_owned(),
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
    frames(text, "call trace", record, true);
    frames(text, "on the stack, not known to be callers", record, false);
    if record.cut {
        text.push_str("    (some of the trace or the modules was left out)\n");
    }
}

/// Writes the frames that are certainly callers, or the others, under a title.
fn frames(text: &mut String, title: &str, record: &CrashRecord, reliable: bool) {
    let of_kind = |frame: &&Frame| frame.reliable == reliable;
    for (index, frame) in record.trace.iter().filter(of_kind).enumerate() {
        if index == 0 {
            let _ = writeln!(text, "  {title}");
        }
        let mark = if reliable { "" } else { "? " };
        let _ = writeln!(text, "    {mark}{}", shown(&frame.function.to_string()));
    }
}

fn patches(record: &CrashRecord) -> String {
    if record.patches.is_empty() {
        return if record.phase == Phase::Unpatched {
            "none".to_owned()
        } else {
            "unknown".to_owned()
        };
    }
    let one = |patch: &Patch| {
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

fn modules_line(modules: &[Module]) -> String {
    let one = |module: &Module| {
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

/// A run of a package manager, in a line: the command, who asked for it, and when.
pub(super) fn described(run: &UpdateRun) -> String {
    let command = run.command.as_ref().unwrap_or(&run.manager);
    let by = run.user.as_ref().map(|user| format!(", run by {user}"));
    let begin = u32::try_from(run.begin_unix_seconds).map(f64::from);
    let begin = date(begin.ok()).unwrap_or_else(|| "at an unknown time".to_owned());
    shown(&format!(
        "{command}{}, begun {begin}",
        by.unwrap_or_default()
    ))
}

/// Shows which run of a package manager had not ended at a crash.
pub(super) fn show_update(text: &mut String, run: &UpdateRun, when: &When) {
    let begin = u32::try_from(run.begin_unix_seconds).map(f64::from).ok();
    let before = when.unix_seconds.zip(begin).map(|(at, begin)| at - begin);
    let before = match (before, when.precision) {
        // Of the crash only a moment before it is known.
        (Some(before), Precision::After) if before >= 0.0 => {
            format!(", at least {before:.0} s before the crash")
        }
        (Some(before), _) if before >= 0.0 => format!(", {before:.0} s before the crash"),
        _ => String::new(),
    };
    let end = match run.end_unix_seconds {
        Some(_) => "ended after it",
        None => "never ended",
    };
    let _ = writeln!(
        text,
        "  {:<11} {} had not ended: {}{before}; it {end}",
        "update",
        shown(&run.manager),
        described(run)
    );
    for package in &run.packages {
        let _ = writeln!(text, "    {}", shown(package));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_before_the_crash_an_update_began_is_a_bound_after_a_reset() {
        let run = UpdateRun {
            manager: "dnf".to_owned(),
            begin_unix_seconds: 1_000,
            command: Some("dnf upgrade".to_owned()),
            user: Some("uid 0".to_owned()),
            ..UpdateRun::default()
        };
        let shown = |at: f64, precision| {
            let mut text = String::new();
            let when = When {
                uptime_seconds: None,
                unix_seconds: Some(at),
                precision,
            };
            show_update(&mut text, &run, &when);
            text
        };
        let dump = shown(1_005.0, Precision::Dump);
        assert!(dump.contains("dnf had not ended: dnf upgrade, run by uid 0, begun "));
        assert!(
            dump.contains(", 5 s before the crash; it never ended"),
            "{dump}"
        );
        let reset = shown(1_005.0, Precision::After);
        assert!(
            reset.contains(", at least 5 s before the crash;"),
            "{reset}"
        );
        // It began after the last moment that is known.
        let later = shown(995.0, Precision::After);
        assert!(!later.contains("before the crash"), "{later}");
    }
}
