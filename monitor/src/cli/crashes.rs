//! `livepatch-monitor crashes`

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    crash::{
        self, CrashRecord, Evidence, EvidenceKind, Lesser, Marker, Phase, Precision, When,
        pstore::{self, Part},
        text::{self, Reading},
    },
    kernel::dumps::{self, Found},
    livepatch::{Direction, blockers::printable},
};

/// Crashes shown at once; what many dumps repeat counts here as often.
const MAX_CRASHES: usize = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum Crashes {
    /// Read what a crash left behind, here or copied from another host
    Import(Import),
}

/// Exit code 0: crashes were found; 1: none; 2: a file could not be used.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 crashes were found, 1 none was, 2 a file could not be read or is no \
                  kernel log (what the others tell is shown all the same)."
)]
pub(super) struct Import {
    /// Console log, dmesg, kdump's vmcore-dmesg, pstore file, or a directory of these
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// How long after a transition a crash counts as in its wake
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = super::duration)]
    soak: Duration,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    crashes: Vec<CrashRecord>,
    signals: Vec<Lesser>,
    problems: Vec<String>,
}

impl Crashes {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Import(import) => import.run(),
        }
    }
}

impl Import {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let report = self.read();
        for problem in &report.problems {
            eprintln!("livepatch-monitor: {}", printable(problem.as_bytes()));
        }
        let text = match self.json {
            true => serde_json::to_string_pretty(&report)? + "\n",
            false => report.text(),
        };
        super::print(&text)?;
        Ok(
            match (report.problems.is_empty(), report.crashes.is_empty()) {
                (false, _) => ExitCode::from(2),
                (true, true) => ExitCode::from(1),
                (true, false) => ExitCode::SUCCESS,
            },
        )
    }

    fn read(&self) -> Report {
        let reading = Reading::new(self.soak.as_secs_f64());
        let mut report = Report::default();
        let mut parts: Vec<Part> = Vec::new();
        let mut crashes: Vec<CrashRecord> = Vec::new();
        let mut left_out = 0_usize;
        let mut add = |mut told: text::Told, files: &[String]| {
            let room = MAX_CRASHES - crashes.len();
            left_out += told.records.len().saturating_sub(room);
            told.records.truncate(room);
            for record in &mut told.records {
                record.files = files.to_vec();
            }
            crashes.append(&mut told.records);
            for lesser in told.lesser {
                // Dumps of one boot repeat what came before.
                let known = |known: &Lesser| {
                    known.headline == lesser.headline
                        && known.when.uptime_seconds == lesser.when.uptime_seconds
                };
                if report.signals.len() < MAX_CRASHES && !report.signals.iter().any(known) {
                    report.signals.push(lesser);
                }
            }
        };
        for path in &self.files {
            let errors = dumps::read(path, &mut |found| match found {
                Found::Log { path, text } => {
                    add(text::read(&text, &reading), &[name(&path)]);
                }
                Found::Part(part) => parts.push(part),
            });
            let errors = errors.iter().map(ToString::to_string);
            report.problems.extend(errors);
        }
        for dump in pstore::join(parts) {
            if dump.missing > 0 {
                report.problems.push(format!(
                    "{}: {} of the dump's parts {} not there: look for the other files",
                    dump.files.join(", "),
                    dump.missing,
                    if dump.missing == 1 { "is" } else { "are" },
                ));
            }
            let reading = Reading {
                anchor: dump.anchor,
                ..reading.clone()
            };
            add(text::read(&dump.text, &reading), &dump.files);
        }
        if left_out > 0 {
            let problem = format!("{left_out} more crashes were left out: give fewer files");
            report.problems.push(problem);
        }
        report.crashes = crash::merge(crashes);
        report
    }
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for record in &self.crashes {
            if !text.is_empty() {
                text.push('\n');
            }
            show(&mut text, record);
        }
        if self.crashes.is_empty() {
            text.push_str("no crash found\n");
        }
        if !self.signals.is_empty() {
            text.push_str("\nAlso in the log, no crash by themselves:\n");
        }
        for lesser in &self.signals {
            let (signal, headline) = (lesser.signal.name(), shown(&lesser.headline));
            let _ = writeln!(text, "  {signal}, {}: {headline}", when(&lesser.when));
        }
        text
    }
}

fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

/// One crash as a ticket wants it.
fn show(text: &mut String, record: &CrashRecord) {
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

fn when(when: &When) -> String {
    let uptime = when
        .uptime_seconds
        .map(|seconds| format!("{seconds:.6} s after boot"));
    let date = when.unix_seconds.and_then(|seconds| {
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        let date = SystemTime::UNIX_EPOCH.checked_add(since)?;
        // Dates behind the year 9999 have no form.
        (seconds < 253_402_300_800.0).then(|| humantime::format_rfc3339_seconds(date).to_string())
    });
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
