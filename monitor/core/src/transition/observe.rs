//! What a snapshot of sysfs adds to the events, or shows instead of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::patch::{Patch, PatchSet};
use crate::transition::{Direction, Outcome};

use super::types::{Active, BootTime, Effect, Origin, Watching};
use super::{Transitions, differ, lasting};

/// How long after an end that an event reported sysfs may still show `transition` 1:
/// klp_complete_transition clears it last, after it waited for all CPUs and ran the callbacks.
const END_GRACE: Duration = Duration::from_secs(5);

/// Snapshots further apart than this bound neither a start nor an end.
const POLL_MAX: Duration = Duration::from_secs(5);

/// What was shown of each patch at the last look.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    time: BootTime,
    patches: BTreeMap<String, Shown>,
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    enabled: Option<bool>,
    transition: Option<bool>,
}

impl Snapshot {
    fn new(time: BootTime, set: &PatchSet) -> Self {
        let patches = set
            .patches
            .iter()
            .map(|patch| {
                let shown = Shown {
                    enabled: patch.enabled,
                    transition: patch.transition,
                };
                (patch.name.clone(), shown)
            })
            .collect();
        Self { time, patches }
    }

    /// The direction in which the patch can leave the state it was in: only an
    /// enabled one can be disabled, and only one that is not enabled can be
    /// enabled. `None` if a transition of it ran already.
    fn way_out(&self, name: &str) -> Option<Direction> {
        match self.patches.get(name) {
            None => Some(Direction::Patch),
            Some(Shown {
                enabled: Some(enabled),
                transition: Some(false),
            }) => Some(direction_of(!enabled)),
            Some(_) => None,
        }
    }

    fn was_still(&self, name: &str) -> bool {
        self.patches
            .get(name)
            .is_none_or(|shown| shown.transition == Some(false))
    }

    fn is_recent(&self, now: BootTime) -> bool {
        now.since(self.time).is_some_and(|span| span <= POLL_MAX)
    }
}

/// `enabled` is the state that a running transition leads to. Only from
/// klp_init_transition to klp_start_transition (callbacks run in between) does it
/// still show the old one.
const fn direction_of(enabled: bool) -> Direction {
    if enabled {
        Direction::Patch
    } else {
        Direction::Unpatch
    }
}

/// Surely not in transition.
fn still(set: &PatchSet, name: &str) -> bool {
    set.get(name)
        .is_none_or(|patch| patch.transition == Some(false))
}

