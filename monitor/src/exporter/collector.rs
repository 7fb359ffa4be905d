//! What a collector is, and how the collectors are run: a panic or an error of one costs only its
//! own metrics.
//!
//! A collector has its own lock and never takes another collector's. It gets what it needs from
//! another collector as a value: collectors run in order, and each sees the values of those before
//! it. It returns what the event loop should do as [`Effect`]s.

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use livepatch_core::{
    crash::counts::Sighting,
    degradation::Degradation,
    journal::entry::Entry,
    journal::history::History,
    pending_tasks::Found,
    transition::{self, BootTime},
    transition_state::Running,
};

use crate::{
    host::{
        expected::Expected,
        packages::{Interrupted, Manager},
    },
    kernel::events::KernelEvent,
    metrics::{Exposition, ExpositionError, Metric},
};

#[cfg(test)]
mod tests;

/// A source of metrics. `V` holds the plain values of all collectors.
pub trait Collector<V>: Debug + Send + Sync {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// The value of label `collector` under which
    /// `livepatch_monitor_collector_success` reports it. Several collectors may share one:
    /// it succeeds if all do.
    /// `None` for one that reads nothing that could fail.
    fn label(&self) -> Option<&'static str>;

    /// Its rows of the metric contract.
    fn metrics(&self) -> &'static [Metric];

    /// Handles a kernel event. `history` is what the journal holds about this boot so far.
    fn event(&self, _event: &KernelEvent, _history: &History) -> Vec<Effect> {
        Vec::new()
    }

    /// Reads its sources and stores what it found in `values`, from which `/metrics`, the text file
    /// and the status page are made.
    fn collect(&self, moment: &Moment, values: &mut V) -> Outcome;

    /// Writes its metrics, made from the values that were collected.
    ///
    /// # Errors
    /// A metric cannot be written.
    fn export(&self, collected: &Collected<V>, out: &mut Exposition)
    -> Result<(), ExpositionError>;
}

/// Something that the event loop does for a collector.
#[derive(Debug)]
pub enum Effect {
    /// A step of a transition: a log line, a journal entry.
    Transition(BootTime, transition::Effect),
    /// What the kernel log says about the start of a transition that was already running when the
    /// monitor found it.
    StartFromLog(String, StartFromLog),
    /// State that must survive a restart of the monitor has changed.
    Save,
    /// The kernel has tried to complete a transition: scan the tasks that are still pending.
    Attempt,
    /// A livepatch's module is being loaded.
    Loading,
    /// A crash hook was hit: read the kernel log for the details.
    ReadLog,
    /// A journal entry, written if it adds something.
    Record(BootTime, Entry),
    /// A crash signal was counted.
    Signal(Sighting),
    /// A transition is stuck.
    Stuck(Running, Arc<Found>),
    /// A package manager left an update unfinished.
    UpdateInterrupted(Interrupted),
    /// The update that was left unfinished is complete.
    UpdateRepaired(Manager),
    /// A livepatch that should be in force is not.
    PatchMissing(Expected),
    /// The kernel refused to load a module because a livepatch failed for it.
    ModuleRefused {
        /// The livepatch that failed for the module.
        patch: String,
        /// The module that the kernel did not load.
        module: String,
    },
}

/// What the kernel log says about the start of a transition.
#[derive(Debug)]
pub enum StartFromLog {
    /// The log has the start.
    Found,
    /// The log does not reach back that far.
    TooShort,
    /// The log cannot be read: the reason.
    Unreadable(String),
}

/// What every collector is given when it collects.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Time of the collection, on the boot's clock.
    pub now: BootTime,
    /// What the journal holds about this boot.
    pub history: Arc<History>,
    /// Journal entries that did not reach the disk.
    pub recorder_errors: u64,
    /// Whether the journal is written to a disk at all.
    pub recording: bool,
}

/// How a collection went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// A source that should have been read could not be.
    pub failed: bool,
    /// What is wrong, one sentence each; logged when it changes.
    pub problems: Vec<String>,
    /// What the monitor cannot see because of it, if `problems` alone does not say so.
    pub degradations: Vec<Degradation>,
    /// What the event loop should do.
    pub effects: Vec<Effect>,
}

impl Outcome {
    /// Everything was read, except for these problems.
    #[must_use]
    pub fn of(problems: Vec<String>) -> Self {
        Self {
            failed: !problems.is_empty(),
            problems,
            ..Self::default()
        }
    }
}

