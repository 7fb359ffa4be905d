//! The life of each livepatch within one boot: one fold, whatever it is fed with.
//!
//! Two feeds know what happened: the journal ([`crate::journal::history`]) and the kernel's
//! log ([`crate::crash`]). Each turns what it reads into [`Step`]s, and both get the same
//! answer to the question in which [`Phase`] a moment falls. They differ in what they know:
//!
//! - The journal has a time for everything. A log may have none, and then nothing that
//!   depends on a time is claimed.
//! - The journal knows when a module's init has returned. The log does not: there a load is
//!   over with the line `starting patching transition`, and whether init still runs is a
//!   matter of the crash's module list, where such a module is marked `+`.
//! - The journal has lists of all that is loaded. A log has none, so that a crash's report
//!   has to prove that nothing is.

use std::time::Duration;

use crate::{
    phase::Phase,
    transition::{BootTime, Direction, Outcome, Transition},
};

/// Patches that are followed; a host has a handful.
const MAX_PATCHES: usize = 256;
/// A load of which nothing more is heard counts as over after this: no module's init
/// takes that long, and some ways to fail leave no trace.
const LOADING: Duration = Duration::from_secs(300);
/// CPUs may print and report out of order by this much. A clock that goes back further is
/// not to be trusted.
const OUT_OF_ORDER: Duration = Duration::from_secs(5);

/// How far a patch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its module is being loaded, and nothing is known of a transition.
    Loading,
    /// The running transition is its own.
    Transition,
    /// It is enabled and in no transition.
    Enabled,
    /// It is disabled and in no transition.
    Disabled,
    /// Enabling it has failed: it was never in force.
    Refused,
    /// The stage cannot be determined from what was seen.
    Unknown,
}

/// A patch that is in force: enabled, and in no transition.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// When the transition to it ended or, where that was not seen, since when it is
    /// known to be in force; in seconds since 1970, where the clock was known.
    pub since_unix_seconds: Option<f64>,
    /// How long the transition to it took, where start and end were seen.
    pub took: Option<Duration>,
}

/// A patch and how far it has come.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchLife {
    /// The livepatch, by its module's name.
    pub name: String,
    /// How far it has come.
    pub stage: Stage,
    /// Counts while the stage is [`Stage::Enabled`], and again if it turns out that it
    /// was so all the time.
    in_force: Option<InForce>,
    /// Whether the last list of what is loaded has it as enabled.
    listed: Option<bool>,
}

/// A module that is being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The patch, whose name is its module's.
    pub patch: String,
    /// Since when, where known.
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
    /// When it ended; `None` where that was not seen.
    pub at: Option<BootTime>,
    /// Which; `None` where its patch or its direction is not known.
    pub transition: Option<Transition>,
    /// How; `None` where that was not seen.
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
    /// The load of its module is over; whether it succeeded is not known yet.
    Loaded(&'a str),
    /// Enabling it has failed.
    Refused(&'a str),
    /// A transition is known to run.
    Started(Transition),
    /// The tasks that a transition waits for were signalled, so that one runs.
    Signalled,
    /// A transition has ended.
    Ended {
        /// The patch, where known.
        patch: Option<&'a str>,
        /// Where it led to, where known.
        direction: Option<Direction>,
        /// How; `None` where that was not seen.
        outcome: Option<Outcome>,
        /// How long it took, where start and end were seen.
        took: Option<Duration>,
    },
    /// These patches are loaded and no others; whether each is enabled, where known.
    Listed(Vec<(&'a str, Option<bool>)>),
}

/// The patches of a boot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lifecycle {
    /// The one of which something was learned last is the last.
    pub patches: Vec<PatchLife>,
    /// Modules being loaded, the latest last.
    pub loads: Vec<Load>,
    /// The transition that runs.
    pub transition: Option<Transition>,
    /// A transition runs, and neither its patch nor its direction is known.
    pub unnamed: bool,
    /// The transition that ended last.
    pub ended: Option<Ended>,
    /// Nothing is loaded but `patches`.
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

    /// What was listed before says nothing of what comes now.
    fn forget_listed(&mut self, patch: &str) {
        if let Some(life) = self.find(patch) {
            life.listed = None;
        }
    }

    fn is_in_transition(&self, patch: &str) -> bool {
        let running = self.transition.as_ref();
        running.is_some_and(|running| running.patch.as_deref() == Some(patch))
    }

    /// The running transition is over, if there is one: its end was not seen.
    fn leave_transition(&mut self, at: At) {
        self.unnamed = false;
        if self.transition.take().is_some() {
            self.settle(at);
        }
    }

    /// What was in transition, or may have been, is now what the last list of loaded
    /// patches says: `enabled` is where a transition leads to.
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
            // The way back follows.
            (Some(patch), _, Some(Outcome::Reversed)) => self.set(patch, Stage::Unknown),
            // How it ended shows in what is loaded.
            (Some(_), _, _) | (None, Some(Direction::Patch), _) => self.settle(at),
            (None, Some(Direction::Unpatch) | None, _) => self.doubt(),
        }
        // Its first transition over, a patch is loaded.
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

    /// A patch was disabled, or may have been, and it is not known which.
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

    /// How long before `now` the last transition ended.
    #[must_use]
    pub fn ended_before(&self, now: Option<BootTime>) -> Option<Duration> {
        age(self.ended.as_ref()?.at, now)
    }

    /// The phase that `now` falls in. `soak` is how long after the end of a transition its soak
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
