//! Tracks a transition from the kernel's events and from snapshots of sysfs.
//!
//! Events may be lost and names may be unknown; a snapshot may be older or newer than the events
//! around it. The rule is to report what is certain, to report the rest as unknown, and to count
//! each thing once.
//!
//! The klp_* functions of the transition run under `klp_mutex` (kernel/livepatch/core.c), so their
//! events come in the order in which things happened; only `module_free` is not under it.

mod direction;
mod display;
mod observe;
#[cfg(test)]
mod properties;
mod segments;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::time::Duration;

use livepatch_monitor_ebpf::EventKind;

pub use direction::{Direction, Outcome};
pub use display::{age, doing, progress};
pub use types::{
    Active, BootTime, Effect, KlpEvent, Origin, SIGNALS_TIMEOUT, SavedState, Totals, Transition,
    Watching, next_signals,
};

use observe::Snapshot;
use types::rounds;

/// How long events and snapshots may disagree before the snapshot is believed:
/// an event may still be on its way, or the snapshot may be the older of the two.
const SETTLE: Duration = Duration::from_secs(2);

/// The state machine. Pure: all times are arguments of the calls.
#[derive(Clone, Debug, Default)]
pub struct Transitions {
    active: Option<Active>,
    /// The last end that an event reported: the patch and the time.
    ended: Option<(Option<String>, BootTime)>,
    /// Patches whose enabling was requested (`klp_enable_patch`) and of which nothing more is known
    /// yet.
    requests: BTreeMap<String, BootTime>,
    /// Patches whose transition was forced.
    forced: BTreeMap<String, BootTime>,
    /// Patches that were watched for all of their life.
    watched: BTreeMap<String, BootTime>,
    /// The last event other than an attempt.
    last_change: Option<BootTime>,
    previous: Option<Snapshot>,
    totals: Totals,
}

/// Since `first`, for [`SETTLE`] at least.
fn lasting(first: BootTime, now: BootTime) -> bool {
    now.since(first).is_some_and(|span| span >= SETTLE)
}

