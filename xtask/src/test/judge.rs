//! What the machines' guests report, counted and judged.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use livepatch_monitor_tests::protocol::Message;

use crate::lab::artifacts;

/// What the scenarios came to, over all kernels.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failures: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }

    /// The line that ends the run.
    pub(super) fn closing_line(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failures.len())
    }

    /// A run that ran nothing has shown nothing.
    pub(super) fn holds(&self) -> bool {
        self.passed > 0 && self.failures.is_empty()
    }
}

/// Counts what one kernel's guest reports.
pub(super) struct Judge {
    kernel: String,
    booted: bool,
    tally: Tally,
    running: Option<(String, Instant)>,
    finished: usize,
}

impl Judge {
    pub(super) fn new(kernel: String) -> Self {
        Self {
            kernel,
            booted: false,
            tally: Tally::default(),
            running: None,
            finished: 0,
        }
    }

    pub(super) fn take(&mut self, message: Message, folder: &Path, bless: bool) -> Result<()> {
        match message {
            Message::Booted { release } => {
                if !std::mem::replace(&mut self.booted, true) {
                    self.say(&format!("booted {release}"));
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
                let wall = self.finish();
                self.say(&format!(
                    "passed {scenario} ({:.1} s in the guest, {:.1} s here)",
                    Duration::from_millis(milliseconds).as_secs_f64(),
                    wall.as_secs_f64()
                ));
                self.tally.passed += 1;
            }
            Message::ScenarioFailed { scenario, reason } => {
                self.finish();
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

    /// Judges the run's end: a scenario that was running then has failed, and a
    /// guest that ran none has shown nothing.
    pub(super) fn close(mut self, outcome: Result<()>) -> Tally {
        let running = self.running.take().map(|(scenario, _)| scenario);
        match (outcome, running) {
            (Err(error), running) => {
                let what = running.unwrap_or_else(|| "the machine".to_owned());
                self.fail(&what, &format!("{error:#}"));
            }
            (Ok(()), Some(scenario)) => self.fail(&scenario, "it never ended"),
            (Ok(()), None) if self.finished == 0 => {
                self.fail("the machine", "it ran no scenario");
            }
            (Ok(()), None) => {}
        }
        self.tally
    }

    /// Machines run side by side, so each line names its kernel.
    fn say(&self, text: &str) {
        println!("    [{}] {text}", self.kernel);
    }

    fn finish(&mut self) -> Duration {
        self.finished += 1;
        self.running
            .take()
            .map_or(Duration::ZERO, |(_, begin)| begin.elapsed())
    }

    fn fail(&mut self, what: &str, reason: &str) {
        self.say(&format!("FAILED {what}: {reason}"));
        self.tally
            .failures
            .push(format!("{} {what}: {reason}", self.kernel));
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
        let mut judge = Judge::new("6.12".to_owned());
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
        let mut judge = Judge::new("6.12".to_owned());
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
