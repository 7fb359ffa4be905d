//! What must hold whatever comes.

use super::*;
use crate::patch::{Patch, PatchSet};
use crate::transition::Outcome;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Event(KlpEvent),
    Observe(BootTime, PatchSet, Watching),
    Log(String, BootTime),
    Restart,
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn time() -> impl Strategy<Value = BootTime> {
    prop_oneof![
        (0u64..20_000).prop_map(|ms| BootTime::from_nanos(ms * 1_000_000)),
        any::<u64>().prop_map(BootTime::from_nanos),
    ]
}

fn direction() -> impl Strategy<Value = Option<Direction>> {
    prop::option::weighted(0.8, prop::sample::select(Direction::ALL.to_vec()))
}

fn event() -> impl Strategy<Value = KlpEvent> {
    (
        time(),
        prop::sample::select(EventKind::ALL.to_vec()),
        prop::option::weighted(0.8, name()),
        direction(),
        prop::option::of(prop_oneof![0u32..50, any::<u32>()]),
        prop::option::of(any::<bool>()),
        prop::option::of(name()),
    )
        .prop_map(
            |(time, kind, patch, target, attempt, replace, object)| KlpEvent {
                time,
                kind,
                patch,
                target,
                attempt,
                replace,
                object,
            },
        )
}

fn patch_set() -> impl Strategy<Value = PatchSet> {
    let patch = (name(), any::<Option<bool>>(), any::<Option<bool>>()).prop_map(
        |(name, enabled, transition)| Patch {
            name,
            enabled,
            transition,
            ..Patch::default()
        },
    );
    (
        prop::bool::weighted(0.9),
        prop::collection::vec(patch, 0..3),
    )
        .prop_map(|(supported, patches)| PatchSet { supported, patches })
}

fn step() -> impl Strategy<Value = Step> {
    let watching = prop::sample::select(vec![Watching::Probes, Watching::Snapshots]);
    prop_oneof![
        6 => event().prop_map(Step::Event),
        3 => (time(), patch_set(), watching).prop_map(|(at, set, how)| Step::Observe(at, set, how)),
        1 => (name(), time()).prop_map(|(name, at)| Step::Log(name, at)),
        1 => Just(Step::Restart),
    ]
}

/// Mostly in order, as real steps are.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    (
        prop::collection::vec(step(), 0..60),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(mut steps, ordered)| {
            if ordered {
                let key = |step: &Step| match step {
                    Step::Event(event) => event.time,
                    Step::Observe(at, ..) | Step::Log(_, at) => *at,
                    Step::Restart => BootTime::from_nanos(10_000_000_000),
                };
                steps.sort_by_key(key);
            }
            steps
        })
}

/// Follows the effects as a reader of the log would.
#[derive(Default)]
struct Reader {
    open: Option<Option<String>>,
    reversals: u64,
    forces: u64,
    load_failures: u64,
}

impl Reader {
    fn read(&mut self, effect: &Effect, now: Option<BootTime>) -> Result<(), TestCaseError> {
        match effect {
            Effect::Started { patch, .. } | Effect::Reversed { patch, .. } => {
                prop_assert!(self.open.is_none(), "two at once");
                self.open = Some(patch.clone());
                self.reversals += u64::from(matches!(effect, Effect::Reversed { .. }));
            }
            Effect::Ended {
                patch,
                outcome,
                duration,
                ..
            } => {
                let Some(name) = self.open.take() else {
                    return Err(TestCaseError::fail("an end without a start"));
                };
                prop_assert!(
                    name.is_none() || name == *patch,
                    "{name:?} ended as {patch:?}"
                );
                if let (Some(duration), Some(now)) = (duration, now) {
                    prop_assert!(*duration <= now.as_duration());
                }
                if *outcome == Outcome::Cancelled {
                    prop_assert!(self.load_failures > 0);
                }
            }
            Effect::EndUnseen { .. } => self.open = None,
            Effect::Forced { .. } => self.forces += 1,
            Effect::LoadFailed { .. } => self.load_failures += 1,
            Effect::Signalled { patch, rounds } => {
                prop_assert!(*rounds > 0);
                prop_assert!(self.open.is_some());
                let name = self.open.as_ref().and_then(Option::as_ref);
                prop_assert!(name.is_none() || name == patch.as_ref());
            }
        }
        Ok(())
    }
}

fn grown(before: Totals, after: Totals) -> bool {
    before.attempts <= after.attempts
        && before.signals <= after.signals
        && before.reversals <= after.reversals
        && before.forces <= after.forces
        && before.load_failures <= after.load_failures
}

