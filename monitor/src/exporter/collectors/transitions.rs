//! Transitions: the running one, its start, and the outcome of earlier ones.
//!
//! Fed by the kernel's events and by snapshots of sysfs; the state machine
//! ([`livepatch_core::transition`]) reconciles the two.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use livepatch_core::{
    journal::{entry::Entry, history::History},
    lifecycle::InForce,
    patch::{Patch, PatchSet},
    transition::{self, BootTime, Direction, KlpEvent, SavedState, Totals, Watching},
    transition_state::{Running, TransitionState},
};
use livepatch_monitor_ebpf::EventKind;

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome, StartFromLog},
        kernel_log::KernelLog,
        lock,
    },
    kernel::{clock, events::KernelEvent, kmsg, modules},
    metrics::{Exposition, ExpositionError, Metric, bit, metrics},
};

metrics! {
    PATCH_FORCED = "livepatch_patch_forced" Gauge ["patch"] "Whether a transition of the livepatch was forced; only a reboot cleans that up.";
    PATCHING_COMPLETE = "livepatch_patching_complete_timestamp_seconds" Gauge ["patch"] "When the transition to the livepatch ended or, where that was not seen, since when it is known to be in force, in seconds since 1970; only while it is enabled and not in transition.";
    PATCHING_DURATION = "livepatch_patching_duration_seconds" Gauge ["patch"] "How long the transition took that brought the livepatch into force; absent where its start or its end was not seen.";
    TRANSITION_ACTIVE = "livepatch_transition_active" Gauge ["patch", "direction"] "Whether a transition of the livepatch runs in this direction: to the patch, or back from it.";
    TRANSITION_START = "livepatch_transition_start_timestamp_seconds" Gauge ["patch"] "When the running livepatch transition started, or was last reversed, in seconds since 1970; absent where unknown.";
    TRANSITIONS = "livepatch_transitions_total" Counter ["direction", "outcome"] "Livepatch transitions that ended since the monitor started, and whose start and end it saw.";
    ATTEMPTS = "livepatch_transition_attempts_total" Counter [] "Attempts of the kernel to complete a livepatch transition, since the monitor started.";
    SIGNALS = "livepatch_transition_signals_total" Counter [] "Rounds of signals that the kernel sent to tasks that hold up a livepatch transition, since the monitor started.";
    REVERSALS = "livepatch_transition_reversals_total" Counter [] "Livepatch transitions that were reversed before their end, since the monitor started.";
    FORCES = "livepatch_transition_forces_total" Counter [] "Livepatch transitions that were forced, since the monitor started.";
    LOAD_FAILURES = "livepatch_patch_load_failures_total" Counter [] "Livepatches whose enabling was refused, failed or was cancelled, since the monitor started.";
}

/// What is known about transitions.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The running transition.
    pub running: Option<Running>,
    /// When it started, in seconds since 1970; `None` if unknown.
    pub start_unix_seconds: Option<f64>,
    /// Whether it has run for longer than `--stuck-after`.
    pub stuck: bool,
    /// Whether each loaded patch was forced; a patch for which that is unknown is left out.
    pub forced: BTreeMap<String, bool>,
    /// Counts since the monitor started.
    pub totals: Option<Totals>,
    /// The last livepatch that could not be enabled, since the monitor started.
    pub last_failure: Option<Failure>,
}

/// A livepatch could not be enabled.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The patch, if known.
    pub patch: Option<String>,
    /// When that was, in seconds since 1970, if the clock is right.
    pub unix_seconds: Option<f64>,
    /// Whether its transition had started, and was cancelled.
    pub cancelled: bool,
}

impl Values {
    /// The running transition, if it is this patch's.
    #[must_use]
    pub fn running_of(&self, patch: &str) -> Option<&Running> {
        let running = self.running.as_ref()?;
        (running.patch.as_deref() == Some(patch)).then_some(running)
    }

