//! `livepatch-monitor crashes import`

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde::Serialize;

use super::render::show;
use crate::crash::{gather, text::Text};
use livepatch_core::{
    blockers::printable,
    crash::{
        self, CrashRecord, NonFatalSignal,
        display::{shown, when},
        parser::Reading,
    },
};

/// Most crashes handled in one call, before dumps of the same crash are merged.
const MAX_CRASHES: usize = 4096;

/// Exit code 0: crashes were found; 1: none; 2: a file could not be read or understood, so that it
/// is unknown whether it contains a crash.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 crashes were found, 1 none was, 2 a file could not be read or is \
                  not a kernel log (crashes found in the others are still shown)."
)]
pub(super) struct Import {
    /// Console log, dmesg, kdump's vmcore-dmesg, pstore file, or a directory of these
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// How long after a transition a crash still counts as in its soak phase
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = crate::cli::values::duration)]
    soak: Duration,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    crashes: Vec<CrashRecord>,
    signals: Vec<NonFatalSignal>,
    problems: Vec<String>,
}

impl Import {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let report = self.read();
        for problem in &report.problems {
            crate::cli::complain(&printable(problem.as_bytes()));
        }
        let text = match self.json {
            true => serde_json::to_string_pretty(&report)? + "\n",
            false => report.text(),
        };
        crate::cli::print(&text)?;
        Ok(
            match (report.problems.is_empty(), report.crashes.is_empty()) {
                (false, _) => ExitCode::from(2),
                (true, true) => ExitCode::from(1),
                (true, false) => ExitCode::SUCCESS,
            },
        )
    }

    fn read(&self) -> Report {
        let mut report = Report::default();
        let mut crashes: Vec<CrashRecord> = Vec::new();
        let mut left_out = 0_usize;
        let mut unread: Vec<String> = Vec::new();
        let mut add = |found: Text| {
            let read = found.read(&Reading::new(self.soak.as_secs_f64()));
            let files = found.files.join(", ");
            let unclear = read.log.problems.into_iter();
            unread.extend(unclear.map(|problem| format!("{files}: {problem}")));
            let room = MAX_CRASHES - crashes.len();
            left_out += read.crashes.len().saturating_sub(room);
            crashes.extend(
                read.crashes
                    .into_iter()
                    .take(room)
                    .map(|(record, _)| record),
            );
            for signal in read.log.non_fatal {
                // Dumps of one boot repeat earlier lines.
                let known = |known: &NonFatalSignal| {
                    known.headline == signal.headline
                        && known.when.uptime_seconds == signal.when.uptime_seconds
                };
                if report.signals.len() < MAX_CRASHES && !report.signals.iter().any(known) {
                    report.signals.push(signal);
                }
            }
        };
        let problems = gather::texts(self.files.iter().map(PathBuf::as_path), &mut add);
        report.problems = problems;
        report.problems.append(&mut unread);
        if left_out > 0 {
            let problem = format!("{left_out} more crashes were left out: give fewer files");
            report.problems.push(problem);
        }
        report.crashes = crash::merge(crashes);
        report
    }
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
        // A file that could not be read may contain a crash.
        if self.crashes.is_empty() && self.problems.is_empty() {
            text.push_str("no crash found\n");
        }
        if !self.signals.is_empty() {
            text.push_str("\nAlso in the log, no crash by themselves:\n");
        }
        for signal in &self.signals {
            let name = signal.report.as_deref().unwrap_or(signal.signal.name());
            let headline = shown(&signal.headline);
            let _ = writeln!(text, "  {name}, {}: {headline}", when(&signal.when));
            let function = signal.function.as_ref();
            let place =
                function.map_or_else(String::new, |f| format!("{}, ", shown(&f.to_string())));
            let (phase, implicated) = (signal.phase.name(), signal.implicated.name());
            let _ = writeln!(
                text,
                "    {place}phase {phase}, livepatch implicated: {implicated}"
            );
        }
        text
    }
}
