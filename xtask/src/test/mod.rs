//! `cargo xtask test`: the workspace's checks, then every scenario on every kernel.

mod judge;
mod plan;
mod resume;
mod run;
mod table;
mod work;

use std::{
    cmp::Reverse,
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build::guest_binaries::{self, Programs},
    checks, dist, fleet,
    host::{packages, process, prometheus_tools},
    lab::{
        command,
        kernels::{self, Line},
        machine::{self, Prepared},
        modules, reboot_vm,
    },
    rollout::{self, host},
    updates,
};

use self::{
    judge::Tally,
    plan::{LAB_RUN, PACKAGES, ROLLOUT, UPDATES},
    resume::Cause,
    run::Run,
    work::More,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to run on
    #[arg(long, value_delimiter = ',', default_value = kernels::ALL)]
    kernel: Vec<String>,
    /// Scenarios to run, instead of all
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Machines and checks to run at a time; by default three for two cores
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Only the workspace's own checks: no VM, nothing fetched for one
    #[arg(long)]
    no_vm: bool,
    /// Only the VMs: without the workspace's own checks
    #[arg(long, conflicts_with = "no_vm")]
    only_vm: bool,
    /// Every scenario on every kernel, twenty power cuts instead of five (each fifth at a random
    /// moment, the others at known stages of a transition), 1,000 transitions instead of 200,
    /// every moment of the package managers, the layouts and a day of 1,000 hosts; what a run
    /// without it leaves out is printed at its end
    #[arg(long, conflicts_with = "no_vm")]
    thorough: bool,
    /// Replace the golden files with those that the guests send
    #[arg(long, conflicts_with = "no_vm")]
    bless: bool,
}

/// The work that is done in parallel.
enum Work {
    Check(&'static str, fn() -> Result<()>),
    /// The fleet of simulated hosts.
    Fleet,
    Machine(Run),
    Packages,
    /// Package managers, killed in the middle of an upgrade.
    Updates,
    /// One command in a guest of the lab.
    LabRun,
}

/// The exit code of the command in a guest of the lab, and its time limit.
const LAB_EXIT: u8 = 7;
const LAB_LIMIT: Duration = Duration::from_secs(600);

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
    let all = arguments.scenario.is_empty();
    let asked: Vec<&str> = arguments.scenario.iter().map(String::as_str).collect();
    let mut checks = Vec::new();
    let mut more = Vec::new();
    if !arguments.only_vm {
        checks.extend(checks::GROUPS.map(|(name, check)| Work::Check(name, check)));
        more.push(Work::Fleet);
    }
    // Building packages mostly waits for the disk and apt.
    if all || asked.contains(&PACKAGES) {
        more.push(Work::Packages);
    }
    if all || asked.contains(&UPDATES) {
        more.push(Work::Updates);
    }
    if all || asked.contains(&LAB_RUN) {
        more.push(Work::LabRun);
    }
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let jobs = arguments.jobs.map_or_else(|| jobs_of(cores), NonZero::get);
    let tally = Mutex::new(Tally::default());
    let programs = OnceLock::new();
    // The checks compile, which a guest does not: while one of each runs, neither core waits. The
    // checks are first, because their failures are found soonest, and because they need nothing
    // else.
    let left = work::side_by_side(
        jobs,
        checks,
        || {
            let machines = prepare(&lines, &programs)?;
            Ok(More {
                first: more,
                second: machine_runs(&machines, &lines, arguments.thorough, &asked),
            })
        },
        |work| {
            let (outcome, goes_on) = match work {
                Work::Machine(run) => (run.judged(arguments.thorough, arguments.bless), true),
                Work::Packages => (packages(), true),
                Work::Updates => (
                    interrupted_updates(built(&programs), arguments.thorough),
                    true,
                ),
                Work::LabRun => (lab_run(&lines, &programs), true),
                Work::Check(name, check) => checked(name, check),
                Work::Fleet => checked("simulated hosts", || {
                    fleet(built(&programs)?, arguments.thorough)
                }),
            };
            locked(&tally).add(outcome);
            goes_on
        },
    )?;
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    if left > 0 {
        tally.failures.push(format!(
            "{left} parts of the run were not started after that"
        ));
    }
    if all || asked.contains(&ROLLOUT) {
        tally.add(rollout(&lines, built(&programs)?, arguments.bless)?);
    }
    let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
    println!("\n{}", table::scenarios(&tally.timed, &names));
    print_steps(begin);
    if all && !arguments.thorough {
        println!("left to `cargo xtask test --thorough`:");
        for line in plan::left_out(&lines, arguments.only_vm) {
            println!("    {line}");
        }
    }
    if all && let Some(text) = plan::on_one_kernel(&lines) {
        println!("{text}");
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

/// A guest waits as much as it works: for the kernel's next attempt, for a lockup to be noticed.
/// With three for two cores, neither core is idle meanwhile.
const fn jobs_of(cores: usize) -> usize {
    cores + cores / 2
}

/// Builds the programs and, beside them, fetches the kernels.
fn prepare(
    lines: &[&'static Line],
    programs: &OnceLock<Programs>,
) -> Result<Vec<(&'static Line, Arc<Prepared>)>> {
    let built = thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            lines.iter().try_for_each(|line| {
                let kernel = kernels::prepare(line)?;
                modules::build(&kernel).map(drop)
            })
        });
        let built = guest_binaries::build_all();
        match fetching.join() {
            Ok(fetched) => fetched?,
            Err(_) => bail!("the thread that fetches kernels panicked"),
        }
        built
    })?;
    let built = programs.get_or_init(|| built);
    lines
        .iter()
        .map(|line| {
            let prepared = machine::prepare(line, built, "vm", reboot_vm::extras())?;
            Ok((*line, Arc::new(prepared)))
        })
        .collect()
}

