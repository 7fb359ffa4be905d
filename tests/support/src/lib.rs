//! What the tests of the monitor and the VM scenarios share.
//!
//! [`http`] is for both, and for xtask. What is behind the feature `fakes` is for tests that run beside
//! the monitor: a host made of files, the monitor as a process, a Prometheus. `layers` reads
//! a package's sources.

use std::io::Write as _;

pub mod http;

#[cfg(feature = "fakes")]
pub mod host;
#[cfg(feature = "layers")]
pub mod layers;
#[cfg(feature = "fakes")]
pub mod process;
#[cfg(feature = "fakes")]
pub mod prometheus;

/// Says which part of the tests this machine cannot run, and why. A plain `cargo test`
/// shows it: unlike what `eprintln!` writes, it is not kept back for a test that passes.
pub fn left_out(what: &str, why: &str) {
    // Where standard error is closed nobody reads it.
    let _ = writeln!(std::io::stderr(), "left out: {what} ({why})");
}
