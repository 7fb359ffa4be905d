//! Why a task is still pending: what livepatch finds when it checks the task, derived from the
//! task's stack and state.
//!
//! The order is that of klp_check_and_switch_task and klp_check_stack
//! (kernel/livepatch/transition.c, 5.10 to 7.2): a task on a CPU is left alone
//! (-EBUSY); then the whole stack must be walked reliably (-EINVAL); only then
//! are the functions looked for (-EADDRINUSE). So of a task with both a patched
//! function and an unreliable frame on its stack the kernel says "unreliable
//! stack", and that is also the right advice: the task is not done when it
//! leaves the function. The function is still named with it.

mod container;
mod escape;
mod group;
mod history;
mod matching;
mod report;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

pub use container::Container;
pub use escape::{lossy, printable};
pub use group::{Group, groups};
pub use history::History;
pub use report::BlockerReport;
pub use task::{Frame, PendingTask, Symbol, TaskState};

use crate::function_ref::FunctionRef;
use crate::transition::BootTime;
use crate::transition::Direction;
use matching::{Match, Matcher};

/// Stack entries that livepatch looks at (`MAX_STACK_ENTRIES`,
/// kernel/livepatch/transition.c). A walk that fills them all fails: a stack of
/// this depth is unreliable (`stack_trace_consume_entry`, kernel/stacktrace.c).
pub const MAX_STACK_ENTRIES: usize = 100;

/// Entries that /proc/PID/stack shows at most (`MAX_STACK_TRACE_DEPTH`,
/// fs/proc/base.c).
pub const PROC_STACK_ENTRIES: usize = 64;

/// Where a scan's data comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanSource {
    /// The BPF task iterator: addresses, and whether a task is on a CPU.
    Iterator,
    /// /proc: names of functions without addresses, and no idle tasks.
    Proc,
}

/// The pending tasks at one moment, and the functions that they are checked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// When the scan began; the kernel may have moved on since.
    pub time: BootTime,
    /// The patch in transition.
    pub patch: String,
    /// The state that the pending tasks have yet to reach.
    pub direction: Direction,
    /// Attempts made since the start or the last reversal; `None` if unknown.
    pub attempts: Option<u32>,
    /// The functions that stacks are checked for; `None` if unknown.
    pub funcs: Option<Vec<CheckedFunc>>,
    /// Whether `funcs` lacks some functions.
    pub funcs_truncated: bool,
    /// Whether idle tasks could not be read.
    pub idle_unknown: bool,
    /// Whether only some idle tasks were read.
    pub idle_truncated: bool,
    /// Where the data comes from.
    pub source: ScanSource,
    /// The names of the loaded livepatches: their modules contain code that may be in force. Needed
    /// only for functions without a range.
    pub patches: Vec<String>,
    /// The kernel's unwinder walks BPF frames reliably (x86 of 7.2; `bpf_has_frame_pointer` in
    /// kallsyms shows it). False if unknown.
    pub bpf_frames_reliable: bool,
    /// The tasks that were pending when the scan read them.
    pub tasks: Vec<PendingTask>,
}

/// A function that pending tasks must leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedFunc {
    /// The patched function, by its name and object.
    pub function: FunctionRef,
    /// The addresses of the code in force that must be left; `None` if only the name is known.
    pub range: Option<Range<u64>>,
}

/// Why a task is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Asleep in a function that must be left.
    Sleeping,
    /// On a CPU, or waiting for one.
    Running,
    /// Its stack contains a frame that the kernel cannot walk.
    UnreliableStack,
    /// Nothing blocks it; the kernel has not checked it yet.
    Unvisited,
    /// Cannot be determined; the detail says why.
    Unknown,
}

impl Reason {
    /// All, in the order they are exported.
    pub const ALL: [Self; 5] = [
        Self::Sleeping,
        Self::Running,
        Self::UnreliableStack,
        Self::Unvisited,
        Self::Unknown,
    ];

    /// The reason as label `reason` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sleeping => "sleeping",
            Self::Running => "running",
            Self::UnreliableStack => "unreliable_stack",
            Self::Unvisited => "unvisited",
            Self::Unknown => "unknown",
        }
    }
}

