//! Where a transition leads, and how it ended.

use serde::{Deserialize, Serialize};

/// Where a transition leads (`klp_target_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Tasks move to the patched code (`KLP_PATCHED`, 1; `KLP_TRANSITION_PATCHED` since 6.12).
    Patch,
    /// Tasks move back (`KLP_UNPATCHED`, 0).
    Unpatch,
}

impl Direction {
    /// Both, in the order they are exported.
    pub const ALL: [Self; 2] = [Self::Patch, Self::Unpatch];

    /// The direction as label `direction` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Unpatch => "unpatch",
        }
    }

    /// From the kernel's number: 1 patched, 0 unpatched, otherwise none.
    #[must_use]
    pub const fn from_target_state(state: i32) -> Option<Self> {
        match state {
            1 => Some(Self::Patch),
            0 => Some(Self::Unpatch),
            _ => None,
        }
    }

    /// The direction after a reversal.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Patch => Self::Unpatch,
            Self::Unpatch => Self::Patch,
        }
    }
}

/// How a transition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every task switched by itself.
    Completed,
    /// The opposite was written to `enabled` before the end.
    Reversed,
    /// An operator wrote `force` while it ran.
    Forced,
    /// Enabling failed between the start and the first attempt.
    Cancelled,
}

impl Outcome {
    /// All, in the order they are exported.
    pub const ALL: [Self; 4] = [
        Self::Completed,
        Self::Reversed,
        Self::Forced,
        Self::Cancelled,
    ];

    /// The outcome as label `outcome` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Reversed => "reversed",
            Self::Forced => "forced",
            Self::Cancelled => "cancelled",
        }
    }
}
