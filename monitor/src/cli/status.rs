//! `livepatch-monitor status`

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Cli,
    transition::{self, Now, Running},
};
use livepatch_core::{
    blockers::{Counts, Reason},
    function_ref::FunctionRef,
    patch::{Patch, PatchSet},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 no transition is running, 1 a transition is running, 2 unknown or an error."
)]
pub(super) struct Status {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    patches: &'a PatchSet,
    transition: Option<&'a Running>,
    pending: Option<usize>,
}

impl Status {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let now = transition::look(cli)?;
        let text = if self.json {
            let report = Report {
                patches: &now.patches,
                transition: now.running.as_ref(),
                pending: now.running.as_ref().map(|running| running.blockers.len()),
            };
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            text(&now)
        };
        for missing in &now.degradations {
            super::complain(&format!("{}; {}", missing.what, missing.remedy));
        }
        super::print(&text)?;
        Ok(if now.running.is_some() {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn text(now: &Now) -> String {
    if !now.patches.supported {
        return super::NO_LIVEPATCH.to_owned();
    }
    let mut text = String::new();
    if now.patches.patches.is_empty() {
        text.push_str("no livepatch is loaded\n");
    }
    for patch in &now.patches.patches {
        let _ = writeln!(text, "{}", line(patch));
    }
    match &now.running {
        Some(running) => {
            let _ = writeln!(text, "{}", transition::headline(running));
            let counts = Counts::of(&running.blockers);
            for reason in Reason::ALL {
                if counts.reason(reason) > 0 {
                    let _ = writeln!(text, "  {} {}", counts.reason(reason), reason.name());
                }
            }
            for (FunctionRef { object, function }, tasks) in counts.functions() {
                let _ = writeln!(text, "  {tasks} asleep in {function} ({object})");
            }
            if !running.blockers.is_empty() {
                text.push_str("  run livepatch-monitor blockers for their names and stacks\n");
            }
        }
        None => text.push_str("no transition is running\n"),
    }
    text
}

fn line(patch: &Patch) -> String {
    let state = patch.state();
    let functions: usize = patch
        .objects
        .iter()
        .map(|object| object.functions.len())
        .sum();
    let objects: Vec<&str> = patch
        .objects
        .iter()
        .map(|object| object.name.as_str())
        .collect();
    let replace = if patch.replace == Some(true) {
        ", replaces all others"
    } else {
        ""
    };
    format!(
        "{}: {state}, {functions} functions in {}{replace}",
        patch.name,
        objects.join(", ")
    )
}
