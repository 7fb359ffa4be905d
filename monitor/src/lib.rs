//! Says within a second whether a kernel livepatch is landing, is stuck (which
//! task, in which function, why), or has crashed the machine.

pub mod cli;
pub mod crash;
pub mod exporter;
pub mod file;
pub mod gate;
pub mod host;
pub mod kernel;
pub mod livepatch;
pub mod metrics;
pub mod preflight;
pub mod recorder;
pub mod sandbox;
pub mod state;
