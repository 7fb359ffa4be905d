//! Real package managers, killed at each moment of an upgrade: the monitor's answer is compared
//! with what is on disk, which is then repaired with the commands that the monitor printed.
//!
//! Each manager runs in a tree of a Debian suite. Three packages, lp-a, lp-b and lp-c, are upgraded
//! from 1 to 2. Their scripts call a hook, which blocks at the wanted moment; then every process of
//! the tree is killed. dnf 4, dnf5, zypper and rpm have their own database of installed packages,
//! next to dpkg's.

mod killed;
mod manager;
mod repository;
mod tree;
mod truth;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    killed::{ask, run_until, stop_everything},
    manager::{MANAGERS, Manager},
    tree::Tree,
};
use crate::{
    build::guest_binaries,
    host::{packages, process},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// All moments, not only those that differ most
    #[arg(long)]
    thorough: bool,
    /// Only this package manager
    #[arg(long)]
    manager: Option<String>,
    /// This monitor, instead of building one
    #[arg(long, value_name = "FILE")]
    monitor: Option<PathBuf>,
}

/// `cargo xtask updates`
pub(crate) fn command(arguments: &Arguments) -> Result<()> {
    let monitor = match &arguments.monitor {
        Some(monitor) => monitor.clone(),
        None => guest_binaries::build_all()?.monitor,
    };
    let wanted = |manager: &&Manager| {
        let only = arguments.manager.as_deref();
        only.is_none_or(|name| name == manager.name)
    };
    let managers: Vec<&Manager> = MANAGERS.iter().filter(wanted).collect();
    if managers.is_empty() {
        let names: Vec<&str> = MANAGERS.iter().map(|manager| manager.name).collect();
        bail!(
            "unknown package manager; choose one of {}",
            names.join(", ")
        );
    }
    let passed = |name: &str| println!("    passed: {name}");
    run_managers(&managers, &monitor, arguments.thorough, passed)
}

/// Kills each manager at each of its moments and calls `passed` after each. Without `thorough`,
/// only at the moments that differ most.
pub(crate) fn run(monitor: &Path, thorough: bool, passed: impl FnMut(&str)) -> Result<()> {
    let managers: Vec<&Manager> = MANAGERS.iter().collect();
    run_managers(&managers, monitor, thorough, passed)
}

fn run_managers(
    managers: &[&Manager],
    monitor: &Path,
    thorough: bool,
    mut passed: impl FnMut(&str),
) -> Result<()> {
    packages::install(&["mmdebstrap"], "to make trees with package managers")?;
    for manager in managers {
        let what = format!("updates with {}", manager.name);
        process::step(&what, || {
            of_manager(manager, monitor, thorough, &mut passed)
        })?;
    }
    Ok(())
}

/// What a run without `--thorough` leaves out.
pub(crate) fn left_out() -> String {
    let moments = |manager: &Manager| {
        let left = manager.moments.iter().filter(|moment| !moment.always);
        left.count()
    };
    let count: usize = MANAGERS.iter().map(moments).sum();
    format!("{count} of the moments in which package managers are killed")
}

fn of_manager(
    manager: &Manager,
    monitor: &Path,
    thorough: bool,
    passed: &mut impl FnMut(&str),
) -> Result<()> {
    let tree = Tree::make(manager)?;
    repository::make(&tree, manager)?;
    for command in manager.install {
        tree.run(command)?;
    }
    tree.save()?;
    watched(manager, &tree, monitor).context("an upgrade that is not killed")?;
    passed(&format!(
        "{}: an uninterrupted upgrade is never reported as interrupted",
        manager.name
    ));
    for moment in manager.moments {
        if !moment.always && !thorough {
            continue;
        }
        tree.restore()?;
        killed_in(manager, &tree, monitor, moment)
            .with_context(|| format!("{} killed in {}", manager.name, moment.hook))?;
        passed(&format!("{} killed in {}", manager.name, moment.hook));
    }
    tree.remove()
}

/// An upgrade that completes is never reported as interrupted.
fn watched(manager: &Manager, tree: &Tree, monitor: &Path) -> Result<()> {
    tree.hook(None)?;
    let mut child = tree.spawn(manager.upgrade)?;
    let mut looks = 0_u32;
    let status = loop {
        let answer = ask(monitor, tree, manager)?;
        ensure!(
            answer.packages.is_empty(),
            "reported as interrupted while it was running: {answer:?}"
        );
        looks += 1;
        if let Some(status) = child.try_wait()? {
            break status;
        }
    };
    ensure!(status.success(), "`{}`: {status}", manager.upgrade);
    ensure!(looks > 2, "the upgrade was over after {looks} looks");
    let answer = ask(monitor, tree, manager)?;
    ensure!(answer.is_clear(), "after a good upgrade: {answer:?}");
    Ok(())
}

/// Waits until the clock shows another whole second.
fn wait_for_the_next_second() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let next = Duration::from_secs(now.as_secs() + 1);
    thread::sleep(next.saturating_sub(now));
    Ok(())
}

fn killed_in(
    manager: &Manager,
    tree: &Tree,
    monitor: &Path,
    moment: &manager::Moment,
) -> Result<()> {
    tree.hook(Some(moment.hook))?;
    let before = truth::read(manager, tree)?;
    let mut child = tree.spawn(moment.command.unwrap_or(manager.upgrade))?;
    run_until(&mut child, tree)?;
    let at_work = ask(monitor, tree, manager)?;
    ensure!(
        at_work.packages.is_empty(),
        "reported as interrupted while it was running: {at_work:?}"
    );
    stop_everything(tree)?;
    child.wait().context("cannot wait")?;
    tree.hook(None)?;

    let left = truth::read(manager, tree)?;
    let answer = ask(monitor, tree, manager)?;
    let expected = truth::half_done(manager, moment, &before, &left);
    ensure!(
        answer.says(&expected),
        "the monitor says {answer:?}, on disk is {left:?}: expected {expected:?}"
    );
    // Histories have whole seconds, and nobody repairs within the second of the crash.
    wait_for_the_next_second()?;
    for command in &answer.commands {
        // The first command of dpkg fails if a package must be unpacked again.
        let must_unpack = |command: &String| command.contains("--reinstall");
        let may_fail =
            command.starts_with("dpkg --configure") && answer.commands.iter().any(must_unpack);
        tree.answer_yes(command, manager.files, may_fail)?;
    }
    let repaired = ask(monitor, tree, manager)?;
    ensure!(
        repaired.is_clear(),
        "after {:?}: {repaired:?}",
        answer.commands
    );
    if !expected.is_empty() {
        let after = truth::read(manager, tree)?;
        truth::is_whole(manager, moment, &after)
            .with_context(|| format!("after {:?}", answer.commands))?;
    }
    Ok(())
}
