//! Counts and judges what the guests report.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use livepatch_monitor_tests::protocol::Message;

use super::{plan::Kind, resume::Cause, table::Timed};
use crate::lab::{artifacts, reboot_vm, vm::EmulatorDied};

/// The results of the scenarios on all kernels.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failures: Vec<String>,
    /// Lines about emulators that died of their own fault.
    pub(super) emulator: Vec<String>,
    pub(super) timed: Vec<Timed>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.emulator.extend(other.emulator);
        self.timed.extend(other.timed);
    }

    /// The line that ends the run.
    pub(super) fn closing_line(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failures.len())
    }

    /// Whether the run passed: nothing failed, and something ran.
    pub(super) fn holds(&self) -> bool {
        self.passed > 0 && self.failures.is_empty()
    }
}

/// Counts what the guest of one kernel reports.
pub(super) struct Judge {
    kernel: String,
    /// The prefix of its lines.
    name: String,
    /// Added to a scenario's name in the table.
    variant: Option<&'static str>,
    start: Instant,
    booted: bool,
    tally: Tally,
    running: Option<(String, Instant)>,
    finished: Vec<String>,
}

impl Judge {
    /// A judge for a machine of this kind on a kernel line.
    pub(super) fn new(kernel: &str, kind: Kind) -> Self {
        let (name, variant) = match kind {
            Kind::Scenarios => (kernel.to_owned(), None),
            Kind::Reboots(memory) => {
                let other = memory != reboot_vm::MAIN_MEMORY;
                (format!("{kernel} {memory}"), other.then_some(memory))
            }
            Kind::Interop => (format!("{kernel} interop"), None),
            Kind::Endurance => (format!("{kernel} endurance"), None),
        };
        Self {
            kernel: kernel.to_owned(),
            name,
            variant,
            start: Instant::now(),
            booted: false,
            tally: Tally::default(),
            running: None,
            finished: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, message: Message, folder: &Path, bless: bool) -> Result<()> {
        match message {
            Message::Booted { release } => {
                if !std::mem::replace(&mut self.booted, true) {
                    self.say(&format!("booted {release}"));
                    self.time("(the first boot)", self.start.elapsed());
                }
            }
            Message::ScenarioStarted { scenario } => {
                self.running = Some((scenario, Instant::now()));
            }
            Message::Note { text } => self.say(&format!("    {text}")),
            Message::ScenarioPassed {
                scenario,
                milliseconds,
            } => {
                let wall = self.finish(&scenario);
                self.say(&format!(
                    "passed {scenario} ({:.1} s in the guest, {:.1} s here)",
                    Duration::from_millis(milliseconds).as_secs_f64(),
                    wall.as_secs_f64()
                ));
                self.tally.passed += 1;
            }
            Message::ScenarioFailed { scenario, reason } => {
                self.finish(&scenario);
                self.fail(&scenario, &reason);
            }
            Message::File { name, content } => {
                let stored = artifacts::store(folder, &name, &content)?;
                if artifacts::is_exposition(&name)
                    && let Some(complaint) = artifacts::lint(&content)?
                {
                    self.fail(&name, &format!("promtool: {complaint}"));
                }
                if let Some(difference) = artifacts::compare_golden(&name, &stored, bless)? {
                    self.fail(&name, &difference);
                }
            }
            Message::Serving { .. }
            | Message::GoingDown
            | Message::Inject { .. }
            | Message::Done => {}
        }
        Ok(())
    }

    /// The scenarios that have a result.
    pub(super) fn finished(&self) -> &[String] {
        &self.finished
    }

    /// Records that the emulator died of its own fault and another machine continues.
    pub(super) fn resumed(&mut self, error: &anyhow::Error) {
        let what = match self.running.take() {
            Some((scenario, _)) => format!("in {scenario}"),
            None => "between two scenarios".to_owned(),
        };
        self.say(&format!(
            "the emulator died {what}; continuing in a new machine: {error:#}"
        ));
        self.tally.emulator.push(format!(
            "{}: the emulator died {what}; the rest ran in a new machine",
            self.name
        ));
    }

    /// Judges the end of the run: a scenario that was still running has failed, and so has a guest
    /// that ran none.
    pub(super) fn close(mut self, outcome: Result<()>) -> Tally {
        let running = self.running.take().map(|(scenario, _)| scenario);
        match (outcome, running) {
            (Err(error), running) => {
                let what = running.unwrap_or_else(|| "the machine".to_owned());
                self.fail(&what, &format!("{error:#}"));
            }
            (Ok(()), Some(scenario)) => self.fail(&scenario, "it did not finish"),
            (Ok(()), None) if self.finished.is_empty() => {
                self.fail("the machine", "it ran no scenario");
            }
            (Ok(()), None) => {}
        }
        self.tally
    }

    /// Prints a line with the kernel's name, because machines run in parallel.
    fn say(&self, text: &str) {
        println!("    [{}] {text}", self.name);
    }

    fn finish(&mut self, scenario: &str) -> Duration {
        let elapsed = self
            .running
            .take()
            .map_or(Duration::ZERO, |(_, begin)| begin.elapsed());
        self.time(scenario, elapsed);
        self.finished.push(scenario.to_owned());
        elapsed
    }

    fn time(&mut self, scenario: &str, elapsed: Duration) {
        let scenario = match self.variant {
            Some(variant) => format!("{scenario} ({variant})"),
            None => scenario.to_owned(),
        };
        self.tally.timed.push(Timed {
            scenario,
            kernel: self.kernel.clone(),
            elapsed,
        });
    }

    fn fail(&mut self, what: &str, reason: &str) {
        self.say(&format!("FAILED {what}: {reason}"));
        self.tally
            .failures
            .push(format!("{} {what}: {reason}", self.name));
    }
}

/// The reason for which a machine ended.
pub(super) fn cause(error: &anyhow::Error) -> Cause {
    match error.downcast_ref::<EmulatorDied>() {
        Some(_) => Cause::Emulator,
        None => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(name: &str) -> Message {
        Message::ScenarioStarted {
            scenario: name.to_owned(),
        }
    }

    fn passed(name: &str) -> Message {
        Message::ScenarioPassed {
            scenario: name.to_owned(),
            milliseconds: 1,
        }
    }

    fn judged(messages: Vec<Message>, outcome: Result<()>) -> Tally {
        let mut judge = Judge::new("6.12", Kind::Scenarios);
        for message in messages {
            judge
                .take(message, Path::new("/nonexistent"), false)
                .unwrap();
        }
        judge.close(outcome)
    }

    #[test]
    fn a_clean_run_holds() {
        let tally = judged(vec![started("a"), passed("a"), Message::Done], Ok(()));
        assert!(tally.holds());
        assert_eq!(tally.closing_line(), "1 passed, 0 failed");
    }

    #[test]
    fn a_run_without_scenarios_fails() {
        let tally = judged(vec![Message::Done], Ok(()));
        assert!(!tally.holds());
        assert_eq!(tally.closing_line(), "0 passed, 1 failed");
    }

    #[test]
    fn a_machine_that_dies_fails_the_running_scenario() {
        let tally = judged(
            vec![started("a"), passed("a"), started("b")],
            Err(anyhow::anyhow!("the guest's kernel panicked")),
        );
        assert_eq!(tally.closing_line(), "1 passed, 1 failed");
        assert!(tally.failures[0].starts_with("6.12 b: "), "{tally:?}");
    }

    #[test]
    fn a_failed_scenario_fails_the_run() {
        let tally = judged(
            vec![
                started("a"),
                Message::ScenarioFailed {
                    scenario: "a".to_owned(),
                    reason: "no".to_owned(),
                },
                started("b"),
                passed("b"),
            ],
            Ok(()),
        );
        assert!(!tally.holds());
        assert_eq!(tally.closing_line(), "1 passed, 1 failed");
    }

    #[test]
    fn a_file_that_leads_out_is_an_error() {
        let mut judge = Judge::new("6.12", Kind::Scenarios);
        let message = Message::File {
            name: "../x".to_owned(),
            content: String::new(),
        };
        assert!(
            judge
                .take(message, Path::new("/nonexistent"), false)
                .is_err()
        );
    }
}
