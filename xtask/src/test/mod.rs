//! `cargo xtask test`: the workspace's checks, then every scenario on every kernel.

mod judge;
mod plan;
mod run;

use std::{
    num::NonZero,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};

use crate::{
    build::guest_binaries::{self, Programs},
    checks, dist, fleet,
    host::{packages, process, prometheus_tools},
    lab::{
        kernels::{self, Line},
        machine, reboot_vm,
    },
    rollout::{self, host},
};

use self::{
    judge::Tally,
    plan::{PACKAGES, ROLLOUT},
    run::Run,
};

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

/// What is done side by side.
enum Work<'a> {
    Machine(Run<'a>),
    Packages,
}

/// Runs everything asked for; `false` when a scenario failed or none ran.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let lines = kernels::lines(&arguments.kernel)?;
    prometheus_tools::prepare()?;
    if !arguments.only_vm {
        checks::run()?;
    }
    if arguments.no_vm {
        return Ok(true);
    }
    packages::install_vm_packages()?;
    let programs = guest_binaries::build_all()?;
    if !arguments.only_vm {
        fleet::smoke::run(&programs.monitor)?;
        fleet::ansible::check(&programs.monitor)?;
    }
    let machines = lines
        .iter()
        .map(|line| {
            Ok((
                *line,
                machine::prepare(line, &programs, "vm", reboot_vm::extras())?,
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
        let once = plan::is_the_one(line, &lines);
        for (kind, scenarios) in plan::plan(line.full_run, once, &asked) {
            runs.push(Work::Machine(Run {
                kind,
                line,
                prepared,
                scenarios,
            }));
        }
    }
    if all || asked.contains(&PACKAGES) {
        runs.push(Work::Packages);
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
                    let outcome = match run {
                        Work::Machine(run) => run.judged(arguments.thorough, arguments.bless),
                        Work::Packages => packages(),
                    };
                    locked(&tally).add(outcome);
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    if all || asked.contains(&ROLLOUT) {
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
    let line = lines.iter().find(|line| plan::is_the_one(line, lines));
    let line = line.context("no kernel")?;
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

/// The packages: built, looked at, and installed under systemd.
fn packages() -> Tally {
    let mut tally = Tally::default();
    let outcome = dist::run(true, |name| {
        println!("    [{PACKAGES}] passed: {name}");
        tally.passed += 1;
    });
    if let Err(error) = outcome {
        println!("    [{PACKAGES}] FAILED: {error:#}");
        tally.failures.push(format!("{PACKAGES}: {error:#}"));
    }
    tally
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
