//! The gate from a rollout script's point of view: the built binary with a fake Prometheus.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bad_input;
mod tls;
mod verdicts;
mod wait;

use std::process::Command;

use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// Runs the gate for the patch `fix`.
fn gate(url: &str, arguments: &[&str]) -> Answer {
    let mut all = vec!["--prometheus", url, "--patch", "fix"];
    all.extend_from_slice(arguments);
    run(&all)
}

fn run(arguments: &[&str]) -> Answer {
    let mut command = Command::new(BINARY);
    command.arg("gate").args(arguments);
    FakeHost::shield(&mut command);
    Process::run(command)
}
