//! What a kernel's log tells of a crash: bytes in, [`CrashRecord`]s out. Pure: no
//! clock, file or socket. The text may come from anywhere (a console, a dump that
//! was cut, another host), so nothing in it is trusted: every line, name and list
//! has a limit, and what is not understood is skipped.

mod attribution;
pub mod boots;
pub mod capture;
pub mod counts;
pub mod dating;
pub mod display;
pub mod parser;
mod proof;
pub mod pstore;
mod record;
mod report;
mod signal;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use record::{
    CrashRecord, Evidence, EvidenceKind, Frame, Function, Implicated, Last, Marker, Module,
    NonFatalSignal, Patch, Precision, Running, When, merge,
};
use serde::{Deserialize, Serialize};
pub use signal::{KernelCounter, Kind, Signal};

/// How long after the end of a transition a crash counts as in its wake, unless
/// told otherwise.
pub const SOAK: Duration = Duration::from_secs(30 * 60);

/// Where in a patch's life a crash falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A livepatch module is being loaded and its enabling has not returned.
    Load,
    /// A transition runs.
    Transition,
    /// The last transition ended a short time ago.
    Soak,
    /// A patch is enabled.
    Patched,
    /// None is.
    Unpatched,
    /// The text does not tell.
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

    /// The label value.
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