impl Transitions {
    /// Takes a snapshot in; `now` is the time at which its reading began. One
    /// that could not be read (`supported` is false) says nothing.
    ///
    /// With [`Watching::Probes`] an unknown transition is adopted at once, but
    /// one known from events is given up only after the snapshots have denied it
    /// for two seconds: the event of its end may be on its way.
    ///
    /// With [`Watching::Snapshots`] times are those of the snapshots, and so
    /// late by up to one interval.
    pub fn observe(&mut self, now: BootTime, set: &PatchSet, watching: Watching) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !set.supported {
            return effects;
        }
        let shown = match self.active_name().and_then(|name| set.get(name)) {
            Some(patch) if patch.transition == Some(true) => Some(patch),
            _ => set.in_transition(),
        };
        self.confirm_restored(shown, set, &mut effects);
        let same = match (&self.active, shown) {
            (Some(active), Some(patch)) => {
                !differ(active.patch.as_deref(), Some(patch.name.as_str()))
            }
            _ => false,
        };
        if let (Some(patch), true) = (shown, same) {
            self.name_active(Some(&patch.name), now);
            self.compare_direction(now, patch, watching, &mut effects);
        } else if self.active.is_some() {
            if self.denied(shown, set) {
                self.vanish(now, shown, set, watching, &mut effects);
            }
        } else if let Some(patch) = shown {
            self.adopt(now, patch, watching, &mut effects);
        } else if watching == Watching::Snapshots {
            self.between(now, set, &mut effects);
        }
        self.expire_requests(now, set, &mut effects);
        self.forget(now, set);
        self.previous = Some(Snapshot::new(now, set));
        effects
    }

    /// At the first look after a restart: is the saved transition still there?
    fn confirm_restored(
        &mut self,
        shown: Option<&Patch>,
        set: &PatchSet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(active) = &mut self.active else {
            return;
        };
        if active.origin != Origin::Restored || active.settled {
            return;
        }
        let lives = match shown {
            Some(patch) => {
                !differ(active.patch.as_deref(), Some(patch.name.as_str()))
                    && patch
                        .enabled
                        .is_none_or(|enabled| direction_of(enabled) == active.direction)
            }
            None => false,
        };
        if lives {
            active.settled = true;
        } else if shown.is_some() || self.denied(shown, set) {
            self.close(effects);
        }
    }

    /// The snapshot says that the active transition does not run.
    fn denied(&self, shown: Option<&Patch>, set: &PatchSet) -> bool {
        match self.active_name() {
            // The kernel runs one at a time.
            _ if shown.is_some() => true,
            Some(name) => still(set, name),
            None => set
                .patches
                .iter()
                .all(|patch| patch.transition == Some(false)),
        }
    }

    /// The active transition is shown: does `enabled` agree with its direction?
    fn compare_direction(
        &mut self,
        now: BootTime,
        patch: &Patch,
        watching: Watching,
        effects: &mut Vec<Effect>,
    ) {
        let Some(active) = &mut self.active else {
            return;
        };
        if now < active.last {
            return;
        }
        active.vanished_since = None;
        let Some(enabled) = patch.enabled else { return };
        if direction_of(enabled) == active.direction {
            active.opposed_since = None;
            active.settled = true;
            return;
        }
        // Before the first attempt it may be the old one still.
        if watching == Watching::Probes && active.attempts == Some(0) {
            return;
        }
        let first = *active.opposed_since.get_or_insert(now);
        match watching {
            // `enabled` was right already, so it was flipped.
            Watching::Snapshots if active.settled => {
                self.turn(Some(now), now, watching, effects);
            }
            _ if lasting(first, now) => {
                self.turn(None, now, watching, effects);
                if let Some(active) = &mut self.active {
                    // The first snapshot was read some time after it began, and the turn may
                    // have come in between.
                    active.shown_since = (watching == Watching::Probes).then_some(now);
                }
            }
            _ => {}
        }
    }

    /// The active transition is not shown.
    fn vanish(
        &mut self,
        now: BootTime,
        shown: Option<&Patch>,
        set: &PatchSet,
        watching: Watching,
        effects: &mut Vec<Effect>,
    ) {
        let Some(active) = &mut self.active else {
            return;
        };
        match watching {
            Watching::Snapshots => self.end_shown(now, set, effects),
            Watching::Probes if now < active.last => return,
            Watching::Probes => {
                let first = *active.vanished_since.get_or_insert(now);
                if !lasting(first, now) {
                    return;
                }
                self.close(effects);
            }
        }
        if let Some(patch) = shown {
            self.adopt(now, patch, watching, effects);
        }
    }

    /// Without probes: the active transition has ended between two snapshots. It
    /// was completed if the patch is left in the state it was to reach.
    fn end_shown(&mut self, now: BootTime, set: &PatchSet, effects: &mut Vec<Effect>) {
        let recent = self
            .previous
            .as_ref()
            .is_some_and(|previous| previous.is_recent(now));
        let Some(active) = &mut self.active else {
            return;
        };
        let reached = active.patch.as_deref().is_some_and(|name| {
            let enabled = set.get(name).map(|patch| patch.enabled);
            match active.direction {
                Direction::Patch => enabled == Some(Some(true)),
                Direction::Unpatch => matches!(enabled, None | Some(Some(false))),
            }
        });
        if active.cancelling || !reached {
            self.close(effects);
            return;
        }
        if !recent {
            active.start = None;
        }
        // It may have been forced unseen.
        if let Some(name) = &active.patch {
            self.watched.remove(name);
        }
        self.end(now, effects);
    }

    /// An unknown transition is shown.
    fn adopt(
        &mut self,
        now: BootTime,
        patch: &Patch,
        watching: Watching,
        effects: &mut Vec<Effect>,
    ) {
        let just_ended = self.ended.as_ref().is_some_and(|(name, time)| {
            !differ(name.as_deref(), Some(patch.name.as_str())) && now < time.plus(END_GRACE)
        });
        // Shown at rest since then, it has ended for good: this is another one.
        let rested = self
            .undisturbed()
            .is_some_and(|before| before.time <= now && before.was_still(&patch.name));
        if just_ended && !rested {
            return;
        }
        let by_flag = patch.enabled.map(direction_of);
        let before = self.undisturbed();
        let Some(direction) = before
            .and_then(|before| before.way_out(&patch.name))
            .or(by_flag)
        else {
            return;
        };
        let start = before
            .filter(|before| {
                watching == Watching::Snapshots
                    && before.is_recent(now)
                    && before.was_still(&patch.name)
            })
            .map(|_| now);
        let origin = if start.is_some() {
            Origin::Seen
        } else {
            Origin::Adopted
        };
        let mut active = Active::new(Some(patch.name.clone()), direction, origin, now);
        active.start = start;
        active.settled = by_flag == Some(direction);
        active.opposed_since = by_flag.filter(|flag| *flag != direction).map(|_| now);
        effects.push(Effect::Started {
            patch: active.patch.clone(),
            direction,
            start,
        });
        self.active = Some(active);
    }

    /// The last snapshot, if no event has reported an end since.
    fn undisturbed(&self) -> Option<&Snapshot> {
        self.previous.as_ref().filter(|previous| {
            self.ended
                .as_ref()
                .is_none_or(|(_, time)| *time < previous.time)
        })
    }

    /// Without probes and if no transition runs: the transitions that began and ended between the
    /// last snapshot and this one.
    fn between(&mut self, now: BootTime, set: &PatchSet, effects: &mut Vec<Effect>) {
        let Some(before) = self.undisturbed().filter(|before| before.time <= now) else {
            return;
        };
        let mut passed: Vec<(String, Direction)> = set
            .patches
            .iter()
            .filter(|patch| patch.enabled == Some(true) && patch.transition == Some(false))
            .filter(|patch| before.way_out(&patch.name) == Some(Direction::Patch))
            .map(|patch| (patch.name.clone(), Direction::Patch))
            .collect();
        // A patch that went while another came may have been replaced: no
        // transition of its own. (While one was in transition, `active` was set.)
        if passed.is_empty()
            && set
                .patches
                .iter()
                .all(|patch| before.patches.contains_key(&patch.name))
        {
            passed = before
                .patches
                .iter()
                .filter(|(name, _)| before.way_out(name) == Some(Direction::Unpatch))
                .filter(|(name, _)| {
                    set.get(name).is_none_or(|patch| {
                        patch.enabled == Some(false) && patch.transition == Some(false)
                    })
                })
                .map(|(name, _)| (name.clone(), Direction::Unpatch))
                .collect();
        }
        for (name, direction) in passed {
            let patch = Some(name);
            effects.push(Effect::Started {
                patch: patch.clone(),
                direction,
                start: None,
            });
            effects.push(Effect::Ended {
                patch,
                direction,
                outcome: Outcome::Completed,
                duration: None,
            });
        }
    }

    /// Requests that failed, where `module_free` does not report it or the module stays loaded all
    /// the same. A request may wait for `klp_mutex`, so there must be quiet: other events hold it.
    fn expire_requests(&mut self, now: BootTime, set: &PatchSet, effects: &mut Vec<Effect>) {
        self.requests.retain(|name, time| {
            now < *time
                || !set.get(name).is_some_and(|patch| {
                    patch.enabled == Some(true) || patch.transition == Some(true)
                })
        });
        if self.last_change.is_some_and(|last| !lasting(last, now)) {
            return;
        }
        let expired: Vec<String> = self
            .requests
            .iter()
            .filter(|(name, time)| lasting(**time, now) && set.get(name).is_none())
            .filter(|(name, _)| self.active_name() != Some(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in expired {
            self.refuse(&name, effects);
        }
    }

    /// Drops what was remembered of patches that are no more.
    fn forget(&mut self, now: BootTime, set: &PatchSet) {
        let active = self.active.as_ref().and_then(|active| active.patch.clone());
        let lives = |name: &String, time: &mut BootTime| {
            set.get(name).is_some() || active.as_ref() == Some(name) || !lasting(*time, now)
        };
        self.forced.retain(lives);
        self.watched.retain(lives);
    }
}
