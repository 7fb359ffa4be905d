//! The tasks that a transition waits for: read from the task iterator if that is loaded, otherwise
//! from /proc.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use livepatch_monitor_ebpf::{EventKind, ScanMode};
use tracing::{debug, warn};

use super::{
    clock,
    namespace::{self, PidNsVisibility},
    probes::{Probes, ProbesError, TASK_SCAN},
    procfs::{self, ProcError, ProcTask},
    scan::{self, ScanError, Symbols},
    sysfs::{self, SysfsError},
};
use livepatch_core::{
    blockers::{
        Blocker, BlockerReport, CheckedFunc, Frame, PendingTask, Scan, ScanSource, Symbol,
        TaskState,
    },
    function_ref::FunctionRef,
    transition::Direction,
};

/// The pending tasks cannot be determined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TasksError {
    /// The iterator cannot be read.
    #[error("cannot read the task iterator: {0}")]
    Iterator(#[from] io::Error),
    /// The iterator's mode cannot be set.
    #[error(transparent)]
    Probes(#[from] ProbesError),
    /// The iterator's records are invalid.
    #[error(transparent)]
    Records(#[from] ScanError),
    /// /proc cannot be walked.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// The patch's functions cannot be read.
    #[error(transparent)]
    Sysfs(#[from] SysfsError),
    /// /proc hides the tasks' patch_state.
    #[error(
        "{procfs}: patch_state of {denied} of {visited} tasks cannot be read; run as root or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    )]
    Denied {
        /// The root of procfs.
        procfs: PathBuf,
        /// Number of tasks that could not be read.
        denied: usize,
        /// Number of tasks read.
        visited: usize,
    },
    /// /proc hides the tasks' stacks.
    #[error(
        "{procfs}: the stacks of {denied} tasks cannot be read; run as root or with CAP_SYS_ADMIN and CAP_SYS_PTRACE"
    )]
    StacksDenied {
        /// The root of procfs.
        procfs: PathBuf,
        /// Number of tasks whose stack could not be read.
        denied: usize,
    },
    /// The host's tasks are not visible from this PID namespace.
    #[error(
        "{procfs} belongs to another PID namespace than the host's and shows only the tasks of that namespace; run the monitor in the host's PID namespace (hostPID: true), or give the host's /proc with --path.procfs"
    )]
    OtherNamespace {
        /// The root of procfs.
        procfs: PathBuf,
    },
    /// More tasks are pending than a walk of /proc describes.
    #[error(
        "{procfs}: {pending} tasks to check, more than a walk of /proc can describe; the task iterator has no such limit (it needs BPF and BTF)"
    )]
    TooMany {
        /// The root of procfs.
        procfs: PathBuf,
        /// Number of pending tasks.
        pending: usize,
    },
}

/// Describes a pending task, including its cgroup.
#[must_use]
pub fn report(procfs: &Path, blocker: &Blocker) -> BlockerReport {
    // Idle tasks have no entry in /proc, and no cgroup.
    let cgroup = match blocker.task.idle_cpu {
        None => procfs::cgroup_of(procfs, blocker.task.tid),
        Some(_) => None,
    };
    let unit = cgroup.as_deref().and_then(procfs::unit_of);
    BlockerReport::new(blocker, cgroup, unit, clock::boot_time())
}

/// Most passes of the iterator over a patch's functions: on the smallest host, with a hundred
/// tasks, that covers more than 6,000 functions.
const MOST_PASSES: u32 = 32;
/// Initial size of a scan's buffer, so that reading does not begin with a few bytes at a time.
const SCAN_BYTES: usize = 64 << 10;

/// Scans tasks, one scan at a time.
#[derive(Debug)]
pub struct TaskScanner {
    probes: Option<Probes>,
    procfs: PathBuf,
    symbols: Symbols,
}

impl TaskScanner {
    /// A scanner that uses the iterator of these probes if it is loaded.
    #[must_use]
    pub fn new(probes: Option<Probes>, procfs: &Path) -> Self {
        let mut symbols = Symbols::default();
        // A failure is retried, and reported, when a name is needed.
        let _ = symbols.open(procfs);
        Self {
            probes,
            procfs: procfs.to_owned(),
            symbols,
        }
    }

