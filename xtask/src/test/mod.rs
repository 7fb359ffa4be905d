//! `cargo xtask test`: the workspace's checks, then every scenario on every kernel.

mod judge;
mod plan;
mod resume;
mod run;
mod table;

use std::{
    cmp::Reverse,
    num::NonZero,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
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
    /// Machines to run at a time; by default one per core
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Only the workspace's own checks: no VM, nothing fetched for one
    #[arg(long)]
    no_vm: bool,
    /// Only the VMs: without the workspace's own checks
    #[arg(long, conflicts_with = "no_vm")]
    only_vm: bool,
    /// Every scenario on every kernel, the power cut at twenty random moments instead of
    /// five, 1,000 transitions instead of 200; what a run without it leaves out is printed
    /// at its end
    #[arg(long, conflicts_with = "no_vm")]
    thorough: bool,
    /// Replace the golden files with those that the guests send
    #[arg(long, conflicts_with = "no_vm")]
    bless: bool,
}

/// A part of the run; parts run in parallel.
enum Work<'a> {
    Check(&'static str, fn() -> Result<()>),
    /// The fleet of simulated hosts.
    Fleet,
    Machine(Run<'a>),
    Packages,
}

/// Runs everything that is requested; `false` if a scenario failed or none ran.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let begin = Instant::now();
    let lines = kernels::lines(&arguments.kernel)?;
    prometheus_tools::prepare()?;
    if arguments.no_vm {
        checks::run()?;
        print_steps(begin);
        print_not_checked();
        return Ok(true);
    }
    packages::install_vm_packages()?;
    let programs = guest_binaries::build_all()?;
    let machines = lines
        .iter()
        .map(|line| {
            Ok((
                *line,
                machine::prepare(line, &programs, "vm", reboot_vm::extras())?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let all = arguments.scenario.is_empty();
    let asked: Vec<&str> = arguments.scenario.iter().map(String::as_str).collect();
    let mut runs = Vec::new();
    for (line, prepared) in &machines {
        let once = plan::is_the_one(line, &lines);
        let list = line.normal_run.filter(|_| !arguments.thorough);
        for planned in plan::plan(list, once, &asked) {
            runs.push(Run {
                planned,
                line,
                prepared,
            });
        }
    }
    runs.sort_by_key(|run| Reverse(run.planned.weight()));
    // The checks come first, because they fail soonest. They use the CPU while guests mostly wait.
    let mut work = Vec::new();
    if !arguments.only_vm {
        work.extend(checks::GROUPS.map(|(name, check)| Work::Check(name, check)));
        work.push(Work::Fleet);
    }
    // Building packages mostly waits for the disk and apt.
    if all || asked.contains(&PACKAGES) {
        work.push(Work::Packages);
    }
    let work = interleaved(work, runs.into_iter().map(Work::Machine).collect());
    let mut tally = side_by_side(work, arguments, &programs);
    if all || asked.contains(&ROLLOUT) {
        tally.add(rollout(&lines, &programs, arguments.bless)?);
    }
    let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
    println!("\n{}", table::scenarios(&tally.timed, &names));
    print_steps(begin);
    if all && !arguments.thorough {
        println!("left to `cargo xtask test --thorough`:");
        for line in plan::left_out(&lines) {
            println!("    {line}");
        }
    }
    if !tally.failures.is_empty() {
        println!("\nfailures:");
        for failure in &tally.failures {
            println!("    {}", failure.lines().next().unwrap_or_default());
        }
    }
    print_not_checked();
    for line in &tally.emulator {
        println!("\nnot a failure of a scenario: {line}");
    }
    println!("\n{}", tally.closing_line());
    Ok(tally.holds())
}

/// Alternates the elements of both lists.
fn interleaved<'a>(first: Vec<Work<'a>>, second: Vec<Work<'a>>) -> Vec<Work<'a>> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = (first.next(), second.next());
        if pair.0.is_none() && pair.1.is_none() {
            return mixed;
        }
        mixed.extend(pair.0);
        mixed.extend(pair.1);
    }
}

/// Runs all parts, as many in parallel as requested. After a check has failed, nothing new is
/// started.
fn side_by_side(work: Vec<Work<'_>>, arguments: &Arguments, programs: &Programs) -> Tally {
    // Guests wait more than they work, so one per core is not too many.
    let jobs = arguments
        .jobs
        .or_else(|| thread::available_parallelism().ok())
        .map_or(1, NonZero::get);
    let jobs = jobs.min(work.len());
    let tally = Mutex::new(Tally::default());
    let stop = AtomicBool::new(false);
    let queue = Mutex::new(work.into_iter());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let next = locked(&queue).next();
                    let Some(work) = next else { break };
                    let outcome = match work {
                        Work::Machine(run) => run.judged(arguments.thorough, arguments.bless),
                        Work::Packages => packages(),
                        Work::Check(name, check) => checked(name, check, &stop),
                        Work::Fleet => checked("simulated hosts", || fleet(programs), &stop),
                    };
                    locked(&tally).add(outcome);
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let left = locked(&queue).len();
    if left > 0 {
        tally.failures.push(format!(
            "{left} parts of the run were not started after that"
        ));
    }
    tally
}

fn checked(name: &str, check: impl FnOnce() -> Result<()>, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = process::step(name, check) {
        println!("    FAILED {name}: {error:#}");
        tally.failures.push(format!("{name}: {error:#}"));
        stop.store(true, Ordering::Relaxed);
    }
    tally
}

fn fleet(programs: &Programs) -> Result<()> {
    fleet::smoke::run(&programs.monitor)?;
    fleet::ansible::check(&programs.monitor)
}

fn print_not_checked() {
    for what in checks::not_checked() {
        println!("not checked: {what}");
    }
}

fn print_steps(begin: Instant) {
    println!("{}", table::steps(&process::steps()));
    println!(
        "{:.1} minutes in all\n",
        begin.elapsed().as_secs_f64() / 60.0
    );
}

/// Runs the rollout on two machines, with nothing else in parallel.
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

/// Builds the packages, checks them and installs them under systemd.
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
