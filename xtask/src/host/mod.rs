//! The machine that runs xtask: its paths, programs, packages, and HTTP to local ports.

pub(crate) mod engines;
pub(crate) mod http;
pub(crate) mod packages;
pub(crate) mod paths;
pub(crate) mod process;
pub(crate) mod prometheus_tools;
pub(crate) mod python;
pub(crate) mod server;
