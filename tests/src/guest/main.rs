//! PID 1 of the machine that the scenarios run in. It is also every other
//! program there but the monitor: `/init helper …` is a child that does one thing.

mod bench;
mod boot;
mod bpf;
mod counters;
mod crashes;
mod eventually;
mod exposition;
mod files;
mod guest;
mod helpers;
mod host;
mod interop;
mod kernel;
mod kernel_log;
mod livepatch;
mod lost_events;
mod modules;
mod monitor;
mod network;
mod probes;
mod process;
mod rollout;
mod runbooks;
mod runner;
mod scenarios;
mod target;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use livepatch_monitor_tests::protocol::{Message, command_line};

use crate::{guest::Guest, host::Host};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(helpers::ARGUMENT) {
        return match helpers::run(arguments.collect()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("helper: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if std::process::id() != 1 {
        eprintln!("this program is the first process of a test machine, not a command to run");
        return ExitCode::FAILURE;
    }
    // The console is all there is until the port to the host is open.
    if let Err(error) = be_init() {
        eprintln!("guest: {error:#}");
    }
    boot::power_off()
}

fn be_init() -> Result<()> {
    boot::mount_file_systems()?;
    let host = Host::open()?;
    host.send(&Message::Booted {
        release: kernel::release()?,
    })?;
    let result = runner::caught(|| run(host.clone()));
    if let Err(error) = &result {
        host.send(&Message::ScenarioFailed {
            scenario: "the machine".to_owned(),
            reason: format!("{error:#}"),
        })?;
    }
    host.send(&Message::Done)?;
    host.drain()
}

fn run(host: Host) -> Result<()> {
    modules::load_kernel_modules()?;
    network::up().context("no network")?;
    let words = files::read("/proc/cmdline")?;
    let mode = word(&words, command_line::MODE).unwrap_or("test");
    let run = word(&words, command_line::RUN).unwrap_or("all");
    let mut guest = Guest::new(host);
    match mode {
        "test" => runner::run(&mut guest, scenarios::ALL, run),
        "endurance" => runner::run(&mut guest, scenarios::ENDURANCE, run),
        "interop" => interop::run(&mut guest, run),
        "crash" => crashes::run(&mut guest, &words),
        "rollout" => rollout::run(&mut guest),
        "bench" => bench::run(&mut guest, run),
        other => bail!("{}={other} is not a mode of this guest", command_line::MODE),
    }
}

/// The value of `key=value` on the kernel's command line.
pub(crate) fn word<'a>(words: &'a str, key: &str) -> Option<&'a str> {
    words
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole() {
        let words = "console=ttyS0 lpm.runner=x lpm.run=a,b lpm.mode=test\n";
        assert_eq!(word(words, "lpm.run"), Some("a,b"));
        assert_eq!(word(words, "lpm.mode"), Some("test"));
        assert_eq!(word(words, "mode"), None);
    }
}
