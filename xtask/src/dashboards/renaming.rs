//! The command with which dashboards/README.md renames the job, run on a copy: the shipped tests
//! must pass with the new name, and nothing may be left of the old one.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::host::{paths, process, prometheus_tools};

/// The beginning of the command.
const COMMAND: &str = "sed -i -E 's/job(";
const NEW: &str = "kernel_patches";

/// Renames the job in a copy of `dashboards/prometheus` and runs the tests there.
pub(super) fn check(dashboards: &Path) -> Result<()> {
    let readme = dashboards.join("README.md");
    let text =
        fs::read_to_string(&readme).with_context(|| format!("cannot read {}", readme.display()))?;
    let command = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with(COMMAND));
    let command = command.context("dashboards/README.md has no command that renames the job")?;
    let copy = paths::target()?.join("renamed");
    paths::empty(&copy)?;
    process::output(
        Command::new("cp")
            .arg("--recursive")
            .arg(dashboards.join("prometheus"))
            .arg(&copy),
    )?;
    let folder = copy.join("prometheus");
    process::output(
        Command::new("sh")
            .arg("-c")
            .arg(command.replace("NAME", NEW))
            .current_dir(&folder),
    )?;
    let old = [
        "job=\"livepatch-monitor\"",
        "job=\\\"livepatch-monitor",
        "job: livepatch-monitor",
    ];
    let mut tests = paths::listed(&folder.join("tests"))?;
    for file in paths::listed(&folder)?
        .iter()
        .filter(|path| is_rules(path))
        .chain(&tests)
    {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for name in old {
            ensure!(!text.contains(name), "{} still has {name}", file.display());
        }
    }
    tests.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    process::output(
        Command::new(prometheus_tools::path("promtool")?)
            .args(["test", "rules"])
            .args(&tests),
    )?;
    fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))
}

fn is_rules(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".rules.yml")
}
