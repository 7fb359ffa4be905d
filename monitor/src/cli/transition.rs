//! A snapshot of the running transition for the commands: from sysfs, from the task
//! iterator (or /proc), and with its start time from the exporter's state or the kernel
//! log.

use std::{path::PathBuf, thread, time::Duration};

use anyhow::Context as _;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::Cli;
use crate::{
    exporter::journal::saved,
    kernel::{
        clock, kmsg,
        probes::{Probes, Wanted},
        procfs, sysfs,
        tasks::{TaskScanner, TasksError},
    },
};
use livepatch_core::{
    blockers::{self, Blocker, History, Reason},
    crash::display::shown,
    degradation::Degradation,
    patch::PatchSet,
    transition::{BootTime, Direction, Transition, Transitions, Watching, progress},
};

/// How long to wait for the kernel's next attempt. It retries about every second
/// (`round_jiffies_relative(HZ)`, kernel/livepatch/transition.c), and by then it has
/// checked tasks that it had not checked before.
const NEXT_ATTEMPT: Duration = Duration::from_millis(1500);

/// The running transition and what holds it up.
#[derive(Debug)]
pub(super) struct Running {
    pub transition: Transition,
    /// How long it has run, if its start is known.
    pub age: Option<Duration>,
    /// The pending tasks and why each is pending.
    pub blockers: Vec<Blocker>,
    /// Whether idle tasks could not be checked.
    pub idle_unknown: bool,
}

/// As `status --json` prints it.
impl Serialize for Running {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = serializer.serialize_struct("Running", 5)?;
        json.serialize_field("patch", &self.transition.patch)?;
        json.serialize_field("direction", &self.transition.direction)?;
        json.serialize_field("attempts", &self.transition.attempts)?;
        json.serialize_field(
            "running_for_seconds",
            &self.age.map(|age| age.as_secs_f64()),
        )?;
        json.serialize_field("idle_unknown", &self.idle_unknown)?;
        json.end()
    }
}

/// The loaded patches, the running transition, and what could not be determined.
#[derive(Debug)]
pub(super) struct Now {
    pub patches: PatchSet,
    pub running: Option<Running>,
    pub degradations: Vec<Degradation>,
}

/// Takes a snapshot, and a second one after the kernel's next attempt if a task's reason
/// depends on it.
pub(super) fn look(cli: &Cli) -> anyhow::Result<Now> {
    let paths = &cli.paths;
    let (patches, problems) =
        sysfs::read_patches(&paths.sysfs).context("cannot read the livepatches")?;
    let mut degradations: Vec<Degradation> = problems
        .iter()
        .map(|problem| Degradation {
            what: problem.to_string(),
            remedy: String::new(),
        })
        .collect();
    let Some(Active {
        patch,
        direction,
        start,
        unread,
    }) = active(cli, &patches)
    else {
        return Ok(Now {
            patches,
            running: None,
            degradations,
        });
    };
    if let Some(error) = unread.filter(|_| start.is_none()) {
        degradations.push(Degradation {
            what: format!("when the transition started is not known: {error}"),
            remedy: "run as root, or name the exporter's directory with --state-dir".to_owned(),
        });
    }
    let mut tasks = PendingTasks::open(cli, &mut degradations);
    let mut running = tasks.scan(&patch, direction, start)?;
    let undecided = |running: &Running| {
        running
            .blockers
            .iter()
            .any(|blocker| matches!(blocker.reason, Reason::Unvisited | Reason::Running))
    };
    if running.as_ref().is_some_and(undecided) {
        thread::sleep(NEXT_ATTEMPT);
        running = tasks.scan(&patch, direction, start)?;
    }
    Ok(Now {
        patches,
        running,
        degradations,
    })
}

/// The transition that runs by sysfs, and since when.
pub(super) struct Active {
    patch: String,
    direction: Direction,
    /// By the exporter's state or the kernel log.
    pub start: Option<BootTime>,
    /// Why the exporter's state could not be read.
    unread: Option<String>,
}

pub(super) fn active(cli: &Cli, patches: &PatchSet) -> Option<Active> {
    let paths = &cli.paths;
    let mut transitions = Transitions::new();
    let mut unread = None;
    if let Ok(boot_id) = procfs::boot_id(&paths.procfs) {
        match saved::read(&paths.state_dir, &boot_id) {
            Ok(Some(saved)) => transitions = Transitions::restore(saved.transitions),
            Ok(None) => {}
            Err(error) => unread = Some(error.to_string()),
        }
    }
    transitions.observe(clock::boot_time(), patches, Watching::Probes);
    let active = transitions.active()?;
    let (patch, direction) = (active.patch.clone()?, active.direction);
    let start = active.start.or_else(|| {
        let mut log = kmsg::KmsgReader::open(&paths.kmsg).ok()?;
        let since_boot = kmsg::transition_start(&mut log, &patch, direction).ok()??;
        Some(BootTime::from_duration(since_boot + clock::suspended()))
    });
    Some(Active {
        patch,
        direction,
        start,
        unread,
    })
}

/// Finds the pending tasks of a transition, again and again.
pub(super) struct PendingTasks {
    scanner: TaskScanner,
    history: History,
    sysfs: PathBuf,
}

impl PendingTasks {
    /// Opens what is needed to read tasks; adds what cannot be read to `degradations`.
    pub(super) fn open(cli: &Cli, degradations: &mut Vec<Degradation>) -> Self {
        let paths = &cli.paths;
        let attached = Probes::attach(Wanted::TaskScan, &paths.procfs, &paths.sysfs, false);
        let probes = match attached {
            Ok(mut probes) => {
                degradations.append(&mut probes.degradations);
                Some(probes)
            }
            Err(error) => {
                degradations.push(error.degradation());
                None
            }
        };
        Self {
            scanner: TaskScanner::new(probes, &paths.procfs),
            history: History::default(),
            sysfs: paths.sysfs.clone(),
        }
    }

    /// The running transition with its pending tasks; `None` if none runs.
    ///
    /// # Errors
    /// Tasks can be read neither through the iterator nor in /proc.
    pub(super) fn scan(
        &mut self,
        patch: &str,
        direction: Direction,
        start: Option<BootTime>,
    ) -> Result<Option<Running>, TasksError> {
        let Some(scan) = self.scanner.scan(Some(patch), direction, &self.sysfs)? else {
            return Ok(None);
        };
        let blockers = blockers::analyse(&scan, &mut self.history);
        Ok(Some(Running {
            transition: Transition {
                start,
                attempts: scan.attempts,
                ..Transition::new(Some(scan.patch), scan.direction)
            },
            age: start.and_then(|start| clock::boot_time().since(start)),
            blockers,
            idle_unknown: scan.idle_unknown,
        }))
    }
}

/// One line that describes the running transition.
pub(super) fn headline(running: &Running) -> String {
    let Transition {
        patch,
        direction,
        attempts,
        ..
    } = &running.transition;
    let pending = u64::try_from(running.blockers.len()).ok();
    let progress = progress(*direction, running.age, *attempts, pending);
    format!(
        "{}: {progress}",
        shown(patch.as_deref().unwrap_or_default())
    )
}
