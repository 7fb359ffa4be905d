//! Parses what a kernel log says about a crash: bytes in, [`CrashRecord`]s out. Pure: no clock,
//! file or socket. The text may come from anywhere (a console, a dump that was cut, another host),
//! so nothing in it is trusted: every line, name and list has a limit, and what cannot be parsed is
//! skipped.

mod attribution;
pub mod capture;
pub mod counts;
pub mod display;
mod livepatch_log;
pub mod parser;
mod patch_transition;
mod proof;
pub mod pstore;
mod reading;
mod record;
mod signal;
mod when;

#[cfg(test)]
mod tests;

pub use crate::phase::{Phase, SOAK};
pub use patch_transition::PatchTransition;
pub use reading::Replaced;
pub use record::{
    CrashRecord, Evidence, EvidenceKind, Frame, Function, HostCrash, Implicated, Marker, Module,
    NonFatalSignal, Patch, Precision, When, merge,
};
pub use signal::{KernelCounter, Kind, Signal};
pub use when::{CLOCK_WRONG_SECONDS, DRIFT, NEVER_SET_BEFORE};
