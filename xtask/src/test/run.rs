//! One machine's work.

use std::{path::PathBuf, time::Duration};

use livepatch_monitor_tests::protocol::{Message, command_line};

use super::{
    judge::{Judge, Tally},
    plan::Kind,
};
use crate::{
    host::process,
    lab::{interop, kernels::Line, machine::Prepared, reboot_vm, vm::Machine},
};

/// In MiB; several times what the guest uses.
const MEMORY: u32 = 1024;

/// An emulated kernel is slow, and a scenario may wait for a stalled transition.
const SILENCE: Duration = Duration::from_secs(180);

const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Transitions and scrapes of the long run, and of the short one.
const LONG: (u32, u32) = (1_000, 10_000);
const SHORT: (u32, u32) = (200, 1_000);

/// What a machine of a line runs.
pub(super) struct Run<'a> {
    pub(super) kind: Kind,
    pub(super) line: &'a Line,
    pub(super) prepared: &'a Prepared,
    /// Comma-separated, or `all`.
    pub(super) scenarios: String,
}

impl Run<'_> {
    pub(super) fn judged(&self, thorough: bool, bless: bool) -> Tally {
        let (name, what) = self.names();
        let mut judge = Judge::new(name);
        let what = format!("{what} on kernel {}", self.prepared.kernel);
        let on_message = |message: Message| judge.take(message, &self.prepared.folder, bless);
        let outcome = process::step(&what, || match self.kind {
            Kind::Scenarios => self
                .machine("test", self.prepared.console(), &[])
                .run(on_message),
            Kind::Endurance => {
                let (transitions, scrapes) = if thorough { LONG } else { SHORT };
                let transitions = format!("{}={transitions}", command_line::TRANSITIONS);
                let scrapes = format!("{}={scrapes}", command_line::SCRAPES);
                // One CPU is all that a transition's first attempt has to look at.
                let words = ["maxcpus=1", &transitions, &scrapes];
                let console = self.prepared.folder.join("endurance.log");
                self.machine("endurance", console, &words).run(on_message)
            }
            Kind::Reboots(memory) => {
                reboot_vm::run(self.prepared, memory, &self.scenarios, thorough, on_message)
            }
            Kind::Interop => interop::run(self.prepared, &self.scenarios, on_message),
        });
        judge.close(outcome)
    }

    /// What its lines begin with, and what it is.
    fn names(&self) -> (String, String) {
        let line = self.line.name;
        match self.kind {
            Kind::Scenarios => (line.to_owned(), "scenarios".to_owned()),
            Kind::Reboots(memory) => (format!("{line} {memory}"), format!("crashes with {memory}")),
            Kind::Interop => (
                format!("{line} interop"),
                "scenarios beside other programs".to_owned(),
            ),
            Kind::Endurance => (format!("{line} endurance"), "endurance".to_owned()),
        }
    }

    /// A machine of one boot.
    fn machine<'a>(
        &'a self,
        mode: &'a str,
        console: PathBuf,
        command_line: &'a [&'a str],
    ) -> Machine<'a> {
        Machine {
            kernel: &self.prepared.kernel.image,
            initramfs: &self.prepared.initramfs,
            mode,
            run: &self.scenarios,
            command_line,
            memory: MEMORY,
            forwards: &[],
            persistent: None,
            console,
            silence: SILENCE,
            limit: LIMIT,
        }
    }
}
