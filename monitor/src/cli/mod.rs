//! The command line: one file a command.

mod blockers;
mod check;
mod crashes;
mod gate;
mod preflight;
mod serve;
mod status;
mod transition;
pub mod values;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::crash::gather::Sources;

/// Says within a second whether a kernel livepatch is landing or is stuck, and
/// after a crash whether one had a hand in it.
#[derive(Debug, Parser)]
#[command(name = "livepatch-monitor", version = VERSION, long_version = LONG_VERSION, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (revision ",
    env!("LIVEPATCH_MONITOR_REVISION"),
    ")"
);
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nrevision: ",
    env!("LIVEPATCH_MONITOR_REVISION"),
    "\nBPF programs: ",
    env!("LIVEPATCH_MONITOR_BPF_BUILD"),
);

/// The commands and flags, for their manual and the shells' completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where to look")]
struct Paths {
    /// Root of procfs
    #[arg(
        long = "path.procfs",
        value_name = "DIR",
        default_value = "/proc",
        global = true
    )]
    procfs: PathBuf,
    /// Root of sysfs
    #[arg(
        long = "path.sysfs",
        value_name = "DIR",
        default_value = "/sys",
        global = true
    )]
    sysfs: PathBuf,
    /// The kernel log's device
    #[arg(
        long = "path.kmsg",
        value_name = "FILE",
        default_value = "/dev/kmsg",
        global = true
    )]
    kmsg: PathBuf,
    /// Where the exporter keeps what it must know after a restart
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/livepatch-monitor",
        global = true
    )]
    state_dir: PathBuf,
    /// Where the kernel shows what outlived a crash
    #[arg(
        long = "path.pstore",
        value_name = "DIR",
        default_value = "/sys/fs/pstore",
        global = true
    )]
    pstore: PathBuf,
    /// Where systemd-pstore has moved it to
    #[arg(
        long = "path.systemd-pstore",
        value_name = "DIR",
        default_value = "/var/lib/systemd/pstore",
        global = true
    )]
    systemd_pstore: PathBuf,
    /// Where kdump puts its logs
    #[arg(
        long = "path.kdump",
        value_name = "DIR",
        default_value = "/var/crash",
        global = true
    )]
    kdump: PathBuf,
    /// Root of the host's file system, for its packages and installed livepatches
    #[arg(
        long = "path.rootfs",
        value_name = "DIR",
        default_value = "/",
        global = true
    )]
    rootfs: PathBuf,
}

impl Paths {
    /// Directories that are none. Where a crash would leave something, nothing need be.
    fn wrong(&self) -> Vec<String> {
        let optional = [
            ("--path.pstore", &self.pstore),
            ("--path.systemd-pstore", &self.systemd_pstore),
            ("--path.kdump", &self.kdump),
        ];
        let there = |path: &PathBuf| path.symlink_metadata().is_ok();
        let optional = optional.into_iter().filter(|(_, path)| there(path));
        [("--path.rootfs", &self.rootfs)]
            .into_iter()
            .chain(optional)
            .filter_map(|(flag, path)| no_directory(flag, path))
            .collect()
    }

    fn sources(&self) -> Sources {
        Sources {
            pstore: self.pstore.clone(),
            systemd_pstore: self.systemd_pstore.clone(),
            kdump: self.kdump.clone(),
        }
    }
}

/// Why a path is not that of a directory.
fn no_directory(flag: &str, path: &Path) -> Option<String> {
    let problem = match path.metadata() {
        Err(error) => error.to_string(),
        Ok(metadata) if !metadata.is_dir() => "it is no directory".to_owned(),
        Ok(_) => return None,
    };
    Some(format!(
        "{flag} {}: {problem}; nothing is found there",
        path.display()
    ))
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
struct Log {
    /// Least severe level that is logged; debug includes the BPF programs' own log
    #[arg(
        long = "log.level",
        value_name = "LEVEL",
        default_value = "info",
        global = true
    )]
    level: Level,
    /// Form of a log line
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

const NO_LIVEPATCH: &str = "this kernel has no livepatch support: nothing to show\n";

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this host's livepatches and serve metrics for Prometheus
    Serve(serve::Serve),
    /// Show which patches are loaded and how a running transition fares
    Status(status::Status),
    /// Name every task that holds the running transition up, with its stack
    Blockers(blockers::Blockers),
    /// List this host's crashes: what they were, and whether a livepatch had a hand in them
    Crashes(crashes::Crashes),
    /// Say before a livepatch is loaded whether it will fail, and who would hold it up
    Preflight(preflight::Preflight),
    /// Ask Prometheus whether a livepatch may go to more hosts
    Gate(Box<gate::Gate>),
}

/// Runs the command. The exit code is the command's answer: see `--help` of each.
#[must_use]
pub fn main() -> ExitCode {
    let cli = parse();
    start_log(&cli.log);
    let result = match &cli.command {
        Command::Serve(command) => command.run(&cli),
        Command::Status(command) => command.run(&cli),
        Command::Blockers(command) => command.run(&cli),
        Command::Crashes(command) => command.run(&cli),
        Command::Preflight(command) => command.run(&cli),
        Command::Gate(command) => command.run(&cli),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&whole(&error));
            ExitCode::from(2)
        }
    }
}

fn start_log(log: &Log) {
    let level = match log.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
    };
    // Of the libraries only what is worth a warning; the BPF programs log under
    // their own crate's name.
    let filter = format!("warn,livepatch_monitor={level},livepatch_monitor_bpf={level}");
    let filter = if log.level == Level::Error {
        level.to_owned()
    } else {
        filter
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match log.format {
        Format::Text => builder.init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}

/// Prints to standard output; a reader that has left is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output takes no more: the answer is not whole"),
    }
}

/// Says something beside the answer. That nobody can be told is no reason to end.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "livepatch-monitor: {text}");
}

/// An error with its causes, unless its words have them already.
fn whole(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Reads the command line, or says what is wrong with it and ends.
fn parse() -> Cli {
    let error = match Cli::try_parse() {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    // clap does not say which argument it was.
    let broken = words.iter().find(|word| word.to_str().is_none());
    if let (ErrorKind::InvalidUtf8, Some(word)) = (error.kind(), broken) {
        complain(&format!(
            "the argument {word:?} is not UTF-8: only the path of a FILE or DIR may be so"
        ));
        std::process::exit(2);
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some((flag, value)) = negative(&words)
    {
        complain(&format!("{flag} takes no negative value such as {value}"));
        std::process::exit(2);
    }
    error.exit()
}

/// A flag with a value that begins as a negative number does: clap takes the value for
/// another flag.
fn negative(words: &[OsString]) -> Option<(&str, &str)> {
    words.windows(2).find_map(|pair| {
        let [flag, value] = pair else { return None };
        let (flag, value) = (flag.to_str()?, value.to_str()?);
        let digits = value.strip_prefix('-')?;
        let is_negative = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        (is_negative && flag.starts_with("--")).then_some((flag, value))
    })
}
