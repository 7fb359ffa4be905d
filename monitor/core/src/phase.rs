//! The phases of a patch's life.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long after the end of a transition a crash counts as in its soak, unless the operator sets
/// another time.
pub const SOAK: Duration = Duration::from_secs(30 * 60);

/// A phase of a patch's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A livepatch module is being loaded and enabling it has not returned.
    Load,
    /// A transition was running.
    Transition,
    /// The last transition ended a short time ago.
    Soak,
    /// A patch is enabled.
    Patched,
    /// No patch is enabled, and that is proven.
    Unpatched,
    /// Cannot be determined from what is known.
    Unknown,
}

impl Phase {
    /// All, in the order they are exported.
    pub const ALL: [Self; 6] = [
        Self::Load,
        Self::Transition,
        Self::Soak,
        Self::Patched,
        Self::Unpatched,
        Self::Unknown,
    ];

    /// The phase as label `phase` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Transition => "transition",
            Self::Soak => "soak",
            Self::Patched => "patched",
            Self::Unpatched => "unpatched",
            Self::Unknown => "unknown",
        }
    }
}
