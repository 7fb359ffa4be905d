//! Predicts which tasks would block the transition: samples every task's stack for some
//! seconds and judges it as `blockers` would if the patch were being loaded.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use serde::Serialize;

use super::{
    Finding, Severity,
    host::Host,
    module::{Function, Module},
};
use crate::{
    blockers::{
        self, Blocker, CheckedFunc, History, PendingTask, Reason, Scan, ScanSource, TaskState,
        lossy, printable,
    },
    function_ref::{FunctionRef, module_of},
    patch::Patch,
    transition::{BootTime, Direction},
};

/// Most tasks remembered; any more are counted as unread.
const MAX_TASKS: usize = 10_000;

/// Number of samples from which a kernel thread that was on a CPU in all of them is
/// reported.
const SAMPLES_OF_A_RUNNER: u32 = 3;

/// A task that would block the transition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likely {
    /// Thread id of the task in the sample.
    pub tid: u32,
    /// Process id: the same for all threads of a process.
    pub pid: u32,
    /// The task's name (`comm`).
    pub comm: String,
    /// Whether it is a kernel thread.
    pub kthread: bool,
    /// The systemd unit it belongs to, if that was determined.
    pub unit: Option<String>,
    /// The task's state when it was last seen blocking.
    pub state: String,
    /// Object of the function: `vmlinux` or a module.
    pub object: Option<String>,
    /// The function on its stack that the patch replaces.
    pub function: Option<String>,
    /// Why it would block the transition.
    pub reason: Reason,
    /// The reason as a sentence.
    pub detail: String,
    /// Number of samples in which it was seen blocking.
    pub seen: u32,
    /// Its stack at that time, innermost frame first.
    pub stack: Vec<String>,
}

/// The result of all samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Number of samples taken.
    pub samples: u32,
    /// Duration of the sampling in seconds.
    pub seconds: f64,
    /// Source of the samples: `iterator` or `proc`.
    pub source: &'static str,
    /// Number of tasks in the last sample.
    pub tasks: usize,
    /// Number of tasks whose stack could not be read in any sample.
    pub unread: usize,
    /// Tasks that would block the transition, the most often seen first.
    pub likely: Vec<Likely>,
}

/// Identifies a task by thread id and start time, since thread ids are reused.
type Who = (u32, Option<u64>);

/// Accumulates samples for one module.
#[derive(Debug)]
pub struct Forecaster {
    patch: String,
    /// Functions of the patch that exist on this host, with their addresses.
    funcs: Vec<CheckedFunc>,
    /// Names of the livepatches in force.
    below: Vec<String>,
    samples: u32,
    tasks: usize,
    source: ScanSource,
    likely: BTreeMap<Who, Likely>,
    /// Kernel threads that were on a CPU in every sample so far.
    runners: BTreeMap<Who, Likely>,
    /// Tasks without a usable stack in every sample so far.
    unread: BTreeMap<Who, ()>,
    forgotten: usize,
}

impl Forecaster {
    /// A forecaster for this module on this host.
    #[must_use]
    pub fn new(module: &Module, host: &Host) -> Self {
        let patches = host.patches.as_ref().map(|set| set.patches.as_slice());
        let patches = patches.unwrap_or_default();
        let in_force: Vec<&Patch> = patches
            .iter()
            .filter(|patch| patch.enabled != Some(false))
            .collect();
        Self {
            patch: module.name.clone(),
            funcs: module
                .functions()
                .filter_map(|(object, function)| checked(object, function, host, &in_force))
                .collect(),
            below: in_force.iter().map(|patch| patch.name.clone()).collect(),
            samples: 0,
            tasks: 0,
            source: ScanSource::Proc,
            likely: BTreeMap::new(),
            runners: BTreeMap::new(),
            unread: BTreeMap::new(),
            forgotten: 0,
        }
    }

