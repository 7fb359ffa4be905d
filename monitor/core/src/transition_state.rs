//! The transition state machine with a number for the current segment, so that facts about one
//! segment are never shown for another.

use std::{ops::Deref, time::Duration};

use crate::{
    patch::PatchSet,
    transition::{Active, BootTime, Effect, KlpEvent, Transition, Transitions, Watching},
};

/// The state of transitions, fed by kernel events and snapshots of sysfs.
#[derive(Debug)]
pub struct TransitionState {
    /// The state machine that follows transitions.
    pub transitions: Transitions,
    watching: Watching,
    segment: u64,
}

/// A snapshot of the running transition, as a plain value. Dereferences to its [`Transition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// What is known about it.
    pub transition: Transition,
    /// How long it has run; `None` if its start is unknown.
    pub running_for: Option<Duration>,
    /// A lower bound of how long it has run: since its start, or since it was first seen.
    pub at_least: Duration,
    /// Rounds of signals sent, if known.
    pub signals: Option<u32>,
    /// Number of the segment within this process: each start, reversal or end increments it.
    pub segment: u64,
}

impl Deref for Running {
    type Target = Transition;

    fn deref(&self) -> &Transition {
        &self.transition
    }
}

impl Running {
    fn new(active: &Active, segment: u64, now: BootTime) -> Self {
        let running_for = active.age(now);
        Self {
            transition: Transition::clone(active),
            running_for,
            at_least: running_for.unwrap_or_else(|| active.known_for(now)),
            signals: active.signals(),
            segment,
        }
    }

    /// Whether it has run for at least `stuck_after`.
    #[must_use]
    pub fn stuck(&self, stuck_after: Duration) -> bool {
        self.at_least >= stuck_after
    }
}

impl TransitionState {
    /// The state before any event or snapshot.
    #[must_use]
    pub fn new(watching: Watching) -> Self {
        Self {
            transitions: Transitions::new(),
            watching,
            segment: 0,
        }
    }

    /// Applies a kernel event.
    pub fn event(&mut self, event: &KlpEvent) -> Vec<Effect> {
        let effects = self.transitions.event(event);
        self.count_segments(&effects);
        effects
    }

    /// Applies a snapshot of sysfs whose reading started at `time`.
    pub fn snapshot(&mut self, time: BootTime, patches: &PatchSet) -> Vec<Effect> {
        let effects = self.transitions.observe(time, patches, self.watching);
        self.count_segments(&effects);
        effects
    }

    fn count_segments(&mut self, effects: &[Effect]) {
        let is_another = effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Started { .. }
                    | Effect::Ended { .. }
                    | Effect::EndUnseen { .. }
                    | Effect::Reversed { .. }
            )
        });
        if is_another {
            self.segment += 1;
        }
    }

    /// The running transition, if any.
    #[must_use]
    pub fn running(&self, now: BootTime) -> Option<Running> {
        let active = self.transitions.active()?;
        Some(Running::new(active, self.segment, now))
    }
}

#[cfg(test)]
mod tests {
    use livepatch_monitor_ebpf::EventKind;

    use super::*;
    use crate::{patch::Patch, transition::Direction};

    const fn at(seconds: u64) -> BootTime {
        BootTime::from_nanos(seconds * 1_000_000_000)
    }

    fn event(seconds: u64, kind: EventKind, target: Direction) -> KlpEvent {
        KlpEvent {
            time: at(seconds),
            kind,
            patch: Some("fix".into()),
            target: Some(target),
            attempt: None,
            replace: None,
            object: None,
        }
    }

    #[test]
    fn each_segment_has_a_number_of_its_own() {
        let mut state = TransitionState::new(Watching::Probes);
        assert_eq!(state.running(at(1)), None);
        state.event(&event(100, EventKind::InitTransition, Direction::Patch));
        let first = state.running(at(101)).unwrap();
        assert_eq!(first.running_for, Some(Duration::from_secs(1)));
        state.event(&event(
            101,
            EventKind::TryCompleteTransition,
            Direction::Patch,
        ));
        assert_eq!(state.running(at(102)).unwrap().segment, first.segment);
        state.event(&event(103, EventKind::ReverseTransition, Direction::Patch));
        let second = state.running(at(104)).unwrap();
        assert_eq!(second.direction, Direction::Unpatch);
        assert!(second.segment > first.segment);
        state.event(&event(
            105,
            EventKind::CompleteTransition,
            Direction::Unpatch,
        ));
        assert_eq!(state.running(at(106)), None);
    }

    #[test]
    fn a_transition_of_unknown_start_is_as_old_as_our_knowledge() {
        let mut state = TransitionState::new(Watching::Probes);
        let patch = Patch {
            name: "fix".into(),
            enabled: Some(true),
            transition: Some(true),
            ..Patch::default()
        };
        let patches = PatchSet {
            supported: true,
            patches: vec![patch],
        };
        state.snapshot(at(50), &patches);
        let limit = Duration::from_secs(15);
        assert!(!state.running(at(64)).unwrap().stuck(limit));
        let running = state.running(at(65)).unwrap();
        assert!(running.stuck(limit) && running.running_for.is_none());
    }
}
