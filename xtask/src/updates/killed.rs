//! Kills everything that runs in a tree, and queries the monitor.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{manager::Manager, tree::Tree};

/// How often the moment is checked for.
const STEP: Duration = Duration::from_millis(20);
/// Time limit for it: 5 minutes.
const STEPS: u32 = 15_000;

/// Waits until the manager blocks at the wanted moment.
pub(super) fn run_until(child: &mut Child, tree: &Tree) -> Result<()> {
    for _ in 0..STEPS {
        if tree.has_reached() {
            return Ok(());
        }
        if let Some(status) = child.try_wait().context("cannot wait")? {
            bail!("it ended before that moment: {status}\n{}", tree.printed()?);
        }
        thread::sleep(STEP);
    }
    bail!("it did not come to that moment\n{}", tree.printed()?)
}

/// Kills every process of the tree at one moment, as a power cut does: all are stopped first, so
/// that none sees another's end.
pub(super) fn stop_everything(tree: &Tree) -> Result<()> {
    let mut stopped = Vec::new();
    loop {
        let found = processes(tree.root())?;
        let new: Vec<u32> = found
            .iter()
            .copied()
            .filter(|process| !stopped.contains(process))
            .collect();
        if new.is_empty() {
            break;
        }
        signal("STOP", &new)?;
        stopped.extend(new);
    }
    signal("KILL", &stopped)?;
    for _ in 0..STEPS {
        if processes(tree.root())?.is_empty() {
            return Ok(());
        }
        thread::sleep(STEP);
    }
    bail!("processes in {} outlive SIGKILL", tree.root().display())
}

fn signal(name: &str, processes: &[u32]) -> Result<()> {
    if processes.is_empty() {
        return Ok(());
    }
    // A process that has ended in the meantime is not an error.
    Command::new("kill")
        .arg(format!("-{name}"))
        .args(processes.iter().map(u32::to_string))
        .output()
        .map(drop)
        .context("cannot start kill")
}

/// The processes whose root is this one; zombies have none.
fn processes(root: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let entry = entry.context("/proc")?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let its_root = fs::read_link(entry.path().join("root"));
        if let (Some(number), Ok(its_root)) = (number, its_root)
            && its_root == root
        {
            found.push(number);
        }
    }
    Ok(found)
}

/// What the monitor says about a manager.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Whether it has an answer.
    pub(super) known: bool,
    /// What is wrong with each package, without details.
    pub(super) packages: BTreeMap<String, String>,
    pub(super) commands: Vec<String>,
}

impl Answer {
    /// Whether it reports this about these packages and no others; a state may continue with
    /// details.
    pub(super) fn says(&self, expected: &BTreeMap<String, String>) -> bool {
        let same = self.packages.keys().eq(expected.keys());
        let mut states = self.packages.values().zip(expected.values());
        self.known && same && states.all(|(said, expected)| said.starts_with(expected.as_str()))
    }

    /// Whether it knows that nothing is unfinished.
    pub(super) fn is_clear(&self) -> bool {
        self.known && self.packages.is_empty() && self.commands.is_empty()
    }
}

#[derive(Deserialize)]
struct Printed {
    updates: Vec<Update>,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Update {
    manager: String,
    packages: Vec<Package>,
    commands: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    state: String,
}

/// Runs `livepatch-monitor crashes`.
pub(super) fn ask(monitor: &Path, tree: &Tree, manager: &Manager) -> Result<Answer> {
    let output = Command::new(monitor)
        .arg("--path.rootfs")
        .arg(tree.root())
        .arg("--state-dir")
        .arg(tree.path("var/lib/livepatch-monitor"))
        .args(["crashes", "--json"])
        .output()
        .context("cannot start the monitor")?;
    let printed: Printed = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "the monitor does not print JSON: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let root = tree.root().display().to_string();
    if let Some(problem) = printed
        .problems
        .iter()
        .find(|problem| problem.contains(&root) && problem.contains("unfinished"))
    {
        bail!("{problem}");
    }
    let found = printed
        .updates
        .into_iter()
        .find(|update| update.manager == manager.name);
    Ok(found.map_or_else(Answer::default, |update| Answer {
        known: true,
        packages: update
            .packages
            .into_iter()
            .map(|package| (package.name, package.state))
            .collect(),
        commands: update.commands,
    }))
}
