//! Says within a second whether a kernel livepatch is landing, is stuck (which
//! task, in which function, why), or has crashed the machine.

pub mod bounded_read;
pub mod cli;
pub mod crash;
pub mod exporter;
pub mod host;
pub mod kernel;
pub mod metrics;
pub mod prometheus_client;
pub mod sandbox;
pub mod state;