    /// The patches whose transitions are exported: the loaded ones, and the one in transition,
    /// which sysfs may not show yet or not show any more.
    pub(super) fn names<'a>(&'a self, set: &'a PatchSet) -> Vec<&'a str> {
        let mut names: Vec<_> = set.patches.iter().map(|it| it.name.as_str()).collect();
        let running = self.running.as_ref().and_then(|it| it.patch.as_deref());
        names.extend(running.filter(|name| set.get(name).is_none()));
        names
    }
}

#[derive(Debug)]
struct State {
    machine: TransitionState,
    /// The running transition's start on both clocks. It is converted once, so that setting the
    /// wall clock later does not change it.
    start: Option<(BootTime, Option<f64>)>,
    /// The list of loaded patches that the journal has.
    recorded: Option<Arc<PatchSet>>,
    last_failure: Option<Failure>,
}

impl State {
    /// Converts the start if it is a new one; returns whether it was.
    fn date(&mut self) -> bool {
        let active = self.machine.transitions.active();
        let start = active.and_then(|active| active.start);
        let is_new = self.start.map(|(start, _)| start) != start;
        if is_new {
            self.start = start.map(|start| (start, clock::unix_seconds(start)));
        }
        is_new
    }

    fn start_unix_seconds(&self) -> Option<f64> {
        self.start.and_then(|(_, unix_seconds)| unix_seconds)
    }
}

#[derive(Debug)]
pub(in crate::exporter) struct Transitions {
    state: Mutex<State>,
    /// Ended transitions whose start and end were seen.
    ended: Mutex<BTreeMap<(Direction, transition::Outcome), u64>>,
    log: KernelLog,
    procfs: PathBuf,
    stuck_after: Duration,
}

impl Transitions {
    pub(in crate::exporter) fn new(
        watching: Watching,
        log: KernelLog,
        procfs: PathBuf,
        stuck_after: Duration,
    ) -> Self {
        let state = State {
            machine: TransitionState::new(watching),
            start: None,
            recorded: None,
            last_failure: None,
        };
        Self {
            state: Mutex::new(state),
            ended: Mutex::default(),
            log,
            procfs,
            stuck_after,
        }
    }

    /// Continues from what an earlier process of this boot saved.
    pub(in crate::exporter) fn restore(&self, saved: SavedState, start: Option<f64>) {
        let mut state = lock(&self.state);
        let transitions = transition::Transitions::restore(saved);
        let since = transitions.active().and_then(|active| active.start);
        state.start = since.map(|since| (since, start));
        state.machine.transitions = transitions;
    }

    /// What a later process of this boot needs: the state, and when the running transition started,
    /// in seconds since 1970.
    pub(in crate::exporter) fn saved(&self) -> (SavedState, Option<f64>) {
        let state = lock(&self.state);
        (state.machine.transitions.save(), state.start_unix_seconds())
    }

    /// The running transition.
    pub(in crate::exporter) fn running(&self) -> Option<Running> {
        lock(&self.state).machine.running(clock::boot_time())
    }

    /// Takes a snapshot of sysfs, whose reading started at `time`.
    pub(in crate::exporter) fn snapshot(&self, time: BootTime, set: &Arc<PatchSet>) -> Vec<Effect> {
        let (steps, dated, is_recorded) = {
            let mut state = lock(&self.state);
            let before = state.recorded.replace(set.clone());
            let is_recorded = before.is_some_and(|before| Arc::ptr_eq(&before, set));
            (state.machine.snapshot(time, set), state.date(), is_recorded)
        };
        let mut effects = self.effects(time, steps, dated);
        // After the steps: a patch in transition is not yet in force.
        if !is_recorded {
            effects.push(Effect::Record(time, Entry::from(&**set)));
        }
        effects
    }

    fn klp_event(&self, event: &KlpEvent) -> Vec<Effect> {
        let (steps, dated) = {
            let mut state = lock(&self.state);
            (state.machine.event(event), state.date())
        };
        self.effects(event.time, steps, dated)
    }

