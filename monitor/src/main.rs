//! The `livepatch-monitor` binary: it only calls the library's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    livepatch_monitor::cli::main()
}
