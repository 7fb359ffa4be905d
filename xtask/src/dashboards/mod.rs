//! `cargo xtask dashboards`: what the shipped Grafana dashboards have to keep to.

mod board;
mod known;
mod lint;
pub(crate) mod panels;
mod rules;
mod types;

use std::{path::PathBuf, process::Command as Program};

use anyhow::Result;
use clap::Subcommand;

use crate::{
    host::{paths, process, prometheus_tools},
    monitoring::prometheus::rule_files,
};
use known::Known;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hold boards, rules, alerts and runbooks against what this project asks of them
    Lint,
    /// Have promtool and amtool check the rules, test them, and check the examples
    Rules,
    /// Hold the dashboards against the types that Grafana publishes
    Types,
}

/// Runs what was asked for; `false` when a dashboard is at fault.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    match arguments.command {
        Command::Lint => lint(),
        Command::Rules => check_rules().map(|()| true),
        Command::Types => fit_types(),
    }
}

/// Whether the dashboards fit the types that Grafana publishes; says what does not.
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

/// Routes of the example, and the receiver where alerts with these labels must arrive.
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

/// What Prometheus's own tools say of the rules, their tests and the examples.
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
    run(
        "amtool",
        &["check-config", "alertmanager/alertmanager.yml"],
        &[],
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
