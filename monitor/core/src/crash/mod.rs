//! What a kernel's log tells of a crash: bytes in, [`CrashRecord`]s out. Pure: no
//! clock, file or socket. The text may come from anywhere (a console, a dump that
//! was cut, another host), so nothing in it is trusted: every line, name and list
//! has a limit, and what is not understood is skipped.

mod attribution;
pub mod boots;
pub mod capture;
pub mod counts;
pub mod display;
pub mod parser;
pub mod pstore;
mod record;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use record::{
    CrashRecord, Evidence, EvidenceKind, Frame, Function, Implicated, Last, Marker, Module,
    NonFatalSignal, Patch, Precision, Running, When, merge,
};
use serde::{Deserialize, Serialize};

/// How long after the end of a transition a crash counts as in its wake, unless
/// told otherwise.
pub const SOAK: Duration = Duration::from_secs(30 * 60);

/// Something that the kernel says when it is unwell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// `BUG: Bad page state`, `Bad page map`.
    BadPage,
    /// `WARNING:` of WARN().
    Warning,
    /// An RCU stall.
    RcuStall,
    /// A task blocked for too long.
    HungTask,
    /// A CPU that does not schedule.
    SoftLockup,
    /// A CPU that takes no interrupt.
    HardLockup,
    /// A fault in kernel code.
    Oops,
    /// A fatal machine check.
    MachineCheck,
    /// The kernel gave up.
    Panic,
}

impl Signal {
    /// All, the least severe first.
    pub const ALL: [Self; 9] = [
        Self::BadPage,
        Self::Warning,
        Self::RcuStall,
        Self::HungTask,
        Self::SoftLockup,
        Self::HardLockup,
        Self::Oops,
        Self::MachineCheck,
        Self::Panic,
    ];

    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadPage => "bad_page",
            Self::Warning => "warning",
            Self::RcuStall => "rcu_stall",
            Self::HungTask => "hung_task",
            Self::SoftLockup => "soft_lockup",
            Self::HardLockup => "hard_lockup",
            Self::Oops => "oops",
            Self::MachineCheck => "machine_check",
            Self::Panic => "panic",
        }
    }

    /// The crash that this signal is by itself: a warning, an RCU stall or a bad
    /// page is none, unless the kernel panics over it.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::BadPage | Self::Warning | Self::RcuStall => None,
            Self::HungTask => Some(Kind::HungTask),
            Self::SoftLockup => Some(Kind::SoftLockup),
            Self::HardLockup => Some(Kind::HardLockup),
            Self::Oops => Some(Kind::Oops),
            Self::MachineCheck => Some(Kind::MachineCheck),
            Self::Panic => Some(Kind::Panic),
        }
    }
}

/// What a crash is called. Where the kernel panics *because* of another signal the
/// cause is the kind, since it says more: an oops with `panic_on_oops` is an oops,
/// `softlockup: hung tasks` a soft lockup. A panic of its own (sysrq-c), or over a
/// warning, an RCU stall or a bad page, is a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// See [`Signal::Panic`].
    Panic,
    /// See [`Signal::Oops`].
    Oops,
    /// See [`Signal::HardLockup`].
    HardLockup,
    /// See [`Signal::SoftLockup`].
    SoftLockup,
    /// See [`Signal::HungTask`].
    HungTask,
    /// See [`Signal::MachineCheck`].
    MachineCheck,
    /// The boot ended without a word. No text tells it.
    Reset,
}

impl Kind {
    /// All, in the order they are exported.
    pub const ALL: [Self; 7] = [
        Self::Panic,
        Self::Oops,
        Self::HardLockup,
        Self::SoftLockup,
        Self::HungTask,
        Self::MachineCheck,
        Self::Reset,
    ];

    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Oops => "oops",
            Self::HardLockup => "hard_lockup",
            Self::SoftLockup => "soft_lockup",
            Self::HungTask => "hung_task",
            Self::MachineCheck => "machine_check",
            Self::Reset => "reset",
        }
    }
}

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