    /// Judges one sample of all tasks.
    pub fn add(&mut self, sample: &mut Scan) {
        sample.patch.clone_from(&self.patch);
        sample.direction = Direction::Patch;
        sample.patches.clone_from(&self.below);
        // /proc shows no addresses to compare.
        let by_name = sample.source == ScanSource::Proc;
        sample.funcs = Some(
            self.funcs
                .iter()
                .map(|func| CheckedFunc {
                    range: func.range.clone().filter(|_| !by_name),
                    ..func.clone()
                })
                .collect(),
        );
        self.source = sample.source;
        self.tasks = sample.tasks.len();
        let first = self.samples == 0;
        self.samples += 1;
        let mut running = BTreeMap::new();
        let mut unread = BTreeMap::new();
        for blocker in blockers::analyse(sample, &mut History::default()) {
            let who = (blocker.task.tid, blocker.task.start_ns);
            match self.sort_out(&blocker) {
                Sort::Holds(likely) => self.remember(who, likely),
                Sort::Runs(likely) if first || self.runners.contains_key(&who) => {
                    running.insert(who, likely);
                }
                Sort::Unread if first || self.unread.contains_key(&who) => {
                    unread.insert(who, ());
                }
                Sort::Runs(_) | Sort::Unread | Sort::Passes => {}
            }
        }
        self.runners = running;
        self.unread = unread;
    }

    fn sort_out(&self, blocker: &Blocker) -> Sort {
        let task = &blocker.task;
        let likely = |detail: String| Likely {
            tid: task.tid,
            pid: task.tgid,
            comm: lossy(&task.comm),
            kthread: task.kthread,
            unit: None,
            state: task.state.to_string(),
            object: blocker.function.as_ref().map(|place| place.object.clone()),
            function: blocker
                .function
                .as_ref()
                .map(|place| place.function.clone()),
            reason: blocker.reason,
            detail,
            seen: 1,
            stack: task.stack.iter().map(ToString::to_string).collect(),
        };
        match blocker.reason {
            Reason::Sleeping | Reason::UnreliableStack => {
                Sort::Holds(likely(blocker.detail.clone()))
            }
            Reason::Running if blocker.function.is_some() => {
                Sort::Holds(likely(blocker.detail.clone()))
            }
            Reason::Running if task.kthread && self.on_cpu(task) => {
                Sort::Runs(likely(blocker.detail.clone()))
            }
            Reason::Unknown => match self.livepatch_on(task) {
                Some(below) => Sort::Holds(likely(format!(
                    "in code of livepatch {}, which is in force; cannot determine whether it is in a \
                    function that this patch replaces",
                    printable(below.as_bytes())
                ))),
                // A task that has ended blocks nothing.
                None if matches!(task.state, TaskState::Dead | TaskState::Zombie) => Sort::Passes,
                None => Sort::Unread,
            },
            Reason::Running | Reason::Unvisited => Sort::Passes,
        }
    }

    fn on_cpu(&self, task: &PendingTask) -> bool {
        task.on_cpu.unwrap_or(task.state == TaskState::Running)
    }

    fn livepatch_on(&self, task: &PendingTask) -> Option<&str> {
        let modules = task
            .stack
            .iter()
            .filter_map(|frame| frame.symbol.as_ref()?.place.module.as_deref());
        modules
            .filter_map(|module| self.below.iter().find(|below| *below == module))
            .map(String::as_str)
            .next()
    }

    fn remember(&mut self, who: Who, likely: Likely) {
        let room = self.likely.len() < MAX_TASKS;
        match self.likely.entry(who) {
            Entry::Occupied(mut entry) => {
                let seen = entry.get().seen.saturating_add(1);
                entry.insert(Likely { seen, ..likely });
            }
            Entry::Vacant(entry) if room => {
                entry.insert(likely);
            }
            Entry::Vacant(_) => self.forgotten += 1,
        }
    }

    /// The forecast from all samples, taken over this time.
    #[must_use]
    pub fn finish(self, took: Duration) -> Forecast {
        let mut likely: Vec<Likely> = self.likely.into_values().collect();
        if self.samples >= SAMPLES_OF_A_RUNNER {
            let samples = self.samples;
            likely.extend(self.runners.into_values().map(|runner| Likely {
                seen: samples,
                ..runner
            }));
        }
        likely.sort_by_key(|likely| (std::cmp::Reverse(likely.seen), likely.pid, likely.tid));
        Forecast {
            samples: self.samples,
            seconds: took.as_secs_f64(),
            source: match self.source {
                ScanSource::Iterator => "iterator",
                ScanSource::Proc => "proc",
            },
            tasks: self.tasks,
            unread: self.unread.len() + self.forgotten,
            likely,
        }
    }
}

enum Sort {
    /// The task would block the transition.
    Holds(Likely),
    /// The task would block the transition only if it stayed on its CPU.
    Runs(Likely),
    /// The task's stack could not be read.
    Unread,
    Passes,
}

