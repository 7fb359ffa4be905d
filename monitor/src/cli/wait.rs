//! `livepatch-monitor wait`

mod progress;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use self::progress::Progress;
use super::{
    Cli,
    blockers::{self, GroupReport, Listing},
    transition::{self, PendingTasks, Running},
    values,
};
use crate::kernel::{modules, sysfs, tasks};
use livepatch_core::{
    blockers::BlockerReport,
    crash::display::shown,
    patch::PatchSet,
    transition::BootTime,
    waiting::{WaitOutcome, Waited, Waiting},
};

/// How often sysfs is read, which limits how late an end is noticed.
const LOOK: Duration = Duration::from_millis(250);
/// The kernel attempts to complete a transition about once a second; scanning the tasks
/// more often shows nothing new.
const SCAN: Duration = Duration::from_secs(1);
/// A scan may use one part in this many of a CPU.
const SCAN_SHARE: u32 = 20;

/// Exit code 0: completed; 1: timed out; 2: unknown; 3: reversed or cancelled.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 completed, 1 the timeout was reached and the transition still runs, 2 unknown or an error, 3 reversed or cancelled."
)]
pub(super) struct Wait {
    /// Wait until this livepatch is in force (default: until the running transition, whatever
    /// it is, has completed)
    #[arg(long, value_name = "NAME", value_parser = values::patch_name)]
    patch: Option<String>,
    /// Longest time to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    timeout: Duration,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    outcome: WaitOutcome,
    exit_code: u8,
    patch: Option<&'a str>,
    detail: String,
    waited_seconds: f64,
    pending: Option<usize>,
    idle_tasks_unknown: Option<bool>,
    groups: Vec<GroupReport<'a>>,
    tasks: Vec<BlockerReport>,
}

/// Result of a wait, and what is pending at that point.
struct End {
    outcome: WaitOutcome,
    patch: Option<String>,
    detail: String,
    running: Option<Running>,
}

impl Wait {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        let end = self.wait(cli, started)?;
        let waited = started.elapsed();
        let blockers = end.running.as_ref().map(|running| &running.blockers);
        let blockers = blockers.map_or(&[][..], Vec::as_slice);
        let text = if self.json {
            let tasks = blockers.iter();
            let report = Report {
                outcome: end.outcome,
                exit_code: end.outcome.exit_code(),
                patch: end.patch.as_deref(),
                detail: end.detail,
                waited_seconds: waited.as_secs_f64(),
                pending: end.running.as_ref().map(|running| running.blockers.len()),
                idle_tasks_unknown: end.running.as_ref().map(|running| running.idle_unknown),
                groups: GroupReport::all(blockers),
                tasks: tasks
                    .map(|blocker| tasks::report(&cli.paths.procfs, blocker))
                    .collect(),
            };
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            let mut text = format!("{}\n", end.detail);
            if let Some(running) = &end.running {
                text += &blockers::text(&cli.paths.procfs, Some(running), Listing::default());
            }
            text
        };
        super::print(&text)?;
        Ok(ExitCode::from(end.outcome.exit_code()))
    }

    fn wait(&self, cli: &Cli, started: Instant) -> anyhow::Result<End> {
        let mut waiting = Waiting::new(self.patch.clone());
        let mut watched: Option<Watched> = None;
        let mut progress = Progress::start();
        loop {
            let patches = patches(cli)?;
            if let Some(waited) = waiting.look(&patches) {
                progress.clear();
                return Ok(ended(waited, started.elapsed()));
            }
            let Some((patch, direction)) = waiting.running() else {
                anyhow::bail!("the transition that is waited for is not known");
            };
            let watched = watched.get_or_insert_with(|| Watched::open(cli, &patches));
            let start = watched.start;
            watched.scan_if_due(|tasks| tasks.scan(patch, direction, start));
            let waited = started.elapsed();
            progress.show(patch, direction, waited, self.timeout, watched.count(cli));
            let left = self.timeout.saturating_sub(waited);
            if left.is_zero() {
                progress.clear();
                let (patch, doing) = (shown(patch), livepatch_core::transition::doing(direction));
                return Ok(End {
                    outcome: WaitOutcome::TimedOut,
                    detail: format!(
                        "{patch}: still {doing} after {}",
                        humantime::format_duration(self.timeout)
                    ),
                    patch: Some(patch),
                    running: watched.last.take(),
                });
            }
            thread::sleep(LOOK.min(left));
        }
    }
}

fn ended(waited: Waited, after: Duration) -> End {
    let (outcome, patch, detail) = match waited {
        Waited::Completed { patch: None } => (
            WaitOutcome::Completed,
            None,
            "no transition is running".to_owned(),
        ),
        Waited::Completed { patch: Some(patch) } => {
            let detail = format!(
                "{}: completed after {:.1}s",
                shown(&patch),
                after.as_secs_f64()
            );
            (WaitOutcome::Completed, Some(patch), detail)
        }
        Waited::Reversed { patch, why } => {
            let detail = format!("{} {why}", shown(&patch));
            (WaitOutcome::Reversed, Some(patch), detail)
        }
        Waited::Unknown { why } => (
            WaitOutcome::Unknown,
            None,
            format!(
                "cannot determine whether the transition has completed: {}",
                shown(&why)
            ),
        ),
    };
    End {
        outcome,
        patch,
        detail,
        running: None,
    }
}

fn patches(cli: &Cli) -> anyhow::Result<PatchSet> {
    let (patches, _) =
        sysfs::read_patches(&cli.paths.sysfs).context("cannot read the livepatches")?;
    Ok(patches)
}

/// The tasks of the transition that is waited for.
struct Watched {
    tasks: PendingTasks,
    start: Option<BootTime>,
    next: Instant,
    /// The last scan's result; `None` if tasks cannot be read.
    last: Option<Running>,
    complained: bool,
}

impl Watched {
    fn open(cli: &Cli, patches: &PatchSet) -> Self {
        let mut degradations = Vec::new();
        let tasks = PendingTasks::open(cli, &mut degradations);
        for missing in degradations {
            super::complain(&format!("{}; {}", missing.what, missing.remedy));
        }
        Self {
            tasks,
            start: transition::active(cli, patches).and_then(|active| active.start),
            next: Instant::now(),
            last: None,
            complained: false,
        }
    }

    fn scan_if_due<E: ToString>(
        &mut self,
        scan: impl FnOnce(&mut PendingTasks) -> Result<Option<Running>, E>,
    ) {
        let started = Instant::now();
        if started < self.next {
            return;
        }
        self.last = match scan(&mut self.tasks) {
            Ok(running) => running,
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    super::complain(&error.to_string());
                }
                None
            }
        };
        self.next = started + SCAN.max(started.elapsed() * SCAN_SHARE);
    }

    /// Pending tasks, and all tasks, as far as they are known.
    fn count(&self, cli: &Cli) -> (Option<usize>, Option<usize>) {
        let pending = self.last.as_ref().map(|running| running.blockers.len());
        (pending, modules::threads(&cli.paths.procfs).ok())
    }
}