/// Whether both names are known and differ.
fn differ(one: Option<&str>, other: Option<&str>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

impl Transitions {
    /// The state in which no transition and no patch is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues from what an earlier process of this boot saved. Until an event or a snapshot
    /// confirms it, the saved transition may have ended in the meantime.
    #[must_use]
    pub fn restore(saved: SavedState) -> Self {
        let active = saved.active.map(|saved| {
            let mut active =
                Active::new(None, saved.direction, Origin::Restored, BootTime::default());
            active.transition = saved;
            active.settled = false;
            active
        });
        Self {
            active,
            forced: saved.forced,
            watched: saved.watched,
            ..Self::default()
        }
    }

    /// The state that a later process needs to continue.
    #[must_use]
    pub fn save(&self) -> SavedState {
        SavedState {
            active: self.active.as_ref().map(|active| active.transition.clone()),
            forced: self.forced.clone(),
            watched: self.watched.clone(),
        }
    }

    /// The running transition.
    #[must_use]
    pub fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    /// Counters since this process began.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether a transition of this patch was forced: `Some(false)` only if the patch was watched
    /// from its first transition on, `None` if it was loaded before (the kernel's own `forced` flag
    /// cannot be read anywhere).
    #[must_use]
    pub fn forced(&self, patch: &str) -> Option<bool> {
        if self.forced.contains_key(patch) {
            Some(true)
        } else {
            self.watched.contains_key(patch).then_some(false)
        }
    }

    /// Sets the start of the running transition of `patch` from the kernel log. Ignored if a better
    /// start is known; returns whether it was used.
    ///
    /// The line to look for is the last `'X': starting … transition`: the kernel
    /// prints it at a reversal too (`klp_start_transition`).
    pub fn started_at(&mut self, patch: &str, time: BootTime) -> bool {
        match &mut self.active {
            Some(active)
                if active.start.is_none()
                    && active.patch.as_deref().is_none_or(|name| name == patch) =>
            {
                active.start = match active.origin {
                    // The log's clock differs slightly from this one.
                    Origin::Adopted if time <= active.since.plus(SETTLE) => {
                        Some(time.min(active.since))
                    }
                    Origin::Restored => Some(time),
                    _ => None,
                };
                active.start.is_some()
            }
            _ => false,
        }
    }

    /// Processes an event.
    pub fn event(&mut self, event: &KlpEvent) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_late(event) {
            return effects;
        }
        // Whether it is a change other than an attempt, under klp_mutex.
        let is_change = match event.kind {
            EventKind::EnablePatch => {
                self.requested(event, &mut effects);
                true
            }
            EventKind::InitTransition => {
                self.begin(event, &mut effects);
                true
            }
            EventKind::TryCompleteTransition => {
                self.attempt(event, &mut effects);
                false
            }
            EventKind::ReverseTransition => {
                self.reverse(event, &mut effects);
                true
            }
            EventKind::ForceTransition => {
                self.force(event, &mut effects);
                true
            }
            EventKind::CancelTransition => {
                self.cancel(event, &mut effects);
                true
            }
            EventKind::CompleteTransition => {
                self.complete(event, &mut effects);
                true
            }
            EventKind::FreePatch => {
                if let Some(name) = event.patch.as_deref() {
                    self.gone(name, &mut effects);
                }
                true
            }
            EventKind::ModuleFree => {
                if let Some(name) = event.object.as_deref().or(event.patch.as_deref()) {
                    self.refuse(name, &mut effects);
                    self.gone(name, &mut effects);
                }
                false
            }
            // Steps of the patch's objects.
            EventKind::PatchObject
            | EventKind::UnpatchObject
            | EventKind::ModuleComing
            | EventKind::ModuleGoing => true,
            // The patch's init has not run.
            EventKind::ModuleLoad => false,
            // A crash's events are no steps of a transition.
            EventKind::Printk
            | EventKind::OopsEnter
            | EventKind::Panic
            | EventKind::Warn
            | EventKind::AddTaint
            | EventKind::RcuStall
            | EventKind::HungTask => false,
        };
        if is_change {
            self.last_change = self.last_change.max(Some(event.time));
        }
        effects
    }

    /// Handles a request of a module to enable its patch. A module is loaded once at a time, so a
    /// second request means that the first failed.
    fn requested(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        if let Some(name) = &event.patch {
            self.refuse(name, effects);
            self.requests.insert(name.clone(), event.time);
        }
    }

    /// Counts an outstanding request of this patch as failed.
    fn refuse(&mut self, name: &str, effects: &mut Vec<Effect>) {
        if self.requests.remove(name).is_some() {
            self.totals.load_failures += 1;
            effects.push(Effect::LoadFailed {
                patch: Some(name.to_owned()),
                cancelled: false,
            });
        }
    }

    /// Removes the pending request for this patch. Without a name this is possible only if there is
    /// exactly one request.
    fn answered(&mut self, name: Option<&str>) {
        match name {
            Some(name) => {
                self.requests.remove(name);
            }
            None if self.requests.len() == 1 => self.requests.clear(),
            None => {}
        }
    }

    /// Handles that a patch or its module has been freed. Both happen only after the patch's
    /// transition, so the end of one that is still active was lost.
    fn gone(&mut self, name: &str, effects: &mut Vec<Effect>) {
        self.forced.remove(name);
        self.watched.remove(name);
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.patch.as_deref() == Some(name))
        {
            self.close(effects);
        }
    }

    fn begin(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        self.answered(event.patch.as_deref());
        if self.adopted_early(event) {
            if let (Some(active), Some(direction)) = (&mut self.active, event.target) {
                active.direction = direction;
                active.origin = Origin::Seen;
                active.start = Some(event.time);
                active.attempts = Some(0);
                active.signalled = Some(0);
                active.settled = true;
                active.opposed_since = None;
                active.vanished_since = None;
                // The snapshot from which it was adopted was stamped about now or later; the event
                // has the more accurate time.
                active.last = event.time;
            }
        } else {
            self.close(effects);
            // Without a direction nothing is certain; the first attempt or a snapshot shows it.
            let Some(direction) = event.target else {
                return;
            };
            let mut active = Active::new(event.patch.clone(), direction, Origin::Seen, event.time);
            active.start = Some(event.time);
            active.attempts = Some(0);
            active.signalled = Some(0);
            effects.push(Effect::Started {
                patch: active.patch.clone(),
                direction,
                start: active.start,
            });
            self.active = Some(active);
        }
        self.name_active(event.patch.as_deref(), event.time);
        self.watch_active(event.time);
    }

    /// Whether this start event was read after a snapshot had already shown the transition, which
    /// was adopted from that snapshot.
    fn adopted_early(&self, event: &KlpEvent) -> bool {
        self.active.as_ref().is_some_and(|active| {
            matches!(active.origin, Origin::Adopted | Origin::Seen)
                && active.attempts.is_none()
                && event.target.is_some()
                && !differ(active.patch.as_deref(), event.patch.as_deref())
                && event.time <= active.since.plus(SETTLE)
        })
    }

    fn attempt(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        self.totals.attempts += 1;
        if !self.reconcile(event, effects) {
            return;
        }
        let Some(active) = &mut self.active else {
            return;
        };
        let known = active.attempts;
        if let (Some(number), Some(known), true) =
            (event.attempt, known, active.signalled.is_some())
        {
            let lost = u64::from(number.saturating_sub(known));
            if lost <= active.plausible_gap(event.time) {
                self.totals.attempts += lost;
            }
        }
        self.failed(event, effects);
        if let Some(active) = &mut self.active {
            active.touch(event.time);
            active.attempts = event
                .attempt
                .or(known)
                .map(|number| number.saturating_add(1));
        }
    }

    /// All attempts before this event have failed, or the event would not have come. Those whose
    /// number requires signals have sent them.
    fn failed(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        let Some(active) = &mut self.active else {
            return;
        };
        let Some(failed) = event.attempt.or(active.attempts) else {
            return;
        };
        let now = rounds(failed);
        let before = active.signalled.replace(now);
        let jump = u64::from(failed.saturating_sub(active.attempts.unwrap_or(failed)));
        match before {
            Some(before) if now > before && jump <= active.plausible_gap(event.time) => {
                self.totals.signals += u64::from(now - before);
                effects.push(Effect::Signalled {
                    patch: active.patch.clone(),
                    rounds: now,
                });
            }
            _ => {}
        }
    }

    fn reverse(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        if self.reconcile(event, effects) {
            self.failed(event, effects);
            if let Some(active) = &mut self.active {
                active.touch(event.time);
            }
            self.turn(Some(event.time), event.time, Watching::Probes, effects);
        } else {
            self.totals.reversals += 1;
        }
    }

    fn force(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        self.totals.forces += 1;
        let mut patch = event.patch.clone();
        if self.reconcile(event, effects) {
            self.failed(event, effects);
            if let Some(active) = &mut self.active {
                active.touch(event.time);
                active.forced = true;
                patch.clone_from(&active.patch);
            }
        }
        if let Some(name) = &patch {
            self.forced.insert(name.clone(), event.time);
        }
        effects.push(Effect::Forced { patch });
    }

    fn cancel(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        // klp_cancel_transition does nothing unless the target is the patched state, so the target
        // need not be read.
        let event = KlpEvent {
            target: Some(Direction::Patch),
            ..event.clone()
        };
        self.reconcile(&event, effects);
        self.fail_active(event.time, effects);
    }

    /// Enabling the patch in transition has failed.
    fn fail_active(&mut self, time: BootTime, effects: &mut Vec<Effect>) {
        let Some(active) = &mut self.active else {
            return;
        };
        active.touch(time);
        active.cancelling = true;
        let patch = active.patch.clone();
        self.answered(patch.as_deref());
        self.totals.load_failures += 1;
        effects.push(Effect::LoadFailed {
            patch,
            cancelled: true,
        });
    }

    fn complete(&mut self, event: &KlpEvent, effects: &mut Vec<Effect>) {
        let other = self
            .active
            .as_ref()
            .is_some_and(|active| differ(active.patch.as_deref(), event.patch.as_deref()));
        if other {
            self.close(effects);
        }
        self.name_active(event.patch.as_deref(), event.time);
        self.correct_end(event, effects);

        let mut name = event.patch.clone();
        if let Some(active) = &mut self.active {
            active.touch(event.time);
            name.clone_from(&active.patch);
            self.end(event.time, effects);
        } else {
            effects.push(Effect::EndUnseen {
                patch: event.patch.clone(),
                direction: event.target,
            });
        }
        self.ended = Some((name, event.time));
    }
}