/// A pending task and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The pending task, as the scan found it.
    pub task: PendingTask,
    /// Why it is pending, as far as its stack and state show it.
    pub reason: Reason,
    /// The function on its stack that it must leave; also set for [`Reason::UnreliableStack`] if
    /// there is one.
    pub function: Option<FunctionRef>,
    /// One sentence for a terminal.
    pub detail: String,
}

/// Why each task of the scan is pending, in the scan's order. `history` carries what earlier scans
/// of the same transition found.
pub fn analyse(scan: &Scan, history: &mut History) -> Vec<Blocker> {
    history.begin(scan);
    let matcher = Matcher::new(scan);
    let blockers = scan
        .tasks
        .iter()
        .map(|task| judge(scan, &matcher, task, history))
        .collect();
    history.finish();
    blockers
}

fn judge(scan: &Scan, matcher: &Matcher<'_>, task: &PendingTask, history: &mut History) -> Blocker {
    let blocker = |reason, detail: String| Blocker {
        task: task.clone(),
        reason,
        function: None,
        detail,
    };
    // The stack of a task that may be on a CPU changes while it is read.
    let on_cpu = task
        .on_cpu
        .unwrap_or(task.state == TaskState::Running || task.idle_cpu.is_some());
    if on_cpu {
        return blocker(Reason::Running, running(task));
    }

    let found = matcher.on_stack(&task.stack);
    if let Some(cause) = unreliable(scan, &task.stack) {
        let mut blocker = blocker(Reason::UnreliableStack, cause);
        if let Match::Function(func) = found {
            blocker.detail.push_str("; also in ");
            blocker.detail.push_str(&matching::place(scan, func));
            blocker.function = Some(func.function.clone());
        }
        return blocker;
    }
    match found {
        Match::Function(func) => Blocker {
            function: Some(func.function.clone()),
            // A task that is ready to run counts as running, wherever it was preempted.
            ..blocker(
                if task.state == TaskState::Running {
                    Reason::Running
                } else {
                    Reason::Sleeping
                },
                sleeping(scan, func, task),
            )
        },
        Match::Module(module) => {
            let fate = match scan.direction {
                Direction::Unpatch => "is being removed",
                Direction::Patch => "is in force",
            };
            let module = printable(module.as_bytes());
            blocker(
                Reason::Unknown,
                format!(
                    "in code of the livepatch module {module}, which {fate}; \
                     /proc does not show to which patched function that belongs"
                ),
            )
        }
        Match::Nothing => {
            let (reason, detail) = clean(scan, task, history);
            blocker(reason, detail)
        }
    }
}

fn running(task: &PendingTask) -> String {
    match (task.idle_cpu, task.on_cpu) {
        (Some(cpu), _) => format!("idle task of CPU {cpu}; it switches in its idle loop"),
        (None, Some(true)) if task.kthread => {
            "a kernel thread on a CPU; it must sleep or reach a reschedule point".to_owned()
        }
        (None, Some(true)) => {
            "on a CPU; it switches when it returns to user space, or once it sleeps".to_owned()
        }
        (None, _) if task.kthread => {
            "a kernel thread on a CPU or waiting for one; it must be seen off a CPU".to_owned()
        }
        (None, _) => {
            "on a CPU or waiting for one; it switches when it returns to user space".to_owned()
        }
    }
}

/// What makes the kernel reject the stack as a whole.
fn unreliable(scan: &Scan, stack: &[Frame]) -> Option<String> {
    let walked =
        |symbol: &Symbol| scan.bpf_frames_reliable && symbol.place.name.starts_with("bpf_");
    let generated = stack
        .iter()
        .filter_map(|frame| frame.symbol.as_ref())
        .find(|symbol| symbol.generated && !walked(symbol));
    if let Some(symbol) = generated {
        return Some(format!(
            "asleep below {}, code made at run time that the kernel cannot unwind through; \
             it belongs to a tracer or security tool, and must be left or detached",
            printable(symbol.place.name.as_bytes())
        ));
    }
    (scan.source == ScanSource::Iterator && stack.len() >= MAX_STACK_ENTRIES).then(|| {
        format!("its stack is deeper than the {MAX_STACK_ENTRIES} frames that livepatch walks")
    })
}

