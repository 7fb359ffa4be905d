//! Determines where one segment of a transition ends and the next begins, and what must have been
//! lost if an event does not fit the known segment.

use livepatch_monitor_ebpf::EventKind;

use crate::transition::{Direction, Outcome};

use super::types::{Active, BootTime, Effect, KlpEvent, Origin, Watching};
use super::{Transitions, differ, lasting};

impl Transitions {
    /// Handles an end whose event may be of the other direction: then something was lost before it.
    /// (A cancel always ends in the other direction: klp_cancel_transition sets the target before
    /// it completes.)
    pub(super) fn correct_end(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        let Some(active) = &mut self.active else {
            return;
        };
        let turned = event
            .target
            .is_some_and(|target| target != active.direction);
        if !turned || active.cancelling {
            return;
        }
        if active.origin == Origin::Restored && !active.settled {
            self.close(effects);
        } else if !active.settled {
            active.direction = active.direction.reversed();
        } else if active.origin == Origin::Seen
            && active.attempts == Some(0)
            && active.direction == Direction::Patch
        {
            // No attempt was made yet, so what was lost was not a reversal but the cancel, unless
            // so much time has passed that everything may be lost.
            if lasting(active.last, event.time) {
                self.close(effects);
            } else {
                self.fail_active(event.time, effects);
            }
        } else {
            self.turn(None, event.time, Watching::Probes, effects);
        }
    }

    /// Reconciles the active transition with an event of a running one: closes what cannot be
    /// running any more, and adopts what was unknown. `false` if the direction is unknown, so that
    /// there is none to adopt.
    pub(super) fn reconcile(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) -> bool {
        if let Some(active) = &mut self.active {
            let other = differ(active.patch.as_deref(), event.patch.as_deref());
            let turned = event
                .target
                .is_some_and(|target| target != active.direction);
            let cancel = event.kind == EventKind::CancelTransition;
            // The number only increases within a segment. At a cancel it is still that of the
            // transition before.
            let fell_back = !cancel
                && matches!((event.attempt, active.attempts), (Some(now), Some(made)) if now < made);
            let unconfirmed = active.origin == Origin::Restored && !active.settled;
            let late_cancel = cancel && (turned || active.attempts.is_some_and(|made| made > 0));
            let again = fell_back && event.target == Some(active.direction);
            if other
                || active.cancelling
                || late_cancel
                || again
                || (unconfirmed && (turned || fell_back))
            {
                self.close(effects);
            } else if turned && !active.settled {
                active.direction = active.direction.reversed();
            } else if turned || fell_back {
                self.turn(None, event.time, Watching::Probes, effects);
            }
        }
        if self.active.is_none() {
            let Some(direction) = event.target else {
                return false;
            };
            let active = Active::new(event.patch.clone(), direction, Origin::Adopted, event.time);
            effects.push(Effect::Started {
                patch: active.patch.clone(),
                direction,
                start: None,
            });
            self.active = Some(active);
        }
        if let Some(active) = &mut self.active {
            // An event of the patch confirms a restored transition even if it does not show the
            // direction.
            active.settled |= event.target.is_some() || active.origin == Origin::Restored;
            active.vanished_since = None;
            if event.target.is_some() {
                active.opposed_since = None;
            }
        }
        self.name_active(event.patch.as_deref(), event.time);
        true
    }

