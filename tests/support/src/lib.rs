//! What the tests of the monitor and the VM scenarios share.
//!
//! [`http`] is for both, and for xtask. The feature `fakes` is for tests that run on the same machine as
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

/// Reports which part of the tests this machine cannot run, and why. A plain `cargo test` shows it:
/// unlike output of `eprintln!`, it is not captured for a test that passes.
pub fn left_out(what: &str, why: &str) {
    // If standard error is closed, nobody reads it.
    let _ = writeln!(std::io::stderr(), "left out: {what} ({why})");
}
