//! The journal's entries: one for each thing that happened.

use serde::{Deserialize, Serialize};

use crate::{
    crash::Signal,
    function_ref::FunctionRef,
    patch::{Patch, PatchSet},
    transition::{BootTime, Direction, Effect, Outcome, SavedState},
};

/// An entry and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimedEntry {
    /// When it happened, on the boot's own clock.
    pub time: BootTime,
    /// The same in seconds since 1970, by the wall clock when the entry was written.
    pub unix_seconds: Option<f64>,
    /// What happened at that time.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Something that happened in a boot, as the journal stores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Entry {
    /// The first entry of a boot.
    Boot {
        /// The boot's id (/proc/sys/kernel/random/boot_id).
        boot_id: String,
        /// The kernel's release (`uname -r`).
        release: String,
    },
    /// A monitor started: the first of this boot, or one after another that ended.
    Watching,
    /// The loaded livepatches after a change.
    Patches {
        /// All livepatches that are loaded; empty if there are none.
        patches: Vec<LoadedPatch>,
    },
    /// A livepatch module is being loaded; its init has not run.
    Load {
        /// The livepatch module that is being loaded.
        patch: String,
    },
    /// The load has ended; whether it succeeded is not known yet.
    Loaded {
        /// The livepatch module whose load has ended.
        patch: String,
    },
    /// A transition is known to run.
    Transition {
        /// The patch, if known.
        patch: Option<String>,
        /// Whether it patches or unpatches.
        direction: Direction,
        /// When it started, if known.
        start: Option<BootTime>,
    },
    /// A transition has ended, or is no longer there.
    Ended {
        /// The patch, if known.
        patch: Option<String>,
        /// Its direction, if known.
        direction: Option<Direction>,
        /// How it ended; `None` if that was not seen.
        outcome: Option<Outcome>,
        /// How long it took, in seconds, if start and end were seen.
        #[serde(default)]
        took_seconds: Option<f64>,
    },
    /// The kernel reported a crash signal.
    Signal {
        /// Which signal the kernel reported.
        signal: Signal,
        /// The kernel's own line.
        headline: String,
    },
    /// The monitor was asked to stop: the machine is shutting down cleanly, or an operator stopped
    /// the monitor.
    Stopped,
    /// State that a monitor continuing in this boot needs (format version 2).
    State(Saved),
}

/// State that must survive a restart of the monitor within the boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Start of the running transition in seconds since 1970, if known.
    pub start_unix_seconds: Option<f64>,
    /// The state machine of transitions.
    pub transitions: SavedState,
}

/// A livepatch that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedPatch {
    /// The livepatch's name, which is its module's.
    pub name: String,
    /// Whether it is enabled, if known.
    pub enabled: Option<bool>,
    /// Fingerprint of its build, if known.
    pub srcversion: Option<String>,
    /// The functions it replaces.
    pub functions: Vec<FunctionRef>,
}

/// Number of patches, and bytes of functions' names, that an entry has room for: it must fit a
/// frame.
const MAX_PATCHES: usize = 128;
const MAX_NAMES: usize = 24 << 10;

impl From<&PatchSet> for Entry {
    fn from(set: &PatchSet) -> Self {
        let mut room = MAX_NAMES;
        let patches = set.patches.iter().take(MAX_PATCHES);
        Self::Patches {
            patches: patches.map(|patch| loaded(patch, &mut room)).collect(),
        }
    }
}

fn loaded(patch: &Patch, room: &mut usize) -> LoadedPatch {
    let mut functions = Vec::new();
    for object in &patch.objects {
        for function in &object.functions {
            // As JSON, with the keys.
            let size = object.name.len() + function.name.len() + 32;
            let Some(left) = room.checked_sub(size) else {
                break;
            };
            *room = left;
            functions.push(FunctionRef {
                object: object.name.clone(),
                function: function.name.clone(),
            });
        }
    }
    LoadedPatch {
        name: patch.name.clone(),
        enabled: patch.enabled,
        srcversion: patch.srcversion.clone(),
        functions,
    }
}

/// Converts the steps of a transition that are recorded; the others are an error.
impl TryFrom<&Effect> for Entry {
    type Error = ();

    fn try_from(effect: &Effect) -> Result<Self, ()> {
        Ok(match effect {
            Effect::Started {
                patch,
                direction,
                start,
            }
            | Effect::Reversed {
                patch,
                direction,
                start,
            } => Self::Transition {
                patch: patch.clone(),
                direction: *direction,
                start: *start,
            },
            Effect::Ended {
                patch,
                direction,
                outcome,
                duration,
            } => Self::Ended {
                patch: patch.clone(),
                direction: Some(*direction),
                outcome: Some(*outcome),
                took_seconds: duration.map(|duration| duration.as_secs_f64()),
            },
            Effect::EndUnseen { patch, direction } => Self::Ended {
                patch: patch.clone(),
                direction: *direction,
                outcome: None,
                took_seconds: None,
            },
            Effect::LoadFailed {
                patch: Some(patch), ..
            } => Self::Loaded {
                patch: patch.clone(),
            },
            Effect::LoadFailed { patch: None, .. }
            | Effect::Forced { .. }
            | Effect::Signalled { .. } => return Err(()),
        })
    }
}
