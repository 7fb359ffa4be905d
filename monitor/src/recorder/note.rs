//! What the recorder notes.

use serde::{Deserialize, Serialize};

use crate::{
    crash::Signal,
    livepatch::{
        Direction, Outcome,
        patch::{Patch, PatchSet},
        transition::BootTime,
    },
};

/// A note and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    /// When it happened, on the boot's own clock.
    pub time: BootTime,
    /// The same in seconds since 1970, as the wall clock stood when it was written.
    pub unix_seconds: Option<f64>,
    /// What.
    #[serde(flatten)]
    pub note: Note,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// The first of a boot.
    Boot {
        /// /proc/sys/kernel/random/boot_id.
        boot_id: String,
        /// The kernel's release.
        release: String,
    },
    /// A monitor begins to watch: the first, or another after it was ended.
    Watching,
    /// What is loaded now, after a change.
    Patches {
        /// All of them.
        patches: Vec<LoadedPatch>,
    },
    /// A livepatch module is being loaded; its init has not run.
    Load {
        /// The module.
        patch: String,
    },
    /// Its loading is over, for better or worse.
    Loaded {
        /// The module.
        patch: String,
    },
    /// A transition runs.
    Transition {
        /// The patch, where known.
        patch: Option<String>,
        /// Where to.
        direction: Direction,
        /// Since when, where known.
        start: Option<BootTime>,
    },
    /// It has ended.
    Ended {
        /// The patch, where known.
        patch: Option<String>,
        /// Where it led to, where known.
        direction: Option<Direction>,
        /// How; none where that was not seen.
        outcome: Option<Outcome>,
    },
    /// The kernel is unwell.
    Signal {
        /// What it said.
        signal: Signal,
        /// In its own words.
        headline: String,
    },
    /// The monitor was told to stop: the machine goes down in order, or an operator
    /// wants no monitor.
    Stopped,
}

/// A livepatch that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedPatch {
    /// Its name.
    pub name: String,
    /// Whether it is enabled, where known.
    pub enabled: Option<bool>,
    /// Its build's fingerprint, where known.
    pub srcversion: Option<String>,
    /// The functions it replaces.
    pub functions: Vec<ReplacedFunction>,
}

/// A function that a patch replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedFunction {
    /// `vmlinux` or the module.
    pub object: String,
    /// The function.
    pub function: String,
}

/// Functions noted of one patch: a note stays small.
const MAX_FUNCTIONS: usize = 256;

impl From<&Patch> for LoadedPatch {
    fn from(patch: &Patch) -> Self {
        let functions = patch.objects.iter().flat_map(|object| {
            object.functions.iter().map(|function| ReplacedFunction {
                object: object.name.clone(),
                function: function.name.clone(),
            })
        });
        Self {
            name: patch.name.clone(),
            enabled: patch.enabled,
            srcversion: patch.srcversion.clone(),
            functions: functions.take(MAX_FUNCTIONS).collect(),
        }
    }
}

impl From<&PatchSet> for Note {
    fn from(set: &PatchSet) -> Self {
        Self::Patches {
            patches: set.patches.iter().map(LoadedPatch::from).collect(),
        }
    }
}
