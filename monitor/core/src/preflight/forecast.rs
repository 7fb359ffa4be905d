//! Who would hold the transition up: every task's stack, sampled for some seconds,
//! judged as `blockers` would judge it if the patch were being loaded.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use serde::Serialize;

use super::{
    Finding, Severity,
    host::{Host, module_of},
    module::{Function, Module},
};
use crate::{
    blockers::{
        self, Blocker, CheckedFunc, History, PendingTask, Reason, Scan, ScanSource, TaskState,
        lossy, printable,
    },
    patch::Patch,
    transition::{BootTime, Direction},
};

/// Tasks remembered; of more, the rest is counted as unread.
const MAX_TASKS: usize = 10_000;

/// Samples that make a kernel thread on a CPU in each of them worth a word.
const SAMPLES_OF_A_RUNNER: u32 = 3;

/// A task that would hold the transition up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likely {
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// It is a kernel thread.
    pub kthread: bool,
    /// The systemd unit it belongs to, where somebody has looked.
    pub unit: Option<String>,
    /// Its state when it was last seen so.
    pub state: String,
    /// The object of the function.
    pub object: Option<String>,
    /// The function it was in that the patch replaces.
    pub function: Option<String>,
    /// Why it would hold the transition up.
    pub reason: Reason,
    /// In a sentence.
    pub detail: String,
    /// In how many samples it was seen so.
    pub seen: u32,
    /// Its stack then, innermost first.
    pub stack: Vec<String>,
}

/// What the samples came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Samples taken.
    pub samples: u32,
    /// For how long.
    pub seconds: f64,
    /// `iterator` or `proc`.
    pub source: &'static str,
    /// Tasks in the last sample.
    pub tasks: usize,
    /// Tasks whose stack could not be told in any sample.
    pub unread: usize,
    /// Those that would hold the transition up, the most often seen first.
    pub likely: Vec<Likely>,
}

/// Tasks are the same if both agree: ids are used again.
type Who = (u32, Option<u64>);

/// Puts samples together, for one module.
#[derive(Debug)]
pub struct Forecaster {
    patch: String,
    /// The functions of the patch that are there, with where they are.
    funcs: Vec<CheckedFunc>,
    /// The livepatches in force.
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
    /// For this module on this host.
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
        // /proc shows no addresses to compare with.
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
            object: blocker.object.clone(),
            function: blocker.function.clone(),
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
                    "in code of livepatch {}, which is in force; whether in a function that this \
                     patch replaces cannot be told",
                    printable(below.as_bytes())
                ))),
                // One that has ended holds nothing.
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
            .filter_map(|frame| frame.symbol.as_ref()?.module.as_deref());
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

    /// What it all came to, after so long.
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
    /// It would hold the transition up.
    Holds(Likely),
    /// It would if it never did anything else.
    Runs(Likely),
    /// Its stack could not be told.
    Unread,
    Passes,
}

/// A sample, yet without tasks.
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

/// What tasks would be looked for: the function where it is now. Where another
/// livepatch has replaced it, its code is in that one's module, and only names tell.
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
    // Not there: its module is not loaded, or a finding of its own.
    let place = places.get(index)?;
    let range = place
        .size
        .and_then(|size| Some(place.address..place.address.checked_add(size)?))
        .filter(|_| !replaced);
    Some(CheckedFunc {
        object: object.to_owned(),
        function: function.name.clone(),
        range,
    })
}

impl Forecast {
    /// Seen in at least half of the samples: it is not just passing through.
    #[must_use]
    pub fn stays(&self, likely: &Likely) -> bool {
        u64::from(likely.seen) * 2 >= u64::from(self.samples)
    }

    /// One finding for each function that tasks sleep in, and for each other cause.
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
                    "the stacks of {} of {} tasks could not be told in any sample",
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
                "{}: likely blockers: their stacks cannot be walked, so the kernel cannot \
                 switch them while they sleep there",
                counted(tasks.len())
            ),
            (_, Some(place)) if staying > 0 => {
                format!("{} in {place}: likely blockers", counted(tasks.len()))
            }
            (_, Some(place)) => format!(
                "{} passed through {place}: each was out of it in most samples",
                counted(tasks.len())
            ),
            (Reason::Running, None) => format!(
                "{} of the kernel's own on a CPU in every sample: a transition waits until \
                 they sleep",
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
                "stop or restart them first, or be ready to wait: a signal wakes those in \
                  state S, nothing those in state D or I"
            }
        };
        Finding::new(severity, "blockers", what, remedy)
    }
}

#[cfg(test)]
mod tests;