    fn effects(&self, time: BootTime, steps: Vec<transition::Effect>, dated: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        for step in steps {
            let found_under_way = matches!(step, transition::Effect::Started { start: None, .. });
            if let transition::Effect::Ended {
                direction,
                outcome,
                duration: Some(_),
                ..
            } = &step
            {
                *lock(&self.ended).entry((*direction, *outcome)).or_default() += 1;
            }
            if let transition::Effect::LoadFailed { patch, cancelled } = &step {
                lock(&self.state).last_failure = Some(Failure {
                    patch: patch.clone(),
                    unix_seconds: clock::unix_seconds(time),
                    cancelled: *cancelled,
                });
            }
            effects.push(Effect::Transition(time, step));
            if found_under_way {
                effects.extend(self.start_from_log());
            }
        }
        if dated || !effects.is_empty() {
            effects.push(Effect::Save);
        }
        effects
    }

    /// For a transition that was already running: reads its start from the kernel log, if the log
    /// reaches back that far.
    pub(in crate::exporter) fn start_from_log(&self) -> Option<Effect> {
        let running = self.running()?;
        let patch = running.transition.patch?;
        let read = self
            .log
            .read(|log| kmsg::transition_start(log, &patch, running.transition.direction));
        let said = match read {
            Ok(Some(since_boot)) => {
                // The log's clock stops during suspend.
                let time = BootTime::from_duration(since_boot + clock::suspended());
                let mut state = lock(&self.state);
                if !state.machine.transitions.started_at(&patch, time) {
                    return None;
                }
                state.date();
                StartFromLog::Found
            }
            Ok(None) => StartFromLog::TooShort,
            Err(error) => StartFromLog::Unreadable(error.to_string()),
        };
        Some(Effect::StartFromLog(patch, said))
    }
}

/// The entry that the load of the event's patch is over, if the journal has it as under way.
fn loaded(event: &KlpEvent, history: &History) -> Option<Effect> {
    let patch = event.patch.clone()?;
    let is_loading = history.is_loading(&patch);
    is_loading.then_some(Effect::Record(event.time, Entry::Loaded { patch }))
}