    /// Whether the event is older than a reversal that snapshots have shown and that is already
    /// counted. A reversal and the first attempt after it do not wake the monitor, so on a busy
    /// host they are read seconds later. The event of the reversal itself provides its time.
    pub(super) fn is_late(&mut self, event: &KlpEvent) -> bool {
        let Some(active) = &mut self.active else {
            return false;
        };
        let before = active.shown_since.is_some_and(|shown| event.time <= shown)
            && !differ(active.patch.as_deref(), event.patch.as_deref())
            && event.target.is_none_or(|target| target != active.direction);
        if !before {
            return false;
        }
        match event.kind {
            EventKind::TryCompleteTransition => {
                self.totals.attempts += 1;
                true
            }
            EventKind::ReverseTransition => {
                active.start = Some(event.time);
                active.since = event.time;
                active.last = event.time;
                active.shown_since = None;
                true
            }
            // They wake the monitor, or belong to no turn.
            EventKind::EnablePatch
            | EventKind::InitTransition
            | EventKind::CompleteTransition
            | EventKind::CancelTransition
            | EventKind::ForceTransition
            | EventKind::PatchObject
            | EventKind::UnpatchObject
            | EventKind::FreePatch
            | EventKind::ModuleComing
            | EventKind::ModuleGoing
            | EventKind::ModuleFree
            | EventKind::ModuleLoad
            | EventKind::Printk
            | EventKind::OopsEnter
            | EventKind::Panic
            | EventKind::Warn
            | EventKind::AddTaint
            | EventKind::RcuStall
            | EventKind::HungTask => false,
        }
    }

    pub(super) fn active_name(&self) -> Option<&str> {
        self.active
            .as_ref()
            .and_then(|active| active.patch.as_deref())
    }

    /// Records the name of the active transition's patch, applies to it what was known while it had
    /// no name, and removes the request to enable it.
    pub(super) fn name_active(&mut self, name: Option<&str>, time: BootTime) {
        let Some(name) = name else { return };
        self.answered(Some(name));
        let Some(active) = &mut self.active else {
            return;
        };
        if active.patch.is_none() {
            active.patch = Some(name.to_owned());
            if active.forced {
                self.forced.insert(name.to_owned(), time);
            }
            self.watch_active(time);
        }
    }

    /// Records that the patch is watched from its load on, if this is the first segment of enabling
    /// it.
    pub(super) fn watch_active(&mut self, time: BootTime) {
        let Some(active) = &self.active else { return };
        if let (Some(name), Origin::Seen, Direction::Patch) =
            (&active.patch, active.origin, active.direction)
        {
            if !active.forced {
                self.forced.remove(name);
            }
            self.watched.insert(name.clone(), time);
        }
    }

    /// Ends the current segment as reversed and starts the next. `start` is `None` if the reversal
    /// itself was not seen.
    pub(super) fn turn(
        &mut self,
        start: Option<BootTime>,
        now: BootTime,
        watching: Watching,
        effects: &mut Vec<Effect>,
    ) {
        let Some(old) = self.active.take() else {
            return;
        };
        self.totals.reversals += 1;
        effects.push(Effect::Ended {
            patch: old.patch.clone(),
            direction: old.direction,
            outcome: Outcome::Reversed,
            duration: start.and_then(|start| old.age(start)),
        });
        let direction = old.direction.reversed();
        effects.push(Effect::Reversed {
            patch: old.patch.clone(),
            direction,
            start,
        });
        let none_yet = (watching == Watching::Probes).then_some(0);
        let mut active = Active::new(old.transition.patch, direction, Origin::Reversed, now);
        active.start = start;
        active.attempts = none_yet;
        active.signalled = none_yet;
        self.active = Some(active);
    }

    /// Ends the active transition now.
    pub(super) fn end(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(active) = self.active.take() else {
            return;
        };
        let outcome = if active.cancelling {
            Outcome::Cancelled
        } else if active.forced {
            Outcome::Forced
        } else {
            Outcome::Completed
        };
        effects.push(Effect::Ended {
            duration: active.age(now),
            patch: active.transition.patch,
            direction: active.transition.direction,
            outcome,
        });
    }

    /// Ends the active transition, which ended some time ago. A cancel can only end in one way; for
    /// the others the outcome is unknown, and also whether they were forced.
    pub(super) fn close(&mut self, effects: &mut Vec<Effect>) {
        let Some(active) = self.active.take() else {
            return;
        };
        if let Some(name) = &active.patch {
            self.watched.remove(name);
        }
        effects.push(if active.cancelling {
            Effect::Ended {
                patch: active.transition.patch,
                direction: active.transition.direction,
                outcome: Outcome::Cancelled,
                duration: None,
            }
        } else {
            Effect::EndUnseen {
                patch: active.transition.patch,
                direction: Some(active.transition.direction),
            }
        });
    }
}
