//! `livepatch-monitor crashes`

mod import;
mod list;
mod text;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Cli;

/// Lists the crashes of this host; exit code 0: there are some, 1: none, 2: trouble.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Crashes {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show all that is known of one crash
    Show(list::Show),
    /// Read what a crash left behind, here or copied from another host
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
