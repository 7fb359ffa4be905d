//! `cargo xtask dashboards`: checks the shipped dashboards, rules and runbooks.

mod board;
mod known;
mod lint;
pub(crate) mod panels;
mod renaming;
mod rules;
mod types;

use std::{path::PathBuf, process::Command as Program};

use anyhow::Result;
use clap::Subcommand;

use crate::{
    host::{paths, process, prometheus_tools},
    monitoring::{notifications, prometheus::rule_files},
};
use known::Known;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check dashboards, rules, alerts and runbooks against the project's own rules
    Lint,
    /// Check the rules and examples with promtool and amtool, and run the rules' unit tests
    Rules,
    /// Check the dashboards against the types that Grafana publishes
    Types,
}

/// Runs the command; `false` if a dashboard is wrong.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    match arguments.command {
        Command::Lint => lint(),
        Command::Rules => check_rules().map(|()| true),
        Command::Types => fit_types(),
    }
}

/// Whether the dashboards match the types that Grafana publishes; prints what does not.
pub(crate) fn fit_types() -> Result<bool> {
    types::check()
}

fn lint() -> Result<bool> {
    let boards = board::all()?;
    let complaints = lint::check(&boards, &Known::of_repository()?);
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!(
        "{} dashboards, {} complaints",
        boards.len(),
        complaints.len()
    );
    rules::run()?;
    Ok(complaints.is_empty())
}

/// Labels of alerts, and the receivers to which the example must route them.
const ROUTES: &[(&str, &[&str])] = &[
    (
        "pager",
        &[
            "alertname=LivepatchStopRollout",
            "severity=critical",
            "patch=fix",
        ],
    ),
    (
        "tickets",
        &[
            "alertname=LivepatchTransitionStuck",
            "severity=warning",
            "patch=fix",
            "job=livepatch-monitor",
            "instance=web1",
        ],
    ),
];

/// Checks the rules, their tests and the examples with Prometheus's own tools.
pub(crate) fn check_rules() -> Result<()> {
    prometheus_tools::prepare()?;
    rules::run()?;
    let folder = paths::root()?.join("dashboards");
    let run = |tool: &str, arguments: &[&str], files: &[PathBuf]| {
        process::output(
            Program::new(prometheus_tools::path(tool)?)
                .current_dir(&folder)
                .args(arguments)
                .args(files),
        )
    };
    run(
        "promtool",
        &["check", "config", "prometheus/prometheus.yml"],
        &[],
    )?;
    run(
        "promtool",
        &["check", "rules", "--lint-fatal"],
        &[rule_files()?, rules::global()?].concat(),
    )?;
    run("promtool", &["test", "rules"], &rules::tests()?)?;
    for file in paths::listed(&folder.join("prometheus/layouts"))? {
        run("promtool", &["check", "config"], &[file])?;
    }
    renaming::check(&folder)?;
    run(
        "amtool",
        &["check-config", "alertmanager/alertmanager.yml"],
        &[],
    )?;
    notifications::check(
        &paths::target()?.join("notifications"),
        &notifications::shipped(&folder)?,
    )?;
    for (receiver, labels) in ROUTES {
        let verify = format!("--verify.receivers={receiver}");
        let test = [
            "config",
            "routes",
            "test",
            "--config.file=alertmanager/alertmanager.yml",
            &verify,
        ];
        run("amtool", &[&test, *labels].concat(), &[])?;
    }
    Ok(())
}