fn built(programs: &OnceLock<Programs>) -> Result<&Programs> {
    programs.get().context("the programs are not built")
}

/// The machines of all lines, those that take long first.
fn machine_runs(
    machines: &[(&'static Line, Arc<Prepared>)],
    lines: &[&'static Line],
    thorough: bool,
    asked: &[&str],
) -> Vec<Work> {
    let mut runs = Vec::new();
    for (line, prepared) in machines {
        let once = plan::is_the_one(line, lines);
        let list = line.normal_run.filter(|_| !thorough);
        for planned in plan::plan(list, once, asked) {
            runs.push(Run {
                planned,
                line,
                prepared: prepared.clone(),
            });
        }
    }
    runs.sort_by_key(|run| Reverse(run.planned.weight()));
    runs.into_iter().map(Work::Machine).collect()
}

/// Result of a check, and whether the run continues after it.
fn checked(name: &str, check: impl FnOnce() -> Result<()>) -> (Tally, bool) {
    let mut tally = Tally::default();
    let result = process::step(name, check);
    let goes_on = result.is_ok();
    if let Err(error) = result {
        println!("    FAILED {name}: {error:#}");
        tally.failures.push(format!("{name}: {error:#}"));
    }
    (tally, goes_on)
}

fn fleet(programs: &Programs, thorough: bool) -> Result<()> {
    fleet::smoke::run(&programs.monitor)?;
    fleet::ansible::check(&programs.monitor)?;
    if thorough {
        fleet::layouts::run(&programs.monitor)?;
        fleet::replay::run(fleet::DAY)?;
    }
    Ok(())
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

/// Runs the rollout on two machines, with nothing else in parallel; once more from its start, if an
/// emulator dies of its own fault.
fn rollout(lines: &[&'static Line], programs: &Programs, bless: bool) -> Result<Tally> {
    let line = lines.iter().find(|line| plan::is_the_one(line, lines));
    let line = line.context("no kernel")?;
    let modules = host::modules();
    let prepared = machine::prepare(line, programs, ROLLOUT, host::extras(&modules))?;
    let what = format!("a rollout on two machines with kernel {}", prepared.kernel);
    let prepared = Arc::new(prepared);
    let mut tally = Tally::default();
    let mut once = || {
        tally.passed = 0;
        process::step(&what, || {
            rollout::run(&prepared, &programs.monitor, bless, |name| {
                println!("    [{ROLLOUT}] passed: {name}");
                tally.passed += 1;
            })
        })
    };
    let mut outcome = once();
    if let Err(error) = &outcome
        && judge::cause(error) == Cause::Emulator
    {
        println!("    [{ROLLOUT}] the emulator died; it begins again: {error:#}");
        outcome = once();
        let again = format!("{ROLLOUT}: the emulator died; it ran once more from its start");
        tally.emulator.push(again);
    }
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

/// Runs a command in a guest of the lab, which must end with the command's exit code.
fn lab_run(lines: &[&'static Line], programs: &OnceLock<Programs>) -> Tally {
    let mut tally = Tally::default();
    let outcome = built(programs).and_then(|programs| {
        let line = lines.iter().find(|line| plan::is_the_one(line, lines));
        let line = line.context("no kernel")?;
        let exit = format!("exit {LAB_EXIT}");
        let words = ["sh", "-c", &exit];
        process::step(
            &format!("lab run: `{exit}` on kernel {}", line.name),
            || {
                let code = command::in_guest(line, programs, LAB_LIMIT, &words)?;
                ensure!(code == LAB_EXIT, "`{exit}` ends with {code}");
                Ok(())
            },
        )
    });
    match outcome {
        Ok(()) => {
            println!("    [{LAB_RUN}] passed: the exit code of the command comes back");
            tally.passed += 1;
        }
        Err(error) => {
            println!("    [{LAB_RUN}] FAILED: {error:#}");
            tally.failures.push(format!("{LAB_RUN}: {error:#}"));
        }
    }
    tally
}

/// Kills package managers and compares what the monitor says.
fn interrupted_updates(programs: Result<&Programs>, thorough: bool) -> Tally {
    let mut tally = Tally::default();
    let outcome = programs.and_then(|programs| {
        updates::run(&programs.monitor, thorough, |name| {
            println!("    [{UPDATES}] passed: {name}");
            tally.passed += 1;
        })
    });
    if let Err(error) = outcome {
        println!("    [{UPDATES}] FAILED: {error:#}");
        tally.failures.push(format!("{UPDATES}: {error:#}"));
    }
    tally
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