impl Collector<All> for Transitions {
    fn name(&self) -> &'static str {
        "transitions"
    }

    fn label(&self) -> Option<&'static str> {
        Some(super::SYSFS)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn event(&self, event: &KernelEvent, history: &History) -> Vec<Effect> {
        let KernelEvent::Livepatch(event) = event else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        match event.kind {
            EventKind::ModuleLoad => {
                effects.push(Effect::Loading);
                let load = event.patch.clone().map(|patch| Entry::Load { patch });
                effects.extend(load.map(|load| Effect::Record(event.time, load)));
                // Without ftrace the request of a livepatch's init is not seen, and the kernel
                // refuses it: that its module loads stands for the request.
                if modules::ftrace_enabled(&self.procfs) == Some(false) {
                    let request = KlpEvent {
                        kind: EventKind::EnablePatch,
                        ..event.clone()
                    };
                    effects.extend(self.klp_event(&request));
                }
            }
            EventKind::TryCompleteTransition => {
                effects.push(Effect::Attempt);
                // The module's init has returned before there is a second attempt.
                if event.attempt.is_some_and(|attempt| attempt > 0) {
                    effects.extend(loaded(event, history));
                }
            }
            EventKind::ModuleFree => effects.extend(loaded(event, history)),
            EventKind::EnablePatch
            | EventKind::InitTransition
            | EventKind::CompleteTransition
            | EventKind::CancelTransition
            | EventKind::ReverseTransition
            | EventKind::ForceTransition
            | EventKind::PatchObject
            | EventKind::UnpatchObject
            | EventKind::FreePatch
            | EventKind::ModuleComing
            | EventKind::ModuleGoing
            | EventKind::Printk
            | EventKind::OopsEnter
            | EventKind::Panic
            | EventKind::Warn
            | EventKind::AddTaint
            | EventKind::RcuStall
            | EventKind::HungTask => {}
        }
        effects.extend(self.klp_event(event));
        effects
    }

    fn collect(&self, moment: &Moment, values: &mut All) -> Outcome {
        let effects = match &values.patches.set {
            Some(set) => self.snapshot(values.patches.read_at, set),
            None => Vec::new(),
        };
        let state = lock(&self.state);
        let transitions = &state.machine.transitions;
        let running = state.machine.running(moment.now);
        let loaded = values.patches.set.iter().flat_map(|set| &set.patches);
        values.transitions = Values {
            stuck: running
                .as_ref()
                .is_some_and(|running| running.stuck(self.stuck_after)),
            running,
            start_unix_seconds: state.start_unix_seconds(),
            forced: loaded
                .filter_map(|patch| Some((patch.name.clone(), transitions.forced(&patch.name)?)))
                .collect(),
            totals: Some(transitions.totals()),
            last_failure: state.last_failure.clone(),
        };
        Outcome {
            effects,
            ..Outcome::default()
        }
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let values = &collected.values.transitions;
        let ended = lock(&self.ended).clone();
        out.counter(
            &TRANSITIONS,
            ends().map(|(direction, outcome)| {
                let count = ended.get(&(direction, outcome)).copied();
                ([direction.name(), outcome.name()], count.unwrap_or(0))
            }),
        )?;
        if let Some(totals) = values.totals {
            for (metric, total) in [
                (&ATTEMPTS, totals.attempts),
                (&SIGNALS, totals.signals),
                (&REVERSALS, totals.reversals),
                (&FORCES, totals.forces),
                (&LOAD_FAILURES, totals.load_failures),
            ] {
                out.counter(metric, [([], total)])?;
            }
        }
        let Some(set) = &collected.values.patches.set else {
            return Ok(());
        };
        let forced = values.forced.iter();
        out.gauge(
            &PATCH_FORCED,
            forced.map(|(patch, forced)| ([patch.as_str()], bit(*forced))),
        )?;
        let names = values.names(set);
        out.gauge(
            &TRANSITION_ACTIVE,
            names.iter().flat_map(|name| {
                Direction::ALL.map(|direction| {
                    let running = values.running_of(name);
                    let runs = running.is_some_and(|it| it.direction == direction);
                    ([*name, direction.name()], bit(runs))
                })
            }),
        )?;
        out.gauge(
            &TRANSITION_START,
            names.iter().filter_map(|name| {
                values.running_of(name)?;
                Some(([*name], values.start_unix_seconds?))
            }),
        )?;
        let in_force = || {
            let patches = set.patches.iter();
            patches.filter_map(|it| Some((it.name.as_str(), in_force(collected, it)?)))
        };
        out.gauge(
            &PATCHING_COMPLETE,
            in_force().filter_map(|(name, known)| Some(([name], known.since_unix_seconds?))),
        )?;
        out.gauge(
            &PATCHING_DURATION,
            in_force().filter_map(|(name, known)| Some(([name], known.took?.as_secs_f64()))),
        )?;
        Ok(())
    }
}

/// How a transition can end. Only enabling can be cancelled (klp_cancel_transition,
/// kernel/livepatch/transition.c).
fn ends() -> impl Iterator<Item = (Direction, transition::Outcome)> {
    let all = Direction::ALL
        .into_iter()
        .flat_map(|direction| transition::Outcome::ALL.map(|outcome| (direction, outcome)));
    all.filter(|end| *end != (Direction::Unpatch, transition::Outcome::Cancelled))
}

/// Since when a loaded patch is in force, according to the journal, provided that sysfs agrees.
pub(in crate::exporter) fn in_force<'a>(
    collected: &'a Collected<All>,
    patch: &Patch,
) -> Option<&'a InForce> {
    let running = collected.values.transitions.running_of(&patch.name);
    let rests = patch.enabled == Some(true) && running.is_none();
    let known = collected.moment.history.life.in_force(&patch.name);
    known.filter(|_| rests)
}