/// Which of a life's events arrive: nearly none up to nearly all.
fn kept_events() -> impl Strategy<Value = Vec<bool>> {
    prop::sample::select(vec![0.05, 0.3, 0.7, 0.95])
        .prop_flat_map(|share| prop::collection::vec(prop::bool::weighted(share), 43))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_reads_as_a_story(steps in steps()) {
        let mut machine = Transitions::new();
        let mut reader = Reader::default();
        let (mut unlogged, mut cancelled_before) = (0, 0);
        for step in steps {
            let before = machine.totals();
            let (effects, now) = match step {
                Step::Event(event) => {
                    let effects = machine.event(&event);
                    let counted = machine.totals().reversals - before.reversals;
                    let logged = effects.iter().filter(|e| matches!(e, Effect::Reversed { .. })).count() as u64;
                    // A reversal of a transition without a direction has no line.
                    unlogged += counted - logged;
                    prop_assert!(counted == logged || event.target.is_none());
                    (effects, Some(event.time))
                }
                Step::Observe(at, set, watching) => (machine.observe(at, &set, watching), Some(at)),
                Step::Log(name, at) => { machine.started_at(&name, at); (Vec::new(), None) }
                Step::Restart => {
                    let active = machine.active().map(|a| (a.patch.clone(), a.direction, a.start, a.attempts));
                    let saved = machine.save();
                    machine = Transitions::restore(saved.clone());
                    prop_assert_eq!(machine.save(), saved);
                    prop_assert_eq!(machine.active().map(|a| (a.patch.clone(), a.direction, a.start, a.attempts)), active);
                    prop_assert_eq!(machine.totals(), Totals::default());
                    reader = Reader { open: reader.open, ..Reader::default() };
                    // A cancel under way was counted by the process before.
                    cancelled_before = u64::from(machine.active().is_some_and(|a| a.cancelling));
                    reader.load_failures = cancelled_before;
                    unlogged = 0;
                    continue;
                }
            };
            for effect in &effects {
                reader.read(effect, now)?;
            }
            prop_assert!(grown(before, machine.totals()));
            // Log and state agree.
            prop_assert_eq!(reader.open.is_some(), machine.active().is_some());
            let totals = machine.totals();
            prop_assert_eq!(totals.reversals, reader.reversals + unlogged);
            prop_assert_eq!(totals.forces, reader.forces);
            prop_assert_eq!(totals.load_failures, reader.load_failures - cancelled_before);
            if let Some(active) = machine.active() {
                prop_assert!(active.age(BootTime::from_nanos(u64::MAX)).is_some() == active.start.is_some());
            }
        }
    }

    /// A restart while the transition continues does not move its start, whenever
    /// and however often it happens.
    #[test]
    fn a_restart_keeps_the_start(begin in 0u64..1000, attempts in 1u32..40, restarts in prop::collection::vec(0u32..40, 0..4)) {
        let second = 1_000_000_000;
        let event = |kind, second_of: u64, attempt| KlpEvent {
            time: BootTime::from_nanos(second_of * second),
            kind,
            patch: Some("a".to_owned()),
            target: Some(Direction::Patch),
            attempt: Some(attempt),
            replace: None,
            object: None,
        };
        let set = PatchSet {
            supported: true,
            patches: vec![Patch { name: "a".to_owned(), enabled: Some(true), transition: Some(true), ..Patch::default() }],
        };
        let mut machine = Transitions::new();
        machine.event(&event(EventKind::InitTransition, begin, 0));
        let mut counted = 0;
        for attempt in 0..attempts {
            let now = begin + u64::from(attempt);
            machine.event(&event(EventKind::TryCompleteTransition, now, attempt));
            if restarts.contains(&attempt) {
                counted += machine.totals().attempts;
                machine = Transitions::restore(machine.save());
                let effects = machine.observe(BootTime::from_nanos(now * second + 1), &set, Watching::Probes);
                prop_assert_eq!(effects, vec![]);
            }
            prop_assert_eq!(machine.active().and_then(|a| a.start), Some(BootTime::from_nanos(begin * second)));
            prop_assert_eq!(machine.active().and_then(|a| a.attempts), Some(attempt + 1));
        }
        prop_assert_eq!(counted + machine.totals().attempts, u64::from(attempts));
        let end = machine.event(&event(EventKind::CompleteTransition, begin + u64::from(attempts), attempts));
        prop_assert_eq!(end, vec![Effect::Ended {
            patch: Some("a".to_owned()),
            direction: Direction::Patch,
            outcome: Outcome::Completed,
            duration: Some(Duration::from_secs(u64::from(attempts))),
        }]);
        prop_assert_eq!(machine.forced("a"), Some(false));
    }

    /// Any loss of events from a real course of a patch: what is reported stays true, and no more
    /// is counted than happened.
    #[test]
    fn losses_add_nothing(kept in kept_events()) {
        use Direction::{Patch as To, Unpatch as Back};
        let mut life = vec![(EventKind::EnablePatch, None, 0), (EventKind::InitTransition, Some(To), 0)];
        life.extend((0..18).map(|n| (EventKind::TryCompleteTransition, Some(To), n)));
        life.push((EventKind::ReverseTransition, Some(To), 18));
        life.extend((0..17).map(|n| (EventKind::TryCompleteTransition, Some(Back), n)));
        life.push((EventKind::ForceTransition, Some(Back), 17));
        life.push((EventKind::TryCompleteTransition, Some(Back), 17));
        life.push((EventKind::CompleteTransition, Some(Back), 17));
        life.push((EventKind::FreePatch, None, 0));
        life.push((EventKind::ModuleFree, None, 0));
        let mut machine = Transitions::new();
        let mut ends = Vec::new();
        for (second, ((kind, target, attempt), _)) in life.into_iter().zip(&kept).enumerate().filter(|(_, (_, kept))| **kept) {
            let effects = machine.event(&KlpEvent {
                time: BootTime::from_nanos(second as u64 * 1_000_000_000),
                kind,
                patch: Some("a".to_owned()),
                target,
                attempt: Some(attempt),
                replace: None,
                object: None,
            });
            ends.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Ended { direction, outcome, duration, .. } => Some((direction, outcome, duration)),
                _ => None,
            }));
        }
        let totals = machine.totals();
        prop_assert!(totals.attempts <= 36, "{totals:?}");
        prop_assert!(totals.signals <= 2, "{totals:?}");
        prop_assert!(totals.reversals <= 1 && totals.forces <= 1, "{totals:?}");
        for (direction, _, duration) in ends {
            // The lengths of the two segments.
            let real = Duration::from_secs(if direction == To { 19 } else { 20 });
            prop_assert!(duration.is_none_or(|d| d == real), "{direction:?} {duration:?}");
        }
    }
}
