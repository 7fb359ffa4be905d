//! Runs the scenarios of one machine.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use livepatch_monitor_tests::protocol::{Message, command_line};

use super::{
    judge::{self, Judge, Tally},
    plan::{Kind, Planned},
    resume::{self, Decision},
};
use crate::{
    host::process,
    lab::{interop, kernels::Line, machine::Prepared, reboot_vm, vm::Machine},
};

/// Memory in MiB; several times what the guest uses.
const MEMORY: u32 = 1024;

/// An emulated kernel is slow, and a scenario may wait for a stalled transition.
const SILENCE: Duration = Duration::from_secs(180);

const LIMIT: Duration = Duration::from_secs(40 * 60);

/// The number of transitions and scrapes of scenario `long_run` with `--thorough`, and without it.
pub(super) const LONG: (u32, u32) = (1_000, 10_000);
pub(super) const SHORT: (u32, u32) = (200, 1_000);

/// What a machine of a line runs.
pub(super) struct Run {
    pub(super) planned: Planned,
    pub(super) line: &'static Line,
    pub(super) prepared: Arc<Prepared>,
}

impl Run {
    pub(super) fn judged(&self, thorough: bool, bless: bool) -> Tally {
        let mut judge = Judge::new(self.line.name, self.planned.kind);
        let what = format!("{} on kernel {}", self.what(), self.prepared.kernel);
        let all = &self.planned.scenarios;
        let mut scenarios = all.clone();
        let mut resumed = false;
        let outcome = process::step(&what, || {
            loop {
                let result = self.machines(&scenarios.join(","), thorough, |message| {
                    judge.take(message, &self.prepared.folder, bless)
                });
                let Err(error) = result else { return Ok(()) };
                match resume::decide(all, judge.finished(), judge::cause(&error), resumed) {
                    Decision::Fail => return Err(error),
                    Decision::Resume(left) => {
                        judge.resumed(&error);
                        (scenarios, resumed) = (left, true);
                    }
                }
            }
        });
        judge.close(outcome)
    }

    fn machines(
        &self,
        run: &str,
        thorough: bool,
        on_message: impl FnMut(Message) -> Result<()>,
    ) -> Result<()> {
        match self.planned.kind {
            Kind::Scenarios => self
                .machine("test", run, self.prepared.console(), &[])
                .run(on_message),
            Kind::Endurance => {
                let (transitions, scrapes) = if thorough { LONG } else { SHORT };
                let transitions = format!("{}={transitions}", command_line::TRANSITIONS);
                let scrapes = format!("{}={scrapes}", command_line::SCRAPES);
                // With one CPU, a transition's first attempt has only that one to check.
                let words = ["maxcpus=1", &transitions, &scrapes];
                let console = self.prepared.folder.join("endurance.log");
                self.machine("endurance", run, console, &words)
                    .run(on_message)
            }
            Kind::Reboots(memory) => {
                reboot_vm::run(&self.prepared, memory, run, thorough, on_message)
            }
            Kind::Interop => interop::run(&self.prepared, run, on_message),
        }
    }

    fn what(&self) -> String {
        match self.planned.kind {
            Kind::Scenarios => "scenarios".to_owned(),
            Kind::Reboots(memory) => format!("crashes with {memory}"),
            Kind::Interop => "scenarios beside other programs".to_owned(),
            Kind::Endurance => "endurance".to_owned(),
        }
    }

    /// A machine of one boot.
    fn machine<'a>(
        &'a self,
        mode: &'a str,
        run: &'a str,
        console: PathBuf,
        command_line: &'a [&'a str],
    ) -> Machine<'a> {
        Machine {
            kernel: &self.prepared.kernel.image,
            initramfs: &self.prepared.initramfs,
            mode,
            run,
            command_line,
            memory: MEMORY,
            counted: false,
            forwards: &[],
            persistent: None,
            console,
            silence: SILENCE,
            limit: LIMIT,
        }
    }
}
