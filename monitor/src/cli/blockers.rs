//! `livepatch-monitor blockers`

use std::{fmt::Write as _, path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Cli,
    transition::{self, Running},
    values,
};
use crate::kernel::{live_modules::LiveModules, tasks};
use livepatch_core::{
    blockers::{Blocker, BlockerReport, Group, Reason, groups},
    crash::display::shown,
};

/// Most tasks that are named in a group that holds nothing up by itself; a larger group is one
/// line.
const FEW: usize = 10;

/// Exit code 0: no task is pending; 1: some are; 2: unknown.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 no task is pending, 1 some are, 2 unknown or an error. Where idle tasks \
                  could not be checked and no other task is pending, the answer is unknown."
)]
pub(super) struct Blockers {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Print the stack of each task
    #[arg(long)]
    stack: bool,
    /// Name at most this many tasks of each group; with --json, at most this many in total
    /// (default: all)
    #[arg(long, value_name = "N", value_parser = values::count, conflicts_with = "all")]
    limit: Option<usize>,
    /// Name every task
    #[arg(long)]
    all: bool,
}

/// What a listing shows about the tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    /// Most tasks named of a group; `None` for all.
    limit: Option<usize>,
    stack: bool,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            limit: Some(50),
            stack: false,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    patch: Option<&'a str>,
    direction: Option<&'static str>,
    attempts: Option<u32>,
    running_for_seconds: Option<f64>,
    idle_tasks_unknown: Option<bool>,
    pending: usize,
    groups: Vec<GroupReport<'a>>,
    tasks: Vec<BlockerReport>,
}

/// A group of pending tasks, without naming them.
#[derive(Serialize)]
pub(super) struct GroupReport<'a> {
    reason: Reason,
    object: Option<&'a str>,
    function: Option<&'a str>,
    tasks: usize,
}

impl<'a> GroupReport<'a> {
    /// The groups of these tasks.
    pub(super) fn all(blockers: &'a [Blocker]) -> Vec<Self> {
        let groups = groups(blockers);
        groups
            .into_iter()
            .map(|group| Self {
                reason: group.reason,
                object: group.function.map(|place| place.object.as_str()),
                function: group.function.map(|place| place.function.as_str()),
                tasks: group.tasks.len(),
            })
            .collect()
    }
}

impl Blockers {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let now = transition::look(cli)?;
        let running = now.running.as_ref();
        let blockers = running.map_or(&[][..], |running| &running.blockers);
        let text = if self.json {
            let tasks = blockers
                .iter()
                .take(self.limit.unwrap_or(usize::MAX))
                .map(|blocker| tasks::report(&cli.paths.procfs, blocker));
            let report = Report {
                patch: running.and_then(|running| running.transition.patch.as_deref()),
                direction: running.map(|running| running.transition.direction.name()),
                attempts: running.and_then(|running| running.transition.attempts),
                running_for_seconds: running.and_then(|running| Some(running.age?.as_secs_f64())),
                idle_tasks_unknown: running.map(|running| running.idle_unknown),
                pending: blockers.len(),
                groups: GroupReport::all(blockers),
                tasks: tasks.collect(),
            };
            serde_json::to_string_pretty(&report)? + "\n"
        } else if !now.patches.supported {
            let (beside, problems) = LiveModules::default().beside(&cli.paths.sysfs, &now.patches);
            for problem in &problems {
                super::complain(problem);
            }
            super::without_livepatch(&beside)
        } else {
            let limit = match self.all {
                true => None,
                false => self.limit.or(Listing::default().limit),
            };
            let listing = Listing {
                limit,
                stack: self.stack,
            };
            text(&cli.paths.procfs, running, listing)
        };
        for missing in &now.degradations {
            super::complain(&format!("{}; {}", missing.what, missing.remedy));
        }
        super::print(&text)?;
        let is_unknown = running.is_some_and(|running| running.idle_unknown);
        Ok(match (blockers.is_empty(), is_unknown) {
            (false, _) => ExitCode::from(1),
            (true, true) => ExitCode::from(2),
            (true, false) => ExitCode::SUCCESS,
        })
    }
}

/// The transition, and its pending tasks in groups.
pub(super) fn text(procfs: &Path, running: Option<&Running>, listing: Listing) -> String {
    let Some(running) = running else {
        return "no transition is running\n".to_owned();
    };
    let mut text = transition::headline(running) + "\n";
    for group in groups(&running.blockers) {
        let _ = writeln!(text, "\n{}", shown(&group.headline()));
        write_tasks(&mut text, procfs, &group, listing);
    }
    if running.idle_unknown {
        text.push_str("\nidle tasks (swapper) could not be checked: they may be pending as well\n");
    }
    text
}

fn write_tasks(text: &mut String, procfs: &Path, group: &Group<'_>, listing: Listing) {
    let is_folded = !group.reason.holds() && group.tasks.len() > FEW;
    let limit = match listing.limit {
        Some(_) if is_folded => 0,
        Some(limit) => limit,
        None => usize::MAX,
    };
    let mut said = "";
    for blocker in group.tasks.iter().take(limit) {
        let task = tasks::report(procfs, blocker);
        let _ = writeln!(text, "  {}", task.who());
        // It is usually the same for all tasks of a group.
        if said != blocker.detail {
            let _ = writeln!(text, "    {}", blocker.detail);
            said = &blocker.detail;
        }
        for frame in task.stack.iter().filter(|_| listing.stack) {
            let _ = writeln!(text, "      {frame}");
        }
    }
    match group.tasks.len().saturating_sub(limit) {
        0 => {}
        hidden if limit == 0 => {
            let _ = writeln!(text, "  --all names these {hidden} tasks");
        }
        hidden => {
            let _ = writeln!(text, "  and {hidden} more tasks: --all names them");
        }
    }
}
