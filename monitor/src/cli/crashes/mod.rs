//! `livepatch-monitor crashes`

mod import;
mod list;
mod render;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Cli;

/// Exit code 0: there are crashes; 1: none; 2: cannot determine.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit code: 0 there are crashes, 1 none is known, 2 cannot determine."
)]
pub(super) struct Crashes {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything that is known about one crash
    Show(list::Show),
    /// Read what a crash left, on this host or copied from another
    Import(import::Import),
}

impl Crashes {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        match &self.command {
            None => list::list(cli, self.json),
            Some(Command::Show(show)) => show.run(cli),
            Some(Command::Import(import)) => import.run(),
        }
    }
}
