//! The life of each livepatch within one boot: one fold for all sources.
//!
//! There are two sources: the journal ([`crate::journal::history`]) and the kernel's log
//! ([`crate::crash`]). Each translates what it reads into [`Step`]s, and both get the same answer
//! to the question in which [`Phase`] a moment falls. They differ in what they know:
//!
//! - The journal has a time for everything. A log may have none, and then nothing that depends
//!   on a time is claimed.
//! - The journal knows when a module's init has returned. The log does not: there a load ends
//!   with the line `starting patching transition`, and whether init is still running can be seen
//!   only in the crash's module list, where such a module is marked `+`.
//! - The journal has lists of everything that is loaded. A log has none, so a crash's report
//!   must prove that nothing is.

use std::time::Duration;

use crate::{
    phase::Phase,
    transition::{BootTime, Direction, Outcome, Transition},
};

/// Most patches that are tracked; a host has a handful.
const MAX_PATCHES: usize = 256;
/// A load without further events is taken to be over after this: no module's init takes that long,
/// and some ways to fail leave no trace.
const LOADING: Duration = Duration::from_secs(300);
/// CPUs may print and report out of order by this much. A clock that goes back further is not
/// trusted.
const OUT_OF_ORDER: Duration = Duration::from_secs(5);

/// How far a patch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its module is being loaded, and nothing is known of a transition.
    Loading,
    /// It is in transition.
    Transition,
    /// It is enabled and not in transition.
    Enabled,
    /// It is disabled and not in transition.
    Disabled,
    /// Enabling it has failed: it was never in force.
    Refused,
    /// The stage cannot be determined from what was seen.
    Unknown,
}

/// A patch that is in force: enabled, and not in transition.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// When the transition to it ended or, if that was not seen, since when it is known to be in
    /// force; in seconds since 1970, if the clock was known.
    pub since_unix_seconds: Option<f64>,
    /// How long the transition to it took, if start and end were seen.
    pub took: Option<Duration>,
}

/// A patch and how far it has come.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchLife {
    /// The livepatch, by its module's name.
    pub name: String,
    /// How far it has come.
    pub stage: Stage,
    /// Valid while the stage is [`Stage::Enabled`]; valid again if it turns out that the patch was
    /// enabled all the time.
    in_force: Option<InForce>,
    /// Whether the last list of loaded patches has it as enabled.
    listed: Option<bool>,
}

/// A module that is being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The patch, whose name is its module's.
    pub patch: String,
    /// When the load started, if known.
    pub since: Option<BootTime>,
}

impl Load {
    fn is_fresh(&self, now: Option<BootTime>) -> bool {
        age(self.since, now).is_none_or(|age| age <= LOADING)
    }
}

/// A transition that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When it ended; `None` if that was not seen.
    pub at: Option<BootTime>,
    /// Patch and direction; `None` if either is unknown.
    pub transition: Option<Transition>,
    /// How it ended; `None` if that was not seen.
    pub outcome: Option<Outcome>,
}

/// A moment, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct At {
    /// On the boot's own clock, or that of the log.
    pub boot: Option<BootTime>,
    /// In seconds since 1970.
    pub unix_seconds: Option<f64>,
}

