//! The command line: one module per command.

mod blockers;
mod check;
mod crashes;
mod doctor;
mod gate;
mod preflight;
mod serve;
mod status;
mod transition;
pub mod values;
mod wait;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use tracing::level_filters::LevelFilter;

use crate::{
    crash::{look::Limits, sources::Sources},
    logging,
};
use livepatch_core::patch::Beside;

/// Shows within a second whether a kernel livepatch is being applied or is stuck, and
/// after a crash whether a livepatch was involved.
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

/// The command line as clap knows it, for generating manual pages and shell completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Paths")]
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
    /// Where the exporter keeps the state that must survive a restart
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/livepatch-monitor",
        global = true
    )]
    state_dir: PathBuf,
    /// Where the kernel exposes what pstore kept of a crash
    #[arg(
        long = "path.pstore",
        value_name = "DIR",
        default_value = "/sys/fs/pstore",
        global = true
    )]
    pstore: PathBuf,
    /// Where systemd-pstore archives pstore's files
    #[arg(
        long = "path.systemd-pstore",
        value_name = "DIR",
        default_value = "/var/lib/systemd/pstore",
        global = true
    )]
    systemd_pstore: PathBuf,
    /// Where kdump writes its logs
    #[arg(
        long = "path.kdump",
        value_name = "DIR",
        default_value = "/var/crash",
        global = true
    )]
    kdump: PathBuf,
    /// Root of the host's file system, to find its packages and installed livepatches
    #[arg(
        long = "path.rootfs",
        value_name = "DIR",
        default_value = "/",
        global = true
    )]
    rootfs: PathBuf,
}

impl Paths {
    /// One message for each configured path that is not a directory. The crash directories
    /// are optional: they are checked only if they exist.
    fn problems(&self) -> Vec<String> {
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
            .filter_map(|(flag, path)| not_a_directory(flag, path))
            .collect()
    }

    fn sources(&self) -> Sources {
        Sources {
            pstore: self.pstore.clone(),
            systemd_pstore: self.systemd_pstore.clone(),
            kdump: self.kdump.clone(),
            sysfs: self.sysfs.clone(),
            rootfs: self.rootfs.clone(),
            owner: 0,
            limits: Limits::default(),
        }
    }
}

/// Why the path given with `flag` cannot be used as a directory; `None` if it can.
fn not_a_directory(flag: &str, path: &Path) -> Option<String> {
    let problem = match path.metadata() {
        Err(error) => error.to_string(),
        Ok(metadata) if !metadata.is_dir() => "not a directory".to_owned(),
        Ok(_) => return None,
    };
    Some(format!(
        "{flag} {}: {problem}; nothing will be read from it",
        path.display()
    ))
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
struct Log {
    /// Least severe level to log; debug includes the log of the BPF programs
    #[arg(
        long = "log.level",
        value_name = "LEVEL",
        default_value = "info",
        global = true
    )]
    level: Level,
    /// Format of log lines
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

/// What the commands print on a kernel without livepatch support.
fn without_livepatch(beside: &Beside) -> String {
    if beside.mechanisms.is_empty() {
        return "this kernel has no livepatch support; there is nothing to show\n".to_owned();
    }
    let mechanisms = beside.mechanisms.iter();
    mechanisms.map(|one| one.sentence() + "\n").collect()
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this host's livepatches and serve metrics for Prometheus
    Serve(serve::Serve),
    /// Show which patches are loaded and how far a running transition has got
    Status(status::Status),
    /// List the tasks that hold up the running transition, grouped by cause
    Blockers(blockers::Blockers),
    /// Wait until a transition has completed, and show how far it has got
    Wait(wait::Wait),
    /// List this host's crashes, what caused them and whether a livepatch was involved
    Crashes(crashes::Crashes),
    /// Check what this kernel, these privileges and this host's settings allow the monitor
    Doctor(doctor::Doctor),
    /// Check, before a livepatch is loaded, whether it will fail and which tasks would block it
    Preflight(preflight::Preflight),
    /// Decide from Prometheus's data whether a livepatch may go to more hosts
    Gate(Box<gate::Gate>),
}

/// Runs the command and returns its exit code, which `--help` of each command documents.
#[must_use]
pub fn main() -> ExitCode {
    outlive_file_limits();
    let cli = parse();
    start_log(&cli.log);
    let result = match &cli.command {
        Command::Serve(command) => command.run(&cli),
        Command::Status(command) => command.run(&cli),
        Command::Blockers(command) => command.run(&cli),
        Command::Wait(command) => command.run(&cli),
        Command::Crashes(command) => command.run(&cli),
        Command::Doctor(command) => command.run(&cli),
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
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let format = match log.format {
        Format::Text => logging::Format::Text,
        Format::Json => logging::Format::Json,
    };
    logging::start(level, format);
}

/// Lets writes beyond a limit on file sizes (`ulimit -f`, `LimitFSIZE=`) fail with an
/// error, where the kernel would end the process.
fn outlive_file_limits() {
    // SAFETY: no handler is installed, and no other thread runs yet.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Prints to standard output. A closed pipe is not an error: the reader has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output; the output is incomplete"),
    }
}

/// Prints a message to standard error. A failure to write it is ignored.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "livepatch-monitor: {text}");
}

/// An error with its chain of causes, leaving out causes that its text already contains.
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

/// Parses the command line; prints what is wrong with it and exits if it is invalid.
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
            "the argument {word:?} is not UTF-8: only a FILE or DIR path may be other than UTF-8"
        ));
        std::process::exit(2);
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some((flag, value)) = negative(&words)
    {
        complain(&format!(
            "{flag} does not take a negative value such as {value}"
        ));
        std::process::exit(2);
    }
    error.exit()
}

/// A flag and its value, if the value is a negative number: clap mistakes such a value for
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
