//! The pure core of livepatch-monitor: values in, values out.
//!
//! Nothing here opens a file or a socket, or reads a clock or the environment: this package's
//! `clippy.toml` forbids it. The package `livepatch-monitor` reads the kernel and the disk, passes
//! what it read to this package, and acts on the result.

pub mod blockers;
pub mod boots;
pub mod crash;
pub mod degradation;
pub mod doctor;
pub mod function_ref;
pub mod gate;
pub mod in_force;
pub mod journal;
pub mod lifecycle;
pub mod message;
pub mod patch;
pub mod patch_version;
pub mod pending_tasks;
pub mod phase;
pub mod preflight;
pub mod transition;
pub mod transition_state;
pub mod updates;
pub mod waiting;
