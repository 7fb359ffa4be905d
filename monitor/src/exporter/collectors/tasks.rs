//! The tasks that a transition waits for.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use livepatch_core::{
    blockers::Reason,
    function_ref::FunctionRef,
    pending_tasks::{Found, PendingTasks},
    transition_state::Running,
};
use livepatch_monitor_ebpf::EventKind;

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        lock, try_lock,
    },
    kernel::{clock, tasks::TaskScanner},
    metrics::{Exposition, ExpositionError, Metric, count, metrics},
};

metrics! {
    PENDING_TASKS = "livepatch_pending_tasks" Gauge ["patch", "reason"] "Tasks that have not reached the target state of the running livepatch transition, by reason; absent without a transition.";
    STUCK_TASKS = "livepatch_stuck_tasks" Gauge ["patch", "reason"] "Pending tasks of a livepatch transition that is older than --stuck-after, by reason; absent without a transition.";
    BLOCKING_TASKS = "livepatch_blocking_tasks" Gauge ["patch", "object", "function"] "Pending tasks asleep in a function that the transition replaces.";
}

/// What is known about tasks.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The pending tasks of the running transition; `None` if no transition runs or they are
    /// unknown.
    pub found: Option<Arc<Found>>,
    /// Kernel events lost, by kind; `None` if the kernel's count cannot be read. They are here
    /// because the scanner owns the probes, through which they are read.
    pub lost: Option<Vec<(EventKind, u64)>>,
}

#[derive(Debug, Default)]
struct State {
    pending: PendingTasks,
    /// Why the last scan failed.
    problem: Option<String>,
    lost: Option<Vec<(EventKind, u64)>>,
}

#[derive(Debug)]
pub(in crate::exporter) struct Tasks {
    /// Locked for as long as a scan takes, and a scan may block behind a task: nothing waits for
    /// this lock.
    scanner: Mutex<TaskScanner>,
    state: Mutex<State>,
    sysfs: PathBuf,
    stuck_after: Duration,
}

impl Tasks {
    pub(in crate::exporter) fn new(
        scanner: TaskScanner,
        sysfs: PathBuf,
        stuck_after: Duration,
    ) -> Self {
        Self {
            scanner: Mutex::new(scanner),
            state: Mutex::default(),
            sysfs,
            stuck_after,
        }
    }

    /// The scanner, for the start only: later a scan may hold it for long.
    pub(in crate::exporter) fn scanner(&self) -> MutexGuard<'_, TaskScanner> {
        lock(&self.scanner)
    }

    /// Scans the tasks if a transition runs and the last scan is no longer fresh.
    pub(in crate::exporter) fn look(&self, running: Option<&Running>) -> Outcome {
        let Some(mut scanner) = try_lock(&self.scanner) else {
            // A scan is running; the result of the previous one stays valid for a while.
            return self.last_scan(running);
        };
        let Some(running) = running else {
            scanner.forget();
            lock(&self.state).problem = None;
            return Outcome::default();
        };
        if !lock(&self.state)
            .pending
            .scan_due(running, clock::boot_time())
        {
            return self.last_scan(Some(running));
        }
        let before = clock::thread_cpu_time();
        let result = scanner.scan(running.patch.as_deref(), running.direction, &self.sysfs);
        let cost = clock::thread_cpu_time().saturating_sub(before);
        let mut state = lock(&self.state);
        match result {
            Ok(Some(scan)) => {
                state.pending.scanned(running, &scan, cost);
                state.problem = None;
            }
            // No transition runs any more.
            Ok(None) => return Outcome::default(),
            Err(error) => {
                state.pending.scan_failed();
                let problem = format!("cannot determine the pending tasks: {error}");
                state.problem = Some(problem.clone());
                return Outcome::of(vec![problem]);
            }
        }
        let stuck = state.pending.stuck_report(running, self.stuck_after);
        Outcome {
            effects: stuck
                .map(|found| Effect::Stuck(running.clone(), found))
                .into_iter()
                .collect(),
            ..Outcome::default()
        }
    }

    /// Uses the last scan instead of a new one; fails if that failed or is too old.
    fn last_scan(&self, running: Option<&Running>) -> Outcome {
        let mut state = lock(&self.state);
        let now = clock::boot_time();
        let Some(running) = running else {
            return Outcome::default();
        };
        let is_known = state.pending.found(running, now).is_some();
        let is_awaited = state.problem.is_none() && !state.pending.is_overdue(running, now);
        if is_known || is_awaited {
            return Outcome::default();
        }
        Outcome {
            failed: true,
            problems: state.problem.iter().cloned().collect(),
            ..Outcome::default()
        }
    }
}

impl Collector<All> for Tasks {
    fn name(&self) -> &'static str {
        "tasks"
    }

    fn label(&self) -> Option<&'static str> {
        Some(super::TASKS)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn collect(&self, _: &Moment, values: &mut All) -> Outcome {
        let running = values.transitions.running.as_ref();
        let outcome = self.look(running);
        let lost = try_lock(&self.scanner).map(|scanner| scanner.lost_events());
        let mut state = lock(&self.state);
        if let Some(lost) = lost {
            state.lost = lost;
        }
        let now = clock::boot_time();
        values.tasks = Values {
            found: running.and_then(|running| state.pending.found(running, now)),
            lost: state.lost.clone(),
        };
        outcome
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let All {
            patches,
            transitions,
            tasks,
            ..
        } = &collected.values;
        let Some(set) = &patches.set else {
            return Ok(());
        };
        let (mut pending, mut stuck, mut blocking) = (Vec::new(), Vec::new(), Vec::new());
        let Some(counts) = tasks.found.as_ref().map(|found| &found.counts) else {
            return Ok(());
        };
        let names = transitions.names(set).into_iter();
        for name in names.filter(|name| transitions.running_of(name).is_some()) {
            for reason in Reason::ALL {
                let number = count(counts.reason(reason));
                pending.push(([name, reason.name()], number));
                let number = if transitions.stuck { number } else { 0.0 };
                stuck.push(([name, reason.name()], number));
            }
            for (FunctionRef { object, function }, number) in counts.functions() {
                blocking.push(([name, object, function], count(*number)));
            }
        }
        out.gauge(&PENDING_TASKS, pending)?;
        out.gauge(&STUCK_TASKS, stuck)?;
        out.gauge(&BLOCKING_TASKS, blocking)?;
        Ok(())
    }
}
