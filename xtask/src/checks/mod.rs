//! The workspace's own checks: format, lints, unit tests, here and on emulated processors, brief
//! fuzzing.

pub(crate) mod emulated;
pub(crate) mod fuzz;

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, ensure};

use crate::{
    build::{bpf, toolchain},
    dashboards, dist,
    host::{paths, process, prometheus_tools},
    status_page,
};

const STEPS: &[(&str, &[&str])] = &[
    ("cargo fmt --check", &["fmt", "--all", "--check"]),
    (
        "cargo clippy",
        &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    ),
    ("cargo test", &["test", "--quiet", "--workspace"]),
];

/// The name of a group of checks, and its function.
type Group = (&'static str, fn() -> Result<()>);

/// The checks, in groups that do not depend on each other.
pub(crate) const GROUPS: [Group; 5] = [
    ("checks of the code", code),
    ("checks of rules, boards and definitions", definitions),
    ("fuzzing", fuzz::run_briefly),
    ("the core's tests on emulated processors", emulated::run),
    ("the BPF programs against their sources", programs),
];

/// Runs all groups; the first failure ends it.
pub(crate) fn run() -> Result<()> {
    GROUPS.iter().try_for_each(|(_, check)| check())
}

fn code() -> Result<()> {
    for (name, arguments) in STEPS {
        process::step(name, || {
            process::run(
                Command::new(toolchain::env_cargo())
                    .current_dir(paths::root()?)
                    .args(*arguments)
                    // Tests of rules and dashboards run the real Prometheus tools.
                    .env("PATH", prometheus_tools::search_path()?),
            )
        })?;
    }
    // The tests have left pages there.
    status_page::check_samples()?;
    process::step("cargo deny", deny)
}

/// What checks could not do, for [`not_checked`].
static NOT_CHECKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What the checks left out, with the reasons.
pub(crate) fn not_checked() -> Vec<String> {
    NOT_CHECKED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn leave_out(what: String) {
    println!("    {what}");
    NOT_CHECKED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(what);
}

fn programs() -> Result<()> {
    if let Some(left_out) = bpf::check()? {
        leave_out(left_out);
    }
    Ok(())
}

fn definitions() -> Result<()> {
    dist::check_definitions()?;
    process::step(
        "alert rules, their tests and examples",
        dashboards::check_rules,
    )?;
    process::step("dashboards against Grafana's types", || {
        ensure!(
            dashboards::fit_types()?,
            "a dashboard does not match Grafana's types"
        );
        Ok(())
    })
}

/// Checks the dependencies: licences, sources, duplicates and advisories.
fn deny() -> Result<()> {
    let deny = |words: &[&str]| -> Result<Command> {
        let mut command = toolchain::cargo_with(&toolchain::cargo_deny_folder()?)?;
        command
            .args(["deny", "--log-level=error", "--all-features"])
            .args(["--config", "xtask/deny.toml"])
            .args(words);
        Ok(command)
    };
    process::run(&mut deny(&["check", "licenses", "bans", "sources"])?)?;
    if process::output(&mut deny(&["fetch", "db"])?).is_ok() {
        return process::run(&mut deny(&["check", "advisories"])?);
    }
    leave_out("the advisory database cannot be fetched: advisories are not checked".to_owned());
    Ok(())
}
