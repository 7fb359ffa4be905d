//! `livepatch-monitor doctor`

mod clock;
mod evidence;
mod kernel;
mod settings;
mod unit;

use std::{fmt::Write as _, path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::Cli;
use crate::{bounded_read, kernel::modules};
use livepatch_core::{
    crash::display::shown,
    doctor::{Check, exit_code},
};

/// Exit code 0: all is well; 1: something is wrong; 2: not everything could be checked.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 all is well, 1 something is wrong, 2 nothing is known to be wrong but not everything could be checked, or an error."
)]
pub(super) struct Doctor {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    exit_code: u8,
    kernel: Option<String>,
    checks: Vec<Check>,
}

impl Doctor {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let paths = &cli.paths;
        let mut checks = kernel::checks(&paths.procfs, &paths.sysfs);
        checks.extend(settings::checks(&paths.procfs));
        checks.extend(clock::checks(&paths.kmsg));
        checks.extend(evidence::checks(paths));
        checks.extend(unit::checks(&paths.rootfs));
        let report = Report {
            exit_code: exit_code(&checks),
            kernel: modules::release(&paths.procfs).ok(),
            checks,
        };
        let text = if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            text(&report.checks)
        };
        super::print(&text)?;
        Ok(ExitCode::from(report.exit_code))
    }
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let (word, what) = (check.status.word(), shown(&check.what));
        let _ = writeln!(text, "{word:<8} {:<20} {what}", check.check);
        if !check.remedy.is_empty() {
            let _ = writeln!(text, "{:29} do: {}", "", shown(&check.remedy));
        }
    }
    text
}

/// The trimmed text of a small file; an error names the file.
fn value(path: &Path) -> Result<String, String> {
    bounded_read::read_text(path, bounded_read::VALUE)
        .map(|text| text.trim().to_owned())
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}
