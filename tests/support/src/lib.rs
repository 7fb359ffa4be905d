//! What the tests of the monitor and the VM scenarios share.
//!
//! [`http`] is for both. The rest, behind the feature `fakes`, is for tests that run
//! beside the monitor: a host made of files, the monitor as a process, a Prometheus.

pub mod http;

#[cfg(feature = "fakes")]
pub mod host;
#[cfg(feature = "fakes")]
pub mod process;
#[cfg(feature = "fakes")]
pub mod prometheus;
