//! `cargo xtask test`: the workspace's checks, then every scenario on every kernel.

use std::{
    num::NonZero,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use livepatch_monitor_tests::protocol::{
    CRASH_SCENARIOS, ENDURANCE_SCENARIOS, Message, command_line,
};

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

/// The kernel that the endurance scenarios run on where none is named.
const ENDURANCE_KERNEL: &str = "6.12";
/// Transitions and scrapes of the long run, and of the short one.
const LONG: (u32, u32) = (1_000, 10_000);
const SHORT: (u32, u32) = (200, 1_000);

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
    /// The long form: the power is cut at twenty random moments instead of five, the
    /// monitor watches 1,000 transitions instead of 200
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
    let (crashing, others): (Vec<&str>, Vec<&str>) = arguments
        .scenario
        .iter()
        .map(String::as_str)
        .filter(|name| *name != ROLLOUT)
        .partition(|name| CRASH_SCENARIOS.contains(name));
    let (enduring, others): (Vec<&str>, Vec<&str>) = others
        .into_iter()
        .partition(|name| ENDURANCE_SCENARIOS.contains(name));
    let all = arguments.scenario.is_empty();
    let mut runs = Vec::new();
    for (line, prepared) in &machines {
        if all || !others.is_empty() {
            runs.push(Run::Scenarios(line, prepared, list(&others)));
        }
        if !enduring.is_empty() || all && line.name == ENDURANCE_KERNEL {
            let names = if all {
                &ENDURANCE_SCENARIOS
            } else {
                &*enduring
            };
            runs.push(Run::Endurance(line, prepared, names.join(",")));
        }
        if all || !crashing.is_empty() {
            for memory in chain::MEMORIES {
                // The crash of one scenario shows what each memory keeps.
                let run = match (memory, all) {
                    ("erst", _) => list(&crashing),
                    (_, true) => chain::OF_EACH_MEMORY.to_owned(),
                    (_, false) if crashing.contains(&chain::OF_EACH_MEMORY) => {
                        chain::OF_EACH_MEMORY.to_owned()
                    }
                    _ => continue,
                };
                runs.push(Run::Chain(line, prepared, memory, run));
            }
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

/// `all` where none are named.
fn list(names: &[&str]) -> String {
    match names {
        [] => "all".to_owned(),
        names => names.join(","),
    }
}

/// One machine's work.
enum Run<'a> {
    /// The scenarios of one boot.
    Scenarios(&'a Line, &'a Prepared, String),
    /// Those of a monitor that runs for long.
    Endurance(&'a Line, &'a Prepared, String),
    /// Those that take the machine down, with a memory for its last words.
    Chain(&'a Line, &'a Prepared, &'static str, String),
}

impl Run<'_> {
    fn judged(&self, arguments: &Arguments) -> Tally {
        match self {
            Self::Scenarios(line, prepared, run) => {
                let what = format!("scenarios on kernel {}", prepared.kernel);
                let machine = machine(prepared, run, prepared.console(), &[]);
                Self::one_boot(&machine, prepared, line.name, &what, arguments)
            }
            Self::Endurance(line, prepared, run) => {
                let what = format!("endurance on kernel {}", prepared.kernel);
                let (transitions, scrapes) = if arguments.thorough { LONG } else { SHORT };
                let transitions = format!("{}={transitions}", command_line::TRANSITIONS);
                let scrapes = format!("{}={scrapes}", command_line::SCRAPES);
                // One CPU is all that a transition's first attempt has to look at.
                let words = ["maxcpus=1", &transitions, &scrapes];
                let console = prepared.folder.join("endurance.log");
                let machine = machine(prepared, run, console, &words);
                let name = format!("{} endurance", line.name);
                Self::one_boot(&machine, prepared, &name, &what, arguments)
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

    fn one_boot(
        machine: &Machine<'_>,
        prepared: &Prepared,
        name: &str,
        what: &str,
        arguments: &Arguments,
    ) -> Tally {
        let mut judge = Judge::new(name.to_owned());
        let outcome = process::step(what, || {
            machine.run(|message| judge.take(message, &prepared.folder, arguments.bless))
        });
        judge.close(outcome)
    }
}

/// A machine of one boot.
fn machine<'a>(
    prepared: &'a Prepared,
    run: &'a str,
    console: PathBuf,
    command_line: &'a [&'a str],
) -> Machine<'a> {
    Machine {
        kernel: &prepared.kernel.image,
        initramfs: &prepared.initramfs,
        mode: "test",
        run,
        command_line,
        memory: MEMORY,
        forwards: &[],
        persistent: None,
        console,
        silence: SILENCE,
        limit: LIMIT,
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