fn sleeping(scan: &Scan, func: &CheckedFunc, task: &PendingTask) -> String {
    let verb = match task.state {
        TaskState::Stopped => "stopped",
        TaskState::Traced => "held by a debugger",
        TaskState::Running => "waiting for a CPU",
        _ => "asleep",
    };
    let help = match task.state {
        TaskState::Uninterruptible => "; no signal wakes it",
        TaskState::Idle => "; as an idle kernel thread it gets no signal",
        _ => "",
    };
    format!("{verb} in {}{help}", matching::place(scan, func))
}

/// Nothing on the stack blocks the task, as far as can be seen.
fn clean(scan: &Scan, task: &PendingTask, history: &mut History) -> (Reason, String) {
    if let Some(cpu) = task.idle_cpu {
        let detail = format!(
            "idle task of CPU {cpu}, which is busy with another task; \
             the kernel checks its stack, or it switches in its idle loop"
        );
        return (Reason::Running, detail);
    }
    if task.state == TaskState::Running {
        let detail = "ready to run but waiting for a CPU; it switches when it gets one and \
                      returns to user space, or when the kernel finds it off a CPU";
        return (Reason::Running, detail.to_owned());
    }
    let ended = matches!(task.state, TaskState::Dead | TaskState::Zombie);
    if !(ended && task.stack.is_empty())
        && let Some(detail) = unsure(scan, task)
    {
        return (Reason::Unknown, detail);
    }
    match history.clean(scan, task) {
        None => {
            let what = if ended {
                "it has ended"
            } else {
                "nothing on its stack is in the way"
            };
            (
                Reason::Unvisited,
                format!("{what}; the kernel switches it at its next attempt"),
            )
        }
        Some(passed) => {
            let nameless = task
                .stack
                .iter()
                .filter(|frame| frame.symbol.is_none())
                .count();
            let hint = if nameless > 0 {
                format!("; {nameless} of its frames have no name, one may be code made at run time")
            } else {
                String::new()
            };
            let detail =
                format!("its stack looks clean, yet the kernel did not switch it {passed}{hint}");
            (Reason::Unknown, detail)
        }
    }
}

/// Why a stack on which nothing blocks the task allows no conclusion.
fn unsure(scan: &Scan, task: &PendingTask) -> Option<String> {
    if task.stack.is_empty() {
        let detail = "its kernel stack could not be read: the privilege is missing, \
                      or it was just running";
        return Some(detail.to_owned());
    }
    let Some(funcs) = &scan.funcs else {
        let detail = "no unwalkable frame on its stack, but the functions that the kernel \
                      looks for are not known";
        return Some(detail.to_owned());
    };
    if scan.funcs_truncated {
        return Some(format!(
            "none of the first {} functions of the patch is on its stack; the patch has more",
            funcs.len()
        ));
    }
    (scan.source == ScanSource::Proc && task.stack.len() >= PROC_STACK_ENTRIES).then(|| {
        format!(
            "nothing in the way in the innermost {PROC_STACK_ENTRIES} frames; \
             /proc shows no more of its stack"
        )
    })
}

/// How many tasks are pending, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    reasons: BTreeMap<Reason, u64>,
    functions: BTreeMap<FunctionRef, u64>,
}

impl Counts {
    /// Counts the blockers of one scan.
    #[must_use]
    pub fn of(blockers: &[Blocker]) -> Self {
        let mut counts = Self::default();
        for blocker in blockers {
            *counts.reasons.entry(blocker.reason).or_default() += 1;
            // With an unreliable stack the function is only likely.
            if blocker.reason == Reason::Sleeping
                && let Some(function) = &blocker.function
            {
                *counts.functions.entry(function.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// Tasks pending for this reason.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.get(&reason).copied().unwrap_or(0)
    }

    /// Tasks with a function on their stack that they must leave, by object
    /// and function.
    #[must_use]
    pub const fn functions(&self) -> &BTreeMap<FunctionRef, u64> {
        &self.functions
    }

    /// All pending tasks, whatever the reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reasons.values().sum()
    }
}
