//! Determines from snapshots of sysfs whether what `wait` waits for has happened. Pure.

use serde::Serialize;

use crate::{
    patch::{Patch, PatchSet},
    transition::Direction,
};

/// Result of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The transition has completed; for a named patch: it is in force.
    Completed {
        /// The patch; `None` if no transition ran at all.
        patch: Option<String>,
    },
    /// The transition was reversed or cancelled.
    Reversed {
        /// The patch that was waited for.
        patch: String,
        /// Why, as the end of a sentence whose subject is the patch.
        why: String,
    },
    /// Its outcome cannot be determined.
    Unknown {
        /// Why it cannot be determined.
        why: String,
    },
}

/// The outcome as one word, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitOutcome {
    /// The patch is in force (see [`Waited::Completed`]).
    Completed,
    /// The time limit was reached, and the transition is still running.
    TimedOut,
    /// The transition was reversed or cancelled (see [`Waited::Reversed`]).
    Reversed,
    /// It cannot be determined (see [`Waited::Unknown`]).
    Unknown,
}

impl WaitOutcome {
    /// The exit code of `wait`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::TimedOut => 1,
            Self::Unknown => 2,
            Self::Reversed => 3,
        }
    }
}

/// What is waited for, and what was seen so far.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The patch that must come into force; `None` for any running transition.
    wanted: Option<String>,
    seen: Option<Seen>,
}

/// The transition that is waited for.
#[derive(Clone, Debug)]
struct Seen {
    patch: String,
    direction: Direction,
    /// The cumulative patches that were loaded, or might be cumulative.
    others: Vec<String>,
}

impl Waiting {
    /// Waits until this patch is in force, or for the transition that runs.
    #[must_use]
    pub const fn new(wanted: Option<String>) -> Self {
        Self { wanted, seen: None }
    }

    /// The transition that is waited for, once it was seen.
    #[must_use]
    pub fn running(&self) -> Option<(&str, Direction)> {
        let seen = self.seen.as_ref()?;
        Some((&seen.patch, seen.direction))
    }

    /// Processes the next snapshot; `None` if the transition is still running.
    pub fn look(&mut self, set: &PatchSet) -> Option<Waited> {
        if !set.supported {
            let why = "this kernel has no livepatch support".to_owned();
            return Some(Waited::Unknown { why });
        }
        match self.seen.clone() {
            Some(seen) => self.next(&seen, set),
            None => self.first(set),
        }
    }

    fn first(&mut self, set: &PatchSet) -> Option<Waited> {
        let patch = match &self.wanted {
            Some(name) => match set.get(name) {
                Some(patch) => patch,
                None => {
                    return Some(Waited::Unknown {
                        why: format!(
                            "{name} is not loaded: it was never loaded, or its transition was \
                             cancelled or reversed before this command ran"
                        ),
                    });
                }
            },
            None => match set.in_transition() {
                Some(patch) => patch,
                None => {
                    return Some(match unreadable(set.patches.iter()) {
                        Some(why) => Waited::Unknown { why },
                        None => Waited::Completed { patch: None },
                    });
                }
            },
        };
        let name = patch.name.clone();
        let (enabled, transition) = match facts(patch) {
            Ok(facts) => facts,
            Err(why) => return Some(Waited::Unknown { why }),
        };
        let wants_force = self.wanted.is_some();
        match (transition, enabled) {
            (false, true) => Some(Waited::Completed { patch: Some(name) }),
            (false, false) => Some(Waited::Reversed {
                patch: name,
                why: "is loaded and disabled".to_owned(),
            }),
            (true, false) if wants_force => Some(Waited::Reversed {
                patch: name,
                why: "is being unpatched".to_owned(),
            }),
            (true, enabled) => {
                let others = set.patches.iter().filter(|other| other.name != name);
                self.seen = Some(Seen {
                    patch: name.clone(),
                    direction: match enabled {
                        true => Direction::Patch,
                        false => Direction::Unpatch,
                    },
                    others: others.map(|other| other.name.clone()).collect(),
                });
                None
            }
        }
    }

    fn next(&self, seen: &Seen, set: &PatchSet) -> Option<Waited> {
        let patch = seen.patch.clone();
        let completed = || {
            let patch = Some(patch.clone());
            Some(Waited::Completed { patch })
        };
        let reversed = |why: &str| {
            let (patch, why) = (patch.clone(), why.to_owned());
            Some(Waited::Reversed { patch, why })
        };
        let Some(known) = set.get(&seen.patch) else {
            if seen.direction == Direction::Unpatch {
                return completed();
            }
            // A cumulative patch that was loaded later may have replaced it after it had completed.
            let newer = set
                .patches
                .iter()
                .find(|other| other.replace != Some(false) && !seen.others.contains(&other.name));
            return match newer {
                Some(newer) => Some(Waited::Unknown {
                    why: format!(
                        "{patch} is not loaded any more, and {} is: it may have replaced {patch} \
                         after that was in force",
                        newer.name
                    ),
                }),
                None => {
                    reversed("is not loaded any more: its transition was cancelled or reversed")
                }
            };
        };
        let (enabled, transition) = match facts(known) {
            Ok(facts) => facts,
            Err(why) => return Some(Waited::Unknown { why }),
        };
        match (seen.direction, enabled, transition) {
            (Direction::Patch, true, false) | (Direction::Unpatch, false, false) => completed(),
            (Direction::Patch, true, true) | (Direction::Unpatch, false, true) => None,
            (Direction::Patch, false, true) => reversed("was reversed and is being unpatched"),
            (Direction::Patch, false, false) => reversed("was reversed and is disabled"),
            (Direction::Unpatch, true, true) => reversed("was reversed and is being patched again"),
            (Direction::Unpatch, true, false) => reversed("was reversed and is in force again"),
        }
    }
}

