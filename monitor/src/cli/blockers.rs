//! `livepatch-monitor blockers`

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Cli,
    transition::{self, Running},
};
use crate::{
    kernel::{clock, procfs},
    livepatch::blockers::{Blocker, printable},
};

/// Exit code 0: no task is pending; 1: some are; 2: it could not be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 no task is pending, 1 some are, 2 it cannot be told.")]
pub(super) struct Blockers {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Print this many tasks at most
    #[arg(long, value_name = "N", default_value_t = 50)]
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
    tasks: Vec<Task>,
}

#[derive(Serialize)]
struct Task {
    tid: u32,
    pid: u32,
    comm: String,
    kthread: bool,
    unit: Option<String>,
    cgroup: Option<String>,
    state: String,
    reason: &'static str,
    object: Option<String>,
    function: Option<String>,
    detail: String,
    age_seconds: Option<f64>,
    stack: Vec<String>,
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
            .map(|blocker| Task::new(cli, blocker));
        let shown: Vec<Task> = shown.collect();
        let text = if self.json {
            let running = now.running.as_ref();
            let report = Report {
                patch: running.map(|running| running.patch.as_str()),
                direction: running.map(|running| running.direction.name()),
                attempts: running.and_then(|running| running.attempts),
                running_for_seconds: running.and_then(|running| running.running_for_seconds),
                idle_tasks_unknown: running.map(|running| running.idle_unknown),
                pending: blockers.len(),
                tasks: shown,
            };
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            text(now.patches.supported, now.running.as_ref(), &shown)
        };
        for missing in &now.degradations {
            eprintln!("livepatch-monitor: {}; {}", missing.what, missing.remedy);
        }
        super::print(&text)?;
        Ok(if blockers.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    }
}

impl Task {
    fn new(cli: &Cli, blocker: &Blocker) -> Self {
        let task = &blocker.task;
        // Idle tasks have no entry in /proc, and no cgroup.
        let cgroup = task
            .idle_cpu
            .is_none()
            .then(|| procfs::cgroup_of(&cli.paths.procfs, task.tid));
        let cgroup = cgroup.flatten();
        Self {
            tid: task.tid,
            pid: task.tgid,
            comm: printable(&task.comm),
            kthread: task.kthread,
            unit: cgroup.as_deref().and_then(procfs::unit_of),
            cgroup,
            state: task.state.to_string(),
            reason: blocker.reason.name(),
            object: blocker.object.clone(),
            function: blocker.function.clone(),
            detail: blocker.detail.clone(),
            age_seconds: task
                .start_ns
                .map(crate::livepatch::transition::BootTime::from_nanos)
                .and_then(|start| clock::boot_time().since(start))
                .map(|age| age.as_secs_f64()),
            stack: task.stack.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A paragraph a task: who it is, why it is pending, where it is.
fn text(supported: bool, running: Option<&Running>, tasks: &[Task]) -> String {
    if !supported {
        return super::NO_LIVEPATCH.to_owned();
    }
    let Some(running) = running else {
        return "no transition runs\n".to_owned();
    };
    let mut text = transition::headline(running) + "\n";
    for task in tasks {
        let kind = if task.kthread {
            "kernel thread"
        } else {
            "process"
        };
        let _ = write!(text, "\n{kind} {} {:?}", task.pid, task.comm);
        if task.tid != task.pid {
            let _ = write!(text, " thread {}", task.tid);
        }
        if let Some(unit) = &task.unit {
            let _ = write!(text, ", unit {}", printable(unit.as_bytes()));
        }
        if let Some(age) = task.age_seconds {
            let age = super::age(std::time::Duration::from_secs_f64(age.max(0.0)));
            let _ = write!(text, ", started {age} ago");
        }
        let _ = writeln!(text, ", state {}", task.state);
        let _ = writeln!(text, "  {}: {}", task.reason, task.detail);
        for frame in &task.stack {
            let _ = writeln!(text, "    {frame}");
        }
    }
    let hidden = running.blockers.len().saturating_sub(tasks.len());
    if hidden > 0 {
        let _ = writeln!(text, "\nand {hidden} more tasks (see --limit)");
    }
    if running.idle_unknown {
        text.push_str(
            "\nidle tasks (swapper) could not be looked at: they may be pending as well\n",
        );
    }
    text
}
