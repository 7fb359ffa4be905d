//! `cargo xtask dashboards`: what the shipped Grafana dashboards have to keep to.

mod board;
mod known;
mod lint;
pub(crate) mod panels;
mod types;

use anyhow::Result;
use clap::Subcommand;

use known::Known;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hold the dashboards and their queries against the rules of this project
    Lint,
    /// Hold the dashboards against the types that Grafana publishes
    Types,
}

/// Runs what was asked for; `false` when a dashboard is at fault.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    match arguments.command {
        Command::Lint => lint(),
        Command::Types => types::check(),
    }
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
    Ok(complaints.is_empty())
}
