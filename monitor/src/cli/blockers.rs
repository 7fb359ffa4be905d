//! `livepatch-monitor blockers`

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Cli,
    transition::{self, Running},
    values,
};
use crate::kernel::tasks;
use livepatch_core::blockers::BlockerReport;

/// Exit code 0: no task is pending; 1: some are; 2: unknown.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 no task is pending, 1 some are, 2 unknown or an error.")]
pub(super) struct Blockers {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Print at most this many tasks
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = values::count)]
    limit: usize,
}

#[derive(Serialize)]
struct Report<'a> {
    patch: Option<&'a str>,
    direction: Option<&'static str>,
    attempts: Option<u32>,
    running_for_seconds: Option<f64>,
    idle_tasks_unknown: Option<bool>,
    pending: usize,
    tasks: Vec<BlockerReport>,
}

impl Blockers {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let now = transition::look(cli)?;
        let blockers = now
            .running
            .as_ref()
            .map_or(&[][..], |running| &running.blockers);
        let shown = blockers
            .iter()
            .take(self.limit)
            .map(|blocker| tasks::report(&cli.paths.procfs, blocker));
        let shown: Vec<BlockerReport> = shown.collect();
        let text = if self.json {
            let running = now.running.as_ref();
            let report = Report {
                patch: running.and_then(|running| running.transition.patch.as_deref()),
                direction: running.map(|running| running.transition.direction.name()),
                attempts: running.and_then(|running| running.transition.attempts),
                running_for_seconds: running.and_then(|running| Some(running.age?.as_secs_f64())),
                idle_tasks_unknown: running.map(|running| running.idle_unknown),
                pending: blockers.len(),
                tasks: shown,
            };
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            text(now.patches.supported, now.running.as_ref(), &shown)
        };
        for missing in &now.degradations {
            super::complain(&format!("{}; {}", missing.what, missing.remedy));
        }
        super::print(&text)?;
        Ok(if blockers.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    }
}

/// One paragraph per task: its identity, why it is pending, and its stack.
fn text(supported: bool, running: Option<&Running>, tasks: &[BlockerReport]) -> String {
    if !supported {
        return super::NO_LIVEPATCH.to_owned();
    }
    let Some(running) = running else {
        return "no transition is running\n".to_owned();
    };
    let mut text = transition::headline(running) + "\n";
    for task in tasks {
        let _ = writeln!(text, "\n{}", task.who());
        let _ = writeln!(text, "  {}: {}", task.reason.name(), task.detail);
        for frame in &task.stack {
            let _ = writeln!(text, "    {frame}");
        }
    }
    let hidden = running.blockers.len().saturating_sub(tasks.len());
    if hidden > 0 {
        let _ = writeln!(text, "\nand {hidden} more tasks (see --limit)");
    }
    if running.idle_unknown {
        text.push_str("\nidle tasks (swapper) could not be checked: they may be pending as well\n");
    }
    text
}
