//! What the notes of a boot come to: pure, one fold for the running boot and for one
//! that has ended.

use std::{collections::BTreeMap, time::Duration};

use crate::journal::entry::{Entry, LoadedPatch, TimedEntry};
use crate::{
    crash::{Last, Phase, Running, Signal, parser::Replaced},
    transition::{BootTime, Direction, Outcome},
};

/// Signals kept, the latest.
const MAX_SIGNALS: usize = 64;
/// A load of which nothing more is heard counts as over after this: no module's init
/// takes that long.
const LOADING: Duration = Duration::from_secs(300);

/// A crash signal that was noted.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalSeen {
    /// When.
    pub time: BootTime,
    /// When, in seconds since 1970.
    pub unix_seconds: Option<f64>,
    /// What.
    pub signal: Signal,
    /// In the kernel's words.
    pub headline: String,
    /// In which phase.
    pub phase: Phase,
}

/// A transition that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedTransition {
    /// When.
    pub time: BootTime,
    /// The patch, where known.
    pub patch: Option<String>,
    /// Where to, where known.
    pub direction: Option<Direction>,
    /// How; none where that was not seen.
    pub outcome: Option<Outcome>,
}

/// A transition that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningTransition {
    /// The patch, where known.
    pub patch: Option<String>,
    /// Where to.
    pub direction: Direction,
    /// Since when, where known.
    pub start: Option<BootTime>,
}

/// A patch that is in force: enabled, and in no transition.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// When the transition to it ended, or where that was not seen, since when it is
    /// known to be in force; in seconds since 1970, where the clock was known.
    pub since_unix_seconds: Option<f64>,
    /// How long the transition to it took, where start and end were seen.
    pub took: Option<Duration>,
}

/// A boot, as its journal entries describe it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The boot's id, once its first note is read.
    pub boot_id: Option<String>,
    /// The kernel's release.
    pub release: Option<String>,
    /// When the boot's first note was written, in seconds since 1970.
    pub began_unix_seconds: Option<f64>,
    /// The same on the boot's own clock.
    pub began: BootTime,
    /// The last note.
    pub last_time: BootTime,
    /// The last note, in seconds since 1970.
    pub last_unix_seconds: Option<f64>,
    /// Livepatch modules being loaded, and since when.
    pub loads: Vec<(String, BootTime)>,
    /// The transition that runs.
    pub transition: Option<RunningTransition>,
    /// The one that ended last.
    pub ended: Option<EndedTransition>,
    /// What is loaded; none if that was never noted.
    pub patches: Option<Vec<LoadedPatch>>,
    /// Which of them are in force, and since when.
    pub in_force: BTreeMap<String, InForce>,
    /// Crash signals; of more than 64 the latest.
    pub signals: Vec<SignalSeen>,
    /// Something else was noted after the last signal: the machine lived on.
    pub lived_on: bool,
    /// The monitor was stopped in order, and none has begun since.
    pub stopped: bool,
}

impl History {
    /// Takes a note in. `soak` is how long after a transition a signal counts as in
    /// its wake.
    pub fn take(&mut self, noted: &TimedEntry, soak: Duration) {
        let time = noted.time;
        self.last_time = self.last_time.max(time);
        if noted.unix_seconds.is_some() {
            self.last_unix_seconds = noted.unix_seconds;
        }
        self.stopped = matches!(noted.note, Entry::Stopped);
        if !matches!(noted.note, Entry::Signal { .. }) {
            self.lived_on = true;
        }
        match &noted.note {
            Entry::Boot { boot_id, release } => {
                self.boot_id = Some(boot_id.clone());
                self.release = Some(release.clone());
                self.began_unix_seconds = noted.unix_seconds;
                self.began = time;
            }
            Entry::Watching | Entry::Stopped => {}
            Entry::Patches { patches } => {
                self.patches = Some(patches.clone());
                self.in_force.retain(|name, _| {
                    let is_enabled = |patch: &LoadedPatch| patch.enabled != Some(false);
                    let patch = patches.iter().find(|patch| patch.name == *name);
                    patch.is_some_and(is_enabled)
                });
                self.find_in_force(noted.unix_seconds);
            }
            Entry::Load { patch } => {
                self.loads.retain(|(name, _)| name != patch);
                self.loads.push((patch.clone(), time));
            }
            Entry::Loaded { patch } => self.loads.retain(|(name, _)| name != patch),
            Entry::Transition {
                patch,
                direction,
                start,
            } => {
                if let Some(patch) = patch {
                    self.in_force.remove(patch);
                }
                self.transition = Some(RunningTransition {
                    patch: patch.clone(),
                    direction: *direction,
                    start: *start,
                });
            }
            Entry::Ended {
                patch,
                direction,
                outcome,
                took_seconds,
            } => {
                self.transition = None;
                match (patch, direction, outcome) {
                    (
                        Some(patch),
                        Some(Direction::Patch),
                        Some(Outcome::Completed | Outcome::Forced),
                    ) => {
                        let in_force = InForce {
                            since_unix_seconds: noted.unix_seconds,
                            took: took_seconds
                                .and_then(|took| Duration::try_from_secs_f64(took).ok()),
                        };
                        self.in_force.insert(patch.clone(), in_force);
                    }
                    // How it ended shows in what is loaded.
                    (_, _, None) => self.find_in_force(noted.unix_seconds),
                    _ => {}
                }
                // Its first transition over, a patch is loaded, but for the way back.
                self.loads.retain(|(name, _)| Some(name) != patch.as_ref());
                self.ended = Some(EndedTransition {
                    time,
                    patch: patch.clone(),
                    direction: *direction,
                    outcome: *outcome,
                });
            }
            Entry::Signal { signal, headline } => {
                let phase = self.phase(time, soak);
                if self.signals.len() == MAX_SIGNALS {
                    self.signals.remove(0);
                }
                self.signals.push(SignalSeen {
                    time,
                    unix_seconds: noted.unix_seconds,
                    signal: *signal,
                    headline: headline.clone(),
                    phase,
                });
                self.lived_on = false;
            }
        }
    }

