//! An exporter on a fake host, whose `web.yml` is its web configuration.

use std::process::Command;

pub(crate) use livepatch_monitor_test_support::{host::FakeHost as Host, process::Process};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// `serve` on this host, with a log in JSON and no address yet.
pub(crate) fn command(host: &Host) -> Command {
    host.command(BINARY, &["serve", "--log.format", "json"])
}

/// An exporter on loopback.
#[track_caller]
pub(crate) fn start(host: &Host) -> Process {
    let mut command = command(host);
    command.args(["--web.listen-address", "127.0.0.1:0"]);
    if host.path("web.yml").exists() {
        command.arg("--web.config.file").arg(host.path("web.yml"));
    }
    Process::serve(command)
}
