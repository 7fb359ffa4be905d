//! Shows within a second whether a kernel livepatch is being applied, is stuck (on which
//! task, in which function, and why), or has crashed the machine.

pub mod bounded_read;
pub mod cli;
pub mod crash;
pub mod exporter;
pub mod host;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod prometheus_client;
pub mod replace_file;
pub mod sandbox;
pub mod set_aside;
pub mod stable_storage;
pub mod state_dir;