/// Something that happened to a patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    /// Its module is being loaded.
    Load(&'a str),
    /// The kernel is about to enable it. It does so only while no transition runs
    /// (`__klp_enable_patch`, kernel/livepatch/core.c, 4.12 to 7.2).
    Enabling(&'a str),
    /// The load of its module has ended; whether it succeeded is not known yet.
    Loaded(&'a str),
    /// Enabling it has failed.
    Refused(&'a str),
    /// A transition is known to run.
    Started(Transition),
    /// The tasks that a transition waits for were signalled, so a transition is running.
    Signalled,
    /// A transition has ended.
    Ended {
        /// The patch, if known.
        patch: Option<&'a str>,
        /// Its direction, if known.
        direction: Option<Direction>,
        /// How it ended; `None` if that was not seen.
        outcome: Option<Outcome>,
        /// How long it took, if start and end were seen.
        took: Option<Duration>,
    },
    /// These patches are loaded and no others; whether each is enabled, if known.
    Listed(Vec<(&'a str, Option<bool>)>),
}

/// State of the patches of a boot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lifecycle {
    /// Ordered by the last step, the latest last.
    pub patches: Vec<PatchLife>,
    /// Modules being loaded, the latest last.
    pub loads: Vec<Load>,
    /// The running transition.
    pub transition: Option<Transition>,
    /// Whether a transition is running whose patch and direction are unknown.
    pub unnamed: bool,
    /// The transition that ended last.
    pub ended: Option<Ended>,
    /// Whether `patches` is all that is loaded.
    pub complete: bool,
}

/// The time from `since` to `now`; `None` if either is unknown or the clock has gone back.
#[must_use]
pub fn age(since: Option<BootTime>, now: Option<BootTime>) -> Option<Duration> {
    let (since, now) = (since?, now?);
    now.since(since).or_else(|| {
        let back = since.since(now)?;
        (back <= OUT_OF_ORDER).then_some(Duration::ZERO)
    })
}

impl Lifecycle {
    /// Applies what happened to the state of the patches.
    pub fn step(&mut self, at: At, step: Step<'_>) {
        match step {
            Step::Load(patch) => self.load(patch, at),
            Step::Enabling(patch) => {
                self.leave_transition(at);
                self.load(patch, at);
            }
            Step::Loaded(patch) => {
                self.loads.retain(|load| load.patch != patch);
                if let Some(known) = self.find(patch)
                    && known.stage == Stage::Loading
                {
                    known.stage = Stage::Unknown;
                }
            }
            Step::Refused(patch) => {
                self.loads.retain(|load| load.patch != patch);
                if self.is_in_transition(patch) {
                    self.transition = None;
                }
                self.set(patch, Stage::Refused);
            }
            Step::Started(transition) => {
                self.leave_transition(at);
                if let Some(patch) = &transition.patch {
                    self.set(patch, Stage::Transition);
                    self.forget_listed(patch);
                }
                self.transition = Some(transition);
            }
            Step::Signalled => self.unnamed = self.transition.is_none(),
            Step::Ended {
                patch,
                direction,
                outcome,
                took,
            } => self.end(at, patch, direction, outcome, took),
            Step::Listed(list) => self.list(at, &list),
        }
    }

    fn find(&mut self, patch: &str) -> Option<&mut PatchLife> {
        self.patches.iter_mut().find(|known| known.name == patch)
    }

    /// Adds a patch, or moves it to the end.
    fn set(&mut self, patch: &str, stage: Stage) {
        let known = self.patches.iter().position(|known| known.name == patch);
        let mut life = match known {
            Some(at) => self.patches.remove(at),
            None => PatchLife {
                name: patch.to_owned(),
                stage,
                in_force: None,
                listed: None,
            },
        };
        life.stage = stage;
        life.in_force = None;
        if self.patches.len() == MAX_PATCHES {
            self.patches.remove(0);
            self.complete = false;
        }
        self.patches.push(life);
    }

    fn load(&mut self, patch: &str, at: At) {
        self.loads.retain(|load| load.patch != patch);
        if self.loads.len() == MAX_PATCHES {
            self.loads.remove(0);
        }
        self.loads.push(Load {
            patch: patch.to_owned(),
            since: at.boot,
        });
        self.set(patch, Stage::Loading);
        self.forget_listed(patch);
    }

    /// The earlier list does not apply to what follows.
    fn forget_listed(&mut self, patch: &str) {
        if let Some(life) = self.find(patch) {
            life.listed = None;
        }
    }

    fn is_in_transition(&self, patch: &str) -> bool {
        let running = self.transition.as_ref();
        running.is_some_and(|running| running.patch.as_deref() == Some(patch))
    }

    /// Closes the running transition, if there is one, without its end having been seen.
    fn leave_transition(&mut self, at: At) {
        self.unnamed = false;
        if self.transition.take().is_some() {
            self.settle(at);
        }
    }

    /// Sets what was in transition, or may have been, to what the last list of loaded patches says:
    /// `enabled` is where a transition leads to.
    fn settle(&mut self, at: At) {
        for life in &mut self.patches {
            if matches!(life.stage, Stage::Transition | Stage::Unknown) {
                life.stage = match life.listed {
                    Some(true) => Stage::Enabled,
                    Some(false) => Stage::Disabled,
                    None => Stage::Unknown,
                };
                if life.stage == Stage::Enabled {
                    life.in_force.get_or_insert(InForce {
                        since_unix_seconds: at.unix_seconds,
                        took: None,
                    });
                }
            }
        }
    }

    fn end(
        &mut self,
        at: At,
        patch: Option<&str>,
        direction: Option<Direction>,
        outcome: Option<Outcome>,
        took: Option<Duration>,
    ) {
        self.unnamed = false;
        let running = self.transition.take();
        let is_other = running.as_ref().is_some_and(|running| {
            let names = running.patch.as_deref().zip(patch);
            names.is_some_and(|(one, other)| one != other)
        });
        if is_other {
            self.settle(at);
        }
        let running = running.filter(|_| !is_other);
        let direction = direction.or_else(|| Some(running.as_ref()?.direction));
        let patch = match patch {
            Some(patch) => Some(patch.to_owned()),
            None => running.as_ref().and_then(|running| running.patch.clone()),
        };
        match (&patch, direction, outcome) {
            (Some(patch), Some(direction), Some(Outcome::Completed | Outcome::Forced)) => {
                self.arrive(patch, direction, at, took);
            }
            (Some(patch), _, Some(Outcome::Cancelled)) => self.set(patch, Stage::Disabled),
            // The transition back follows.
            (Some(patch), _, Some(Outcome::Reversed)) => self.set(patch, Stage::Unknown),
            // The list of loaded patches shows how it ended.
            (Some(_), _, _) | (None, Some(Direction::Patch), _) => self.settle(at),
            (None, Some(Direction::Unpatch) | None, _) => self.doubt(),
        }
        // A patch whose first transition has ended is loaded.
        self.loads
            .retain(|load| Some(&load.patch) != patch.as_ref());
        let transition = patch.zip(direction).map(|(patch, direction)| Transition {
            start: running.and_then(|running| running.start),
            ..Transition::new(Some(patch), direction)
        });
        self.ended = Some(Ended {
            at: at.boot,
            transition,
            outcome,
        });
    }

    fn arrive(&mut self, patch: &str, direction: Direction, at: At, took: Option<Duration>) {
        self.set(
            patch,
            match direction {
                Direction::Patch => Stage::Enabled,
                Direction::Unpatch => Stage::Disabled,
            },
        );
        if let Some(life) = self.find(patch) {
            life.listed = Some(direction == Direction::Patch);
            life.in_force = (direction == Direction::Patch).then_some(InForce {
                since_unix_seconds: at.unix_seconds,
                took,
            });
        }
    }

    /// Handles that a patch was disabled, or may have been, and it is unknown which.
    fn doubt(&mut self) {
        for life in &mut self.patches {
            if matches!(life.stage, Stage::Enabled | Stage::Transition) {
                life.stage = Stage::Unknown;
                life.listed = None;
            }
        }
    }

    fn list(&mut self, at: At, list: &[(&str, Option<bool>)]) {
        let running = self.transition.clone();
        let nameless = self.unnamed || running.as_ref().is_some_and(|it| it.patch.is_none());
        let running = running.and_then(|running| running.patch);
        let loads = std::mem::take(&mut self.loads);
        let loads: Vec<Load> = loads
            .into_iter()
            .filter(|it| it.is_fresh(at.boot))
            .collect();
        self.patches.retain(|life| {
            list.iter().any(|(name, _)| *name == life.name)
                || running.as_ref() == Some(&life.name)
                || loads.iter().any(|load| load.patch == life.name)
        });
        self.loads = loads;
        self.complete = true;
        for (name, enabled) in list {
            if self.find(name).is_none() {
                self.set(name, Stage::Unknown);
            }
            let Some(life) = self.find(name) else {
                continue;
            };
            life.listed = *enabled;
            if running.as_deref() == Some(name) {
                continue;
            }
            life.stage = match enabled {
                Some(true) if life.stage == Stage::Enabled => Stage::Enabled,
                // It may be this one.
                Some(true) if nameless => Stage::Unknown,
                Some(true) => Stage::Enabled,
                Some(false) => Stage::Disabled,
                None => Stage::Unknown,
            };
            match life.stage {
                Stage::Enabled => {
                    life.in_force.get_or_insert(InForce {
                        since_unix_seconds: at.unix_seconds,
                        took: None,
                    });
                }
                Stage::Disabled => life.in_force = None,
                Stage::Loading | Stage::Transition | Stage::Refused | Stage::Unknown => {}
            }
        }
    }

    /// The patch whose module is being loaded.
    #[must_use]
    pub fn loading(&self, now: Option<BootTime>) -> Option<&str> {
        let load = self.loads.iter().rev().find(|load| load.is_fresh(now))?;
        Some(&load.patch)
    }

    /// Since when this patch is in force, if it is.
    #[must_use]
    pub fn in_force(&self, patch: &str) -> Option<&InForce> {
        let life = self.patches.iter().find(|life| life.name == patch)?;
        let in_force = life.in_force.as_ref();
        in_force.filter(|_| life.stage == Stage::Enabled)
    }

    /// Time from the end of the last transition to `now`.
    #[must_use]
    pub fn ended_before(&self, now: Option<BootTime>) -> Option<Duration> {
        age(self.ended.as_ref()?.at, now)
    }

    /// The phase that `now` falls in. `soak` is how long after the end of a transition the soak
    /// phase lasts.
    #[must_use]
    pub fn phase(&self, now: Option<BootTime>, soak: Duration) -> Phase {
        if self.loading(now).is_some() {
            return Phase::Load;
        }
        if self.transition.is_some() || self.unnamed {
            return Phase::Transition;
        }
        if self.ended.is_some() {
            match self.ended_before(now) {
                Some(ago) if ago <= soak => return Phase::Soak,
                Some(_) => {}
                None => return Phase::Unknown,
            }
        }
        let stages = || self.patches.iter().map(|life| life.stage);
        if stages().any(|stage| stage == Stage::Enabled) {
            return Phase::Patched;
        }
        let is_out_of_force = |stage| matches!(stage, Stage::Disabled | Stage::Refused);
        match self.complete && stages().all(is_out_of_force) {
            true => Phase::Unpatched,
            false => Phase::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
