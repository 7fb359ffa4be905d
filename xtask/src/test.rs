//! `cargo xtask test`: the workspace's checks, then every scenario on every kernel.

use std::{
    num::NonZero,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use livepatch_monitor_tests::protocol::{CRASH_SCENARIOS, Message};

use crate::{
    ansible, artifacts, chain, checks, fleet,
    kernels::{self, Line},
    machine::{self, Prepared},
    process,
    rollout::{self, host},
    setup, static_programs,
    static_programs::Programs,
    tools,
    vm::Machine,
};

/// In MiB; several times what the guest uses.
const MEMORY: u32 = 1024;

/// An emulated kernel is slow, and a scenario may wait for a stalled transition.
const SILENCE: Duration = Duration::from_secs(180);

const LIMIT: Duration = Duration::from_secs(40 * 60);

/// The scenario of two machines, a Prometheus and an Alertmanager.
const ROLLOUT: &str = "rollout";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to run on
    #[arg(long, value_delimiter = ',', default_value = kernels::ALL)]
    kernel: Vec<String>,
    /// Scenarios to run, instead of all
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Machines to run at a time; by default one a core
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Only the workspace's own checks: no VM, nothing fetched for one
    #[arg(long)]
    no_vm: bool,
    /// Only the VMs: without the workspace's own checks
    #[arg(long, conflicts_with = "no_vm")]
    only_vm: bool,
    /// The long form: the power is cut at twenty random moments instead of five
    #[arg(long, conflicts_with = "no_vm")]
    thorough: bool,
    /// Take the golden files that the guests send as the new truth
    #[arg(long, conflicts_with = "no_vm")]
    bless: bool,
}

/// What the scenarios came to, over all kernels.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }

    /// The line that ends the run.
    fn closing_line(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failures.len())
    }

    /// A run that ran nothing has shown nothing.
    fn holds(&self) -> bool {
        self.passed > 0 && self.failures.is_empty()
    }
}