    /// Scans the tasks that hold up this transition; `None` if no transition is running.
    ///
    /// # Errors
    /// Neither the iterator nor /proc can be read.
    pub fn scan(
        &mut self,
        patch: Option<&str>,
        direction: Direction,
        sysfs: &Path,
    ) -> Result<Option<Scan>, TasksError> {
        if self.source() == ScanSource::Iterator {
            return self.iterate();
        }
        walk(&self.procfs, sysfs, patch, direction).map(Some)
    }

    /// Source of the tasks.
    #[must_use]
    pub fn source(&self) -> ScanSource {
        let iterator = self.probes.as_ref();
        match iterator.is_some_and(|probes| probes.attached(TASK_SCAN)) {
            true => ScanSource::Iterator,
            false => ScanSource::Proc,
        }
    }

    /// Puts all tasks into `scan`, pending or not: the tasks that a transition that started now
    /// would have to switch. Idle tasks are left out, because they never hold up a transition for
    /// long.
    ///
    /// # Errors
    /// Neither the iterator nor /proc can be read, or /proc does not show all tasks.
    pub fn survey(&mut self, scan: &mut Scan) -> Result<(), TasksError> {
        scan.source = self.source();
        scan.time = clock::boot_time();
        let Some(probes) = self
            .probes
            .as_mut()
            .filter(|_| scan.source == ScanSource::Iterator)
        else {
            let walk = whole(&self.procfs, procfs::every_task(&self.procfs)?)?;
            if walk.stack_denied > 0 {
                return Err(TasksError::StacksDenied {
                    procfs: self.procfs.clone(),
                    denied: walk.stack_denied,
                });
            }
            scan.tasks = walk.tasks.into_iter().map(pending).collect();
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(SCAN_BYTES);
        probes.set_scan_mode(ScanMode::EveryTask)?;
        probes.scan()?.read_to_end(&mut bytes)?;
        scan.bpf_frames_reliable = probes.bpf_frames_reliable;
        scan.tasks = scan::decode_tasks(&bytes)?;
        if let Err(error) = self.symbols.name_frames(&self.procfs, scan) {
            warn!("stacks are shown as addresses, without function names: {error}");
        }
        Ok(())
    }

    fn iterate(&mut self) -> Result<Option<Scan>, TasksError> {
        let Some(probes) = &mut self.probes else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(SCAN_BYTES);
        probes.set_scan_mode(ScanMode::Pending)?;
        probes.scan()?.read_to_end(&mut bytes)?;
        let reliable = probes.bpf_frames_reliable;
        let Some(mut scan) = scan::decode(&bytes, reliable)? else {
            return Ok(None);
        };
        for _ in 0..MOST_PASSES {
            if !scan.funcs_truncated || scan.funcs.is_none() {
                break;
            }
            // The patch has more functions than one pass over this host's tasks can show.
            probes.set_scan_mode(ScanMode::MoreFuncs)?;
            let before = bytes.len();
            probes.scan()?.read_to_end(&mut bytes)?;
            match scan::decode(&bytes, reliable)? {
                Some(longer) if bytes.len() > before => scan = longer,
                // The transition has ended meanwhile.
                _ => break,
            }
        }
        if let Err(error) = self.symbols.name_frames(&self.procfs, &mut scan) {
            // The patched functions already have addresses.
            warn!("stacks are shown as addresses, without function names: {error}");
        }
        debug!(tasks = scan.tasks.len(), bytes = bytes.len(), "task scan");
        Ok(Some(scan))
    }

    /// Whether this process currently has the rights to scan tasks with the probes it has.
    pub fn may_look(&mut self) -> bool {
        let Some(probes) = &mut self.probes else {
            return true;
        };
        let iterates = probes.attached(TASK_SCAN);
        let mut scans = || probes.set_scan_mode(ScanMode::Pending).is_ok() && probes.scan().is_ok();
        (!iterates || scans()) && probes.lost_events().is_ok()
    }

    /// Events that the BPF programs lost, by kind; `None` if unknown.
    #[must_use]
    pub fn lost_events(&self) -> Option<Vec<(EventKind, u64)>> {
        match self.probes.as_ref()?.lost_events() {
            Ok(lost) => Some(lost),
            Err(error) => {
                warn!("{error}");
                None
            }
        }
    }

    /// Forgets the state that is kept for one transition.
    pub fn forget(&mut self) {
        self.symbols.clear();
    }
}

fn walk(
    procfs: &Path,
    sysfs: &Path,
    patch: Option<&str>,
    direction: Direction,
) -> Result<Scan, TasksError> {
    let target = match direction {
        Direction::Patch => 1,
        Direction::Unpatch => 0,
    };
    let walk = whole(procfs, procfs::pending_tasks(procfs, target)?)?;
    let (patches, _) = sysfs::read_patches(sysfs)?;
    let patch = patch
        .map(str::to_owned)
        .or_else(|| Some(patches.in_transition()?.name.clone()));
    let funcs = patch
        .as_deref()
        .and_then(|name| patches.get(name))
        .map(|patch| {
            let objects = patch.objects.iter();
            objects
                .flat_map(|object| {
                    object.functions.iter().map(|function| CheckedFunc {
                        function: FunctionRef {
                            object: object.name.clone(),
                            function: function.name.clone(),
                        },
                        range: None,
                    })
                })
                .collect()
        });
    Ok(Scan {
        time: clock::boot_time(),
        patch: patch.unwrap_or_default(),
        direction,
        attempts: None,
        funcs,
        funcs_truncated: false,
        idle_unknown: true,
        idle_truncated: false,
        source: ScanSource::Proc,
        patches: patches
            .patches
            .into_iter()
            .map(|patch| patch.name)
            .collect(),
        bpf_frames_reliable: false,
        tasks: walk.tasks.into_iter().map(pending).collect(),
    })
}

/// The walk, or an error if it could not read all tasks.
fn whole(procfs: &Path, walk: procfs::Walk) -> Result<procfs::Walk, TasksError> {
    if namespace::visibility(procfs) == PidNsVisibility::Part {
        return Err(TasksError::OtherNamespace {
            procfs: procfs.to_owned(),
        });
    }
    if walk.denied > 0 {
        return Err(TasksError::Denied {
            procfs: procfs.to_owned(),
            denied: walk.denied,
            visited: walk.visited,
        });
    }
    if walk.pending > walk.tasks.len() {
        return Err(TasksError::TooMany {
            procfs: procfs.to_owned(),
            pending: walk.pending,
        });
    }
    Ok(walk)
}

fn pending(task: ProcTask) -> PendingTask {
    PendingTask {
        tid: task.tid,
        tgid: task.tgid,
        comm: task.comm,
        kthread: task.kthread,
        idle_cpu: None,
        on_cpu: None,
        state: TaskState::from_letter(task.state),
        patch_state: task.patch_state,
        cgroup_id: None,
        start_ns: start_ns(task.start_ticks),
        stack: task
            .frames
            .into_iter()
            .map(|place| Frame {
                address: None,
                symbol: Some(Symbol {
                    place,
                    generated: false,
                }),
            })
            .collect(),
    }
}

/// Converts a start time of /proc, in ticks of `sysconf(_SC_CLK_TCK)`, to nanoseconds.
fn start_ns(ticks: u64) -> Option<u64> {
    let per_second = rustix::param::clock_ticks_per_second();
    ticks.checked_mul(1_000_000_000)?.checked_div(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_one_namespace_are_not_all_tasks() {
        let root = tempfile::tempdir().unwrap();
        let procfs = root.path();
        let ns = procfs.join("self/ns");
        std::fs::create_dir_all(&ns).unwrap();
        std::os::unix::fs::symlink("pid:[4026532201]", ns.join("pid")).unwrap();
        let mut scanner = TaskScanner::new(None, procfs);
        let answer = scanner.scan(Some("fix"), Direction::Patch, procfs);
        assert!(
            matches!(&answer, Err(TasksError::OtherNamespace { .. })),
            "{answer:?}"
        );
        std::fs::create_dir_all(procfs.join("2")).unwrap();
        let kthreadd = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0";
        std::fs::write(procfs.join("2/stat"), kthreadd).unwrap();
        let answer = scanner.scan(Some("fix"), Direction::Patch, procfs);
        assert!(
            !matches!(&answer, Err(TasksError::OtherNamespace { .. })),
            "{answer:?}"
        );
    }
}