/// The collectors of one label, in one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Value of the label `collector`.
    pub label: &'static str,
    /// They read everything they need.
    pub success: bool,
    /// What could not be read, one sentence each.
    pub problems: Vec<String>,
}

impl Run {
    fn degradation(&self) -> Option<Degradation> {
        let reason = match self.problems.as_slice() {
            [] => "the reason is not known".to_owned(),
            problems => problems.join("; "),
        };
        (!self.success).then(|| Degradation {
            what: format!(
                "collector {} could not read all it needs: {reason}",
                self.label
            ),
            remedy: String::new(),
        })
    }
}

/// What one collection found.
#[derive(Clone, Debug, Default)]
pub struct Collected<V> {
    /// When it was complete.
    pub moment: Moment,
    /// What the collectors know, one value each.
    pub values: V,
    /// Success of the collectors of each label.
    pub runs: Vec<Run>,
    /// What the monitor cannot see.
    pub degradations: Vec<Degradation>,
}

impl<V> Collected<V> {
    fn run(&mut self, label: &'static str) -> Option<&mut Run> {
        if !self.runs.iter().any(|run| run.label == label) {
            self.runs.push(Run {
                label,
                success: true,
                problems: Vec::new(),
            });
        }
        self.runs.iter_mut().find(|run| run.label == label)
    }

    fn report(&mut self, label: Option<&'static str>, outcome: &Outcome) {
        if let Some(run) = label.and_then(|label| self.run(label)) {
            run.success &= !outcome.failed;
            run.problems.extend(outcome.problems.iter().cloned());
        }
        self.degradations
            .extend(outcome.degradations.iter().cloned());
    }
}

/// The caller of [`collect`], who owns the time, the journal and the log.
pub trait Listener {
    /// What the next collector is given.
    fn moment(&self) -> Moment;

    /// A collector wants this done before the next one runs.
    fn effects(&mut self, effects: Vec<Effect>);

    /// What went wrong in a step of a collector; an empty list means that nothing did.
    fn problems(&mut self, collector: &'static str, step: Step, problems: &[String]);
}

/// What a collector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A collector handles an event of the kernel.
    Event,
    /// A collector reads its sources.
    Collect,
    /// A collector writes its metrics.
    Export,
}

/// Runs all collectors, in order.
pub fn collect<V: Default>(
    collectors: &[&dyn Collector<V>],
    listener: &mut impl Listener,
) -> Collected<V> {
    let mut collected = Collected::default();
    for collector in collectors {
        let moment = listener.moment();
        let outcome = guarded(collector.name(), || {
            collector.collect(&moment, &mut collected.values)
        });
        let mut outcome = outcome.unwrap_or_else(|panicked| Outcome::of(vec![panicked]));
        collected.report(collector.label(), &outcome);
        listener.problems(collector.name(), Step::Collect, &outcome.problems);
        listener.effects(std::mem::take(&mut outcome.effects));
    }
    let failed = collected.runs.iter().filter_map(Run::degradation);
    let failed: Vec<_> = failed.collect();
    collected.degradations.extend(failed);
    collected.moment = listener.moment();
    collected
}

/// The metrics of all collectors. One that cannot write its metrics, or panics, counts as
/// failed and has none; the collectors after it report that.
pub fn export<V>(
    collectors: &[&dyn Collector<V>],
    collected: &mut Collected<V>,
    listener: &mut impl Listener,
) -> Exposition {
    let mut all = Exposition::default();
    for collector in collectors {
        let mark = all.mark();
        let written = guarded(collector.name(), || collector.export(collected, &mut all));
        let problem = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{}: {error}", collector.name())),
            Err(panicked) => Some(panicked),
        };
        if problem.is_some() {
            all.back_to(mark);
        }
        let outcome = Outcome::of(problem.into_iter().collect());
        collected.report(collector.label(), &outcome);
        listener.problems(collector.name(), Step::Export, &outcome.problems);
    }
    all
}

/// Calls a collector and catches its panic.
///
/// # Errors
/// It has panicked: the problem to log.
pub fn guarded<T>(collector: &'static str, call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
        // The panic's own message is on standard error.
        format!(
            "collector {collector} has panicked: this is a bug of the monitor, please report it \
             with the message above"
        )
    })
}