/// A sample without tasks, for a forecast without a host.
#[must_use]
pub fn empty_sample() -> Scan {
    Scan {
        time: BootTime::from_nanos(0),
        patch: String::new(),
        direction: Direction::Patch,
        attempts: None,
        funcs: None,
        funcs_truncated: false,
        idle_unknown: false,
        idle_truncated: false,
        source: ScanSource::Proc,
        patches: Vec::new(),
        bpf_frames_reliable: false,
        tasks: Vec::new(),
    }
}

/// The code that tasks would be checked for: the function at its current place. If another
/// livepatch has replaced it, that code is in the other livepatch's module and only its
/// name identifies it.
fn checked(
    object: &str,
    function: &Function,
    host: &Host,
    in_force: &[&Patch],
) -> Option<CheckedFunc> {
    let replaced = in_force.iter().any(|patch| {
        patch.objects.iter().any(|other| {
            other.name == object
                && other
                    .functions
                    .iter()
                    .any(|other| other.name == function.name)
        })
    });
    let symbols = host.symbols.as_ref().ok()?;
    let places = symbols.places(object, &function.name);
    let index = usize::try_from(function.sympos.saturating_sub(1)).ok()?;
    // The module is not loaded, or the missing symbol is a separate finding.
    let place = places.get(index)?;
    let range = place
        .size
        .and_then(|size| Some(place.address..place.address.checked_add(size)?))
        .filter(|_| !replaced);
    Some(CheckedFunc {
        function: FunctionRef {
            object: object.to_owned(),
            function: function.name.clone(),
        },
        range,
    })
}

impl Forecast {
    /// Whether the task was seen in at least half of the samples, so that it is not just
    /// passing through.
    #[must_use]
    pub fn stays(&self, likely: &Likely) -> bool {
        u64::from(likely.seen) * 2 >= u64::from(self.samples)
    }

    /// One finding for each function in which tasks sleep, and one for each other cause.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut groups = BTreeMap::<_, Vec<&Likely>>::new();
        for likely in &self.likely {
            let place = likely.object.as_deref().zip(likely.function.as_deref());
            groups
                .entry((likely.reason, place))
                .or_default()
                .push(likely);
        }
        let mut findings: Vec<Finding> = groups
            .into_iter()
            .map(|((reason, place), tasks)| self.group(reason, place, &tasks))
            .collect();
        if self.unread > 0 {
            findings.push(Finding::new(
                Severity::Info,
                "blockers",
                format!(
                    "the stacks of {} of {} tasks could not be read in any sample",
                    self.unread, self.tasks
                ),
                "",
            ));
        }
        findings
    }

    fn group(&self, reason: Reason, place: Option<(&str, &str)>, tasks: &[&Likely]) -> Finding {
        let staying = tasks.iter().filter(|likely| self.stays(likely)).count();
        let severity = match staying {
            0 => Severity::Info,
            _ => Severity::Warning,
        };
        let counted = |count: usize| match count {
            1 => "1 task".to_owned(),
            count => format!("{count} tasks"),
        };
        let place = place.map(|(object, function)| {
            let function = printable(function.as_bytes());
            match module_of(object) {
                Some(module) => format!("{function} (module {})", printable(module.as_bytes())),
                None => format!("{function} (kernel)"),
            }
        });
        let what = match (reason, place) {
            (Reason::UnreliableStack, _) => format!(
                "{}: likely blockers: their stacks are unreliable, so the kernel cannot switch \
                them while they sleep there",
                counted(tasks.len())
            ),
            (_, Some(place)) if staying > 0 => {
                format!("{} in {place}: likely blockers", counted(tasks.len()))
            }
            (_, Some(place)) => format!(
                "{} passed through {place}: each was outside of it in most samples",
                counted(tasks.len())
            ),
            (Reason::Running, None) => format!(
                "{} of the kernel on a CPU in every sample: a transition waits until they sleep",
                counted(tasks.len())
            ),
            (_, None) => format!(
                "{} in code of a livepatch that this one is stacked on: possible blockers",
                counted(tasks.len())
            ),
        };
        let remedy = match severity {
            Severity::Info => "",
            _ => {
                "stop or restart them first, or be ready to wait: a signal wakes tasks in \
                state S, nothing wakes tasks in state D or I"
            }
        };
        Finding::new(severity, "blockers", what, remedy)
    }
}

#[cfg(test)]
mod tests;