/// `enabled` and `transition` of a patch.
fn facts(patch: &Patch) -> Result<(bool, bool), String> {
    patch.enabled.zip(patch.transition).ok_or_else(|| {
        format!(
            "cannot read `enabled` and `transition` of {}: run as root; kernels before 4.12 have \
             no `transition`",
            patch.name
        )
    })
}

fn unreadable<'a>(mut patches: impl Iterator<Item = &'a Patch>) -> Option<String> {
    patches.find_map(|patch| facts(patch).err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(name: &str, enabled: bool, transition: bool) -> Patch {
        Patch {
            name: name.to_owned(),
            enabled: Some(enabled),
            transition: Some(transition),
            ..Patch::default()
        }
    }

    fn set(patches: &[Patch]) -> PatchSet {
        PatchSet {
            supported: true,
            patches: patches.to_vec(),
        }
    }

    /// The outcome of these snapshots, and how many it took.
    fn outcome(wanted: Option<&str>, snapshots: &[PatchSet]) -> (usize, WaitOutcome) {
        let mut waiting = Waiting::new(wanted.map(str::to_owned));
        for (count, set) in snapshots.iter().enumerate() {
            let Some(waited) = waiting.look(set) else {
                continue;
            };
            let outcome = match waited {
                Waited::Completed { .. } => WaitOutcome::Completed,
                Waited::Reversed { .. } => WaitOutcome::Reversed,
                Waited::Unknown { .. } => WaitOutcome::Unknown,
            };
            return (count + 1, outcome);
        }
        (snapshots.len(), WaitOutcome::TimedOut)
    }

    #[test]
    fn a_named_patch_must_come_into_force() {
        let (gone, running) = (set(&[]), set(&[patch("fix", true, true)]));
        let (done, back) = (
            set(&[patch("fix", true, false)]),
            set(&[patch("fix", false, true)]),
        );
        let disabled = set(&[patch("fix", false, false)]);
        let named = |snapshots: &[&PatchSet]| {
            let snapshots: Vec<PatchSet> = snapshots.iter().map(|set| (*set).clone()).collect();
            outcome(Some("fix"), &snapshots)
        };
        assert_eq!(named(&[&done]), (1, WaitOutcome::Completed));
        assert_eq!(named(&[&running, &running]), (2, WaitOutcome::TimedOut));
        assert_eq!(named(&[&running, &done]), (2, WaitOutcome::Completed));
        assert_eq!(named(&[&running, &back]), (2, WaitOutcome::Reversed));
        assert_eq!(named(&[&running, &disabled]), (2, WaitOutcome::Reversed));
        assert_eq!(named(&[&running, &gone]), (2, WaitOutcome::Reversed));
        assert_eq!(named(&[&back]), (1, WaitOutcome::Reversed));
        assert_eq!(named(&[&disabled]), (1, WaitOutcome::Reversed));
        // It may have been reversed before, or was never loaded.
        assert_eq!(named(&[&gone]), (1, WaitOutcome::Unknown));
        // Replaced between two snapshots, perhaps after it was in force.
        let newer = set(&[patch("newer", true, true)]);
        assert_eq!(named(&[&running, &newer]), (2, WaitOutcome::Unknown));
        let beside = set(&[Patch {
            replace: Some(false),
            ..patch("newer", true, true)
        }]);
        assert_eq!(named(&[&running, &beside]), (2, WaitOutcome::Reversed));
        // A patch that was there before has replaced nothing.
        let old = patch("old", true, false);
        let with_old = set(&[patch("fix", true, true), old.clone()]);
        assert_eq!(
            named(&[&with_old, &set(&[old])]),
            (2, WaitOutcome::Reversed)
        );
    }

    #[test]
    fn any_transition_completes_in_its_direction() {
        let (gone, patching) = (set(&[]), set(&[patch("fix", true, true)]));
        let (unpatching, done) = (
            set(&[patch("fix", false, true)]),
            set(&[patch("fix", true, false)]),
        );
        let any = |snapshots: &[&PatchSet]| {
            let snapshots: Vec<PatchSet> = snapshots.iter().map(|set| (*set).clone()).collect();
            outcome(None, &snapshots)
        };
        assert_eq!(any(&[&gone]), (1, WaitOutcome::Completed));
        assert_eq!(any(&[&done]), (1, WaitOutcome::Completed));
        assert_eq!(any(&[&patching, &done]), (2, WaitOutcome::Completed));
        assert_eq!(any(&[&unpatching, &gone]), (2, WaitOutcome::Completed));
        assert_eq!(any(&[&unpatching, &done]), (2, WaitOutcome::Reversed));
        assert_eq!(any(&[&unpatching, &patching]), (2, WaitOutcome::Reversed));
        assert_eq!(any(&[&patching, &unpatching]), (2, WaitOutcome::Reversed));
        assert_eq!(any(&[&patching, &gone]), (2, WaitOutcome::Reversed));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let unreadable = set(&[Patch {
            name: "fix".to_owned(),
            enabled: Some(true),
            ..Patch::default()
        }]);
        for wanted in [None, Some("fix")] {
            let snapshots = [unreadable.clone()];
            assert_eq!(outcome(wanted, &snapshots), (1, WaitOutcome::Unknown));
            let snapshots = [set(&[patch("fix", true, true)]), unreadable.clone()];
            assert_eq!(outcome(wanted, &snapshots), (2, WaitOutcome::Unknown));
            assert_eq!(
                outcome(wanted, &[PatchSet::default()]),
                (1, WaitOutcome::Unknown)
            );
        }
    }
}