    /// Enters patches whose way into force was not seen: they are in it by now.
    fn find_in_force(&mut self, now_unix_seconds: Option<f64>) {
        let running = self.transition.as_ref().map(|running| &running.patch);
        // A transition of nobody knows which patch may be that of any.
        if running == Some(&None) {
            return;
        }
        let enabled = self.patches.iter().flatten().filter(|patch| {
            patch.enabled == Some(true) && running != Some(&Some(patch.name.clone()))
        });
        for patch in enabled {
            self.in_force
                .entry(patch.name.clone())
                .or_insert_with(|| InForce {
                    since_unix_seconds: now_unix_seconds,
                    took: None,
                });
        }
    }

    /// Where in a patch's life a moment falls.
    #[must_use]
    pub fn phase(&self, now: BootTime, soak: Duration) -> Phase {
        if self.loading(now).is_some() {
            return Phase::Load;
        }
        if self.transition.is_some() {
            return Phase::Transition;
        }
        let ended = self.ended.as_ref();
        if ended.is_some_and(|ended| now.since(ended.time).is_none_or(|ago| ago <= soak)) {
            return Phase::Soak;
        }
        let Some(patches) = &self.patches else {
            return Phase::Unknown;
        };
        if patches.iter().any(|patch| patch.enabled == Some(true)) {
            Phase::Patched
        } else if patches.iter().any(|patch| patch.enabled.is_none()) {
            Phase::Unknown
        } else {
            Phase::Unpatched
        }
    }

    /// The livepatch whose module is being loaded.
    #[must_use]
    pub fn loading(&self, now: BootTime) -> Option<&str> {
        let fresh = |since: BootTime| now.since(since).is_none_or(|age| age <= LOADING);
        let (name, _) = self.loads.iter().rev().find(|(_, since)| fresh(*since))?;
        Some(name)
    }

    /// What the loaded patches replace.
    #[must_use]
    pub fn replaced(&self) -> Vec<Replaced> {
        let of_patch = |patch: &LoadedPatch| {
            let name = patch.name.clone();
            let functions = patch.functions.clone().into_iter();
            functions.map(move |function| Replaced {
                patch: name.clone(),
                function,
            })
        };
        let patches = self.patches.iter().flatten();
        patches.flat_map(of_patch).collect()
    }

    /// The transition that runs, as a crash record has it.
    #[must_use]
    pub fn running(&self, now: BootTime) -> Option<Running> {
        let transition = self.transition.as_ref()?;
        let age = transition.start.and_then(|start| now.since(start));
        Some(Running {
            patch: transition.patch.clone()?,
            direction: transition.direction,
            running_for_seconds: age.map(|age| age.as_secs_f64()),
        })
    }

    /// The transition that ended last, as a crash record has it.
    #[must_use]
    pub fn last(&self, now: BootTime) -> Option<Last> {
        let ended = self.ended.as_ref()?;
        Some(Last {
            patch: ended.patch.clone()?,
            direction: ended.direction?,
            ended_before_seconds: now.since(ended.time).map(|ago| ago.as_secs_f64()),
        })
    }
}

#[cfg(test)]
mod tests;