/// Runs everything asked for; `false` when a scenario failed or none ran.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let lines = kernels::lines(&arguments.kernel)?;
    tools::prepare()?;
    if !arguments.only_vm {
        checks::run()?;
    }
    if arguments.no_vm {
        return Ok(true);
    }
    setup::install_vm_packages()?;
    let programs = static_programs::build_all()?;
    if !arguments.only_vm {
        fleet::brief(&programs.monitor)?;
        ansible::check(&programs.monitor)?;
    }
    let machines = lines
        .iter()
        .map(|line| {
            Ok((
                *line,
                machine::prepare(line, &programs, "vm", chain::extras())?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let jobs = arguments
        .jobs
        .or_else(|| thread::available_parallelism().ok())
        .map_or(1, NonZero::get);
    let all = arguments.scenario.is_empty();
    let asked: Vec<&str> = arguments.scenario.iter().map(String::as_str).collect();
    let mut runs = Vec::new();
    for (line, prepared) in &machines {
        for (memory, scenarios) in plan(line.full_run, &asked) {
            runs.push(match memory {
                None => Run::Scenarios(line, prepared, scenarios),
                Some(memory) => Run::Chain(line, prepared, memory, scenarios),
            });
        }
    }
    // A guest waits more than it works, so that a machine a core is not too many.
    let tally = Mutex::new(Tally::default());
    let runs_in_all = runs.len();
    let queue = Mutex::new(runs.into_iter());
    thread::scope(|scope| {
        for _ in 0..jobs.min(runs_in_all) {
            scope.spawn(|| {
                loop {
                    let next = locked(&queue).next();
                    let Some(run) = next else { break };
                    let outcome = run.judged(arguments);
                    locked(&tally).add(outcome);
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    if all || arguments.scenario.iter().any(|name| name == ROLLOUT) {
        tally.add(rollout(&lines, &programs, arguments.bless)?);
    }
    if !tally.failures.is_empty() {
        println!("\nfailures:");
        for failure in &tally.failures {
            println!("    {}", failure.lines().next().unwrap_or_default());
        }
    }
    println!("\n{}", tally.closing_line());
    Ok(tally.holds())
}

/// The rollout on two machines, which have the computer to themselves.
fn rollout(lines: &[&'static Line], programs: &Programs, bless: bool) -> Result<Tally> {
    let line = lines.iter().find(|line| line.name == rollout::KERNEL);
    let line = line.or_else(|| lines.first()).context("no kernel")?;
    let modules = host::modules();
    let prepared = machine::prepare(line, programs, ROLLOUT, host::extras(&modules))?;
    let what = format!("a rollout on two machines with kernel {}", prepared.kernel);
    let mut tally = Tally::default();
    let outcome = process::step(&what, || {
        rollout::run(prepared, &programs.monitor, bless, |name| {
            println!("    [{ROLLOUT}] passed: {name}");
            tally.passed += 1;
        })
    });
    if let Err(error) = outcome {
        println!("    [{ROLLOUT}] FAILED: {error:#}");
        tally.failures.push(format!("{ROLLOUT}: {error:#}"));
    }
    Ok(tally)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a line's machines run: scenarios, and with what memory for the last words those
/// are that take the machine down. `full_run` is the line's own; nothing asked for is a
/// full run.
fn plan(full_run: Option<&[&str]>, asked: &[&str]) -> Vec<(Option<&'static str>, String)> {
    if asked.is_empty() && full_run.is_none() {
        // The crash of one scenario shows what each memory keeps.
        let chains = chain::MEMORIES.map(|memory| match memory {
            chain::MAIN_MEMORY => (Some(memory), "all".to_owned()),
            _ => (Some(memory), chain::OF_EACH_MEMORY.to_owned()),
        });
        return [(None, "all".to_owned())]
            .into_iter()
            .chain(chains)
            .collect();
    }
    let names = if asked.is_empty() {
        full_run.unwrap_or_default()
    } else {
        asked
    };
    let (crashing, others): (Vec<&str>, Vec<&str>) = names
        .iter()
        .filter(|name| **name != ROLLOUT)
        .partition(|name| CRASH_SCENARIOS.contains(name));
    let mut runs = Vec::new();
    if !others.is_empty() {
        runs.push((None, others.join(",")));
    }
    if !crashing.is_empty() {
        runs.push((Some(chain::MAIN_MEMORY), crashing.join(",")));
    }
    // A line with a list of its own is there for what it lists.
    if asked.contains(&chain::OF_EACH_MEMORY) {
        let others = chain::MEMORIES
            .into_iter()
            .filter(|memory| *memory != chain::MAIN_MEMORY);
        runs.extend(others.map(|memory| (Some(memory), chain::OF_EACH_MEMORY.to_owned())));
    }
    runs
}

/// One machine's work.
enum Run<'a> {
    /// The scenarios of one boot.
    Scenarios(&'a Line, &'a Prepared, String),
    /// Those that take the machine down, with a memory for its last words.
    Chain(&'a Line, &'a Prepared, &'static str, String),
}

impl Run<'_> {
    fn judged(&self, arguments: &Arguments) -> Tally {
        match self {
            Self::Scenarios(line, prepared, run) => {
                let machine = Machine {
                    kernel: &prepared.kernel.image,
                    initramfs: &prepared.initramfs,
                    mode: "test",
                    run,
                    command_line: &[],
                    memory: MEMORY,
                    forwards: &[],
                    persistent: None,
                    console: prepared.console(),
                    silence: SILENCE,
                    limit: LIMIT,
                };
                let mut judge = Judge::new(line.name.to_owned());
                let outcome =
                    process::step(&format!("scenarios on kernel {}", prepared.kernel), || {
                        machine
                            .run(|message| judge.take(message, &prepared.folder, arguments.bless))
                    });
                judge.close(outcome)
            }
            Self::Chain(line, prepared, memory, run) => {
                let mut judge = Judge::new(format!("{} {memory}", line.name));
                let what = format!("crashes on kernel {} with {memory}", prepared.kernel);
                let outcome = process::step(&what, || {
                    chain::run(prepared, memory, run, arguments.thorough, |message| {
                        judge.take(message, &prepared.folder, arguments.bless)
                    })
                });
                judge.close(outcome)
            }
        }
    }
}

/// Counts what one kernel's guest reports.
struct Judge {
    kernel: String,
    booted: bool,
    tally: Tally,
    running: Option<(String, Instant)>,
    finished: usize,
}

impl Judge {
    fn new(kernel: String) -> Self {
        Self {
            kernel,
            booted: false,
            tally: Tally::default(),
            running: None,
            finished: 0,
        }
    }

    fn take(&mut self, message: Message, folder: &std::path::Path, bless: bool) -> Result<()> {
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
    fn close(mut self, outcome: Result<()>) -> Tally {
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
    use std::path::Path;

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

    fn planned(full_run: Option<&[&str]>, asked: &[&str]) -> Vec<String> {
        let runs = plan(full_run, asked).into_iter();
        runs.map(|(memory, names)| format!("{}: {names}", memory.unwrap_or("-")))
            .collect()
    }

    #[test]
    fn a_full_run_has_all_but_where_a_line_has_a_list() {
        assert_eq!(
            planned(None, &[]),
            [
                "-: all",
                "erst: all",
                "ramoops: sysrq_in_transition",
                "none: sysrq_in_transition"
            ]
        );
        let list = ["reversed", "sysrq_in_transition", "forced"];
        assert_eq!(
            planned(Some(&list), &[]),
            ["-: reversed,forced", "erst: sysrq_in_transition"]
        );
    }

    #[test]
    fn what_is_asked_for_runs_whatever_the_line_lists() {
        for full_run in [None, Some(["reversed"].as_slice())] {
            assert_eq!(planned(full_run, &["forced"]), ["-: forced"]);
            assert_eq!(planned(full_run, &["nmi", ROLLOUT]), ["erst: nmi"]);
            assert_eq!(
                planned(full_run, &["sysrq_in_transition", "nmi"]),
                [
                    "erst: sysrq_in_transition,nmi",
                    "ramoops: sysrq_in_transition",
                    "none: sysrq_in_transition"
                ]
            );
        }
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
