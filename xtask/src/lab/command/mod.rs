//! `cargo xtask lab`: boots a guest with a shell, or runs one command in it, on one of the kernels.

mod result;

use std::{
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use self::result::Ending;
use super::{
    initramfs::{DISK_MODULES, Extras, NETWORK_MODULES},
    kernels::{self, Line},
    machine::{self, Prepared},
    vm,
};
use crate::{
    build::guest_binaries::{self, Programs},
    host::{packages, paths, process},
};

const INIT: &str = include_str!("init.sh");

/// Memory of the guest in MiB.
const MEMORY: u32 = 1024;

const POLL: Duration = Duration::from_millis(50);

/// Lines of the kernel log that an error shows.
const CONSOLE_LINES: usize = 40;

const WELCOME: &str = "\
\n    livepatch-monitor is on PATH, the test modules are in /modules (tests/modules).\n\
    For example, with holder threads in a function that is to be patched:\n\n\
        livepatch-monitor serve &\n\
        insmod /modules/lpm_target.ko; insmod /modules/lpm_patch_a.ko\n\
        livepatch-monitor status\n\n\
    `exit` powers the machine off.\n\n";

/// Arguments of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(clap::Subcommand)]
enum LabCommand {
    /// Boot a guest with an interactive shell on this terminal
    ///
    /// The guest has busybox, the monitor as `livepatch-monitor`, the test modules under
    /// /modules, and no network except its loopback interface. `exit` powers it off, and
    /// everything in it is lost.
    Shell(Guest),
    /// Run one command in a guest; print its output and return its exit code
    ///
    /// The guest is that of `lab shell`. Standard output and standard error of the command arrive
    /// together on standard output; its standard input is empty. The exit code is the command's, or
    /// 125 where it has none: the kernel or the command is unknown, the guest died, or the time
    /// limit was reached.
    #[command(after_help = "\
Examples:
  cargo xtask lab run --kernel 7.2 -- livepatch-monitor preflight /modules/lpm_patch_a.ko
  cargo xtask lab run --kernel 5.10 -- sh -c 'insmod /modules/lpm_target.ko && lsmod'")]
    Run {
        #[command(flatten)]
        guest: Guest,
        /// Time limit for the guest, from its start
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        timeout: u64,
        /// The command and its arguments; they are not interpreted by a shell
        #[arg(last = true, required = true, value_name = "COMMAND")]
        words: Vec<String>,
    },
    /// Fetch kernels, and build the test modules for them, so that later runs need no network
    Fetch {
        /// Kernels to fetch
        #[arg(long, value_delimiter = ',', default_value = kernels::ALL)]
        kernel: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Guest {
    /// The kernel to boot [default: 6.12, or another one that is in the cache]
    #[arg(long)]
    kernel: Option<String>,
}

/// Runs the subcommand; returns the command's exit code.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let code = match &arguments.command {
        LabCommand::Fetch { kernel } => fetch(kernel).map(|()| 0),
        LabCommand::Shell(guest) => shell(guest),
        LabCommand::Run {
            guest,
            timeout,
            words,
        } => command(guest, Duration::from_secs(*timeout), words),
    };
    result::exit(code)
}

fn fetch(names: &[String]) -> Result<()> {
    let lines = kernels::lines(names)?;
    packages::install_vm_packages()?;
    for line in lines {
        let kernel = kernels::prepare(line)?;
        super::modules::build(&kernel)?;
        eprintln!("    kernel {kernel} is in {}", kernel.folder.display());
    }
    Ok(())
}

fn shell(guest: &Guest) -> Result<u8> {
    // Checked before anything is built.
    let line = kernels::one(guest.kernel.as_deref())?;
    ensure!(
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
        "`lab shell` needs a terminal; `cargo xtask lab run -- COMMAND` runs a command without one"
    );
    let (rows, columns) = terminal_size();
    let settings = format!("interactive=yes\nrows={rows}\ncolumns={columns}\n");
    packages::install_vm_packages()?;
    let programs = guest_binaries::build_all()?;
    let prepared = prepare(line, &programs, &settings, "")?;
    eprintln!("==> booting {}; `exit` ends it", prepared.kernel);
    ending(&prepared, boot(&prepared, None)?, "sh")
}

fn command(guest: &Guest, timeout: Duration, words: &[String]) -> Result<u8> {
    let line = kernels::one(guest.kernel.as_deref())?;
    packages::install_vm_packages()?;
    in_guest(line, &guest_binaries::build_all()?, timeout, words)
}

/// Runs one command in a guest with these programs; returns its exit code.
pub(crate) fn in_guest(
    line: &Line,
    programs: &Programs,
    timeout: Duration,
    words: &[impl AsRef<str>],
) -> Result<u8> {
    let program = words.first().context("no command")?.as_ref();
    let settings = format!("interactive=no\nprogram={}\n", quoted(program));
    let quoted: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
    let prepared = prepare(
        line,
        programs,
        &settings,
        &format!("exec {}\n", quoted.join(" ")),
    )?;
    ending(&prepared, boot(&prepared, Some(timeout))?, program)
}

fn prepare(line: &Line, programs: &Programs, settings: &str, command: &str) -> Result<Prepared> {
    let busybox = busybox()?;
    let modules = [NETWORK_MODULES, DISK_MODULES].concat();
    let busybox =
        fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let extras = Extras {
        modules_on_demand: &modules,
        init: Some(INIT),
        contents: &[
            ("bin/busybox", &busybox),
            ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
            ("lab/settings", settings.as_bytes()),
            ("lab/command", command.as_bytes()),
            ("lab/welcome", WELCOME.as_bytes()),
        ],
        ..Extras::default()
    };
    machine::prepare(line, programs, "lab", extras)
}

/// A static busybox: the one on PATH may need libraries that the guest does not have.
fn busybox() -> Result<PathBuf> {
    let folder = paths::cache()?.join("busybox");
    let program = ["bin/busybox", "usr/bin/busybox"].map(|path| folder.join(path));
    let find = || program.iter().find(|path| path.is_file()).cloned();
    if let Some(found) = find() {
        return Ok(found);
    }
    let partial = folder.with_extension("partial");
    paths::empty(&partial)?;
    packages::extract(&["busybox-static"], &partial, "the shell of a lab guest")?;
    fs::rename(&partial, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    find().with_context(|| format!("no busybox under {}", folder.display()))
}

/// Boots the guest and waits for its end, at most for `timeout` if there is one. Its second serial
/// port is this program's standard input and output.
fn boot(prepared: &Prepared, timeout: Option<Duration>) -> Result<Ending> {
    let console = prepared.console();
    let words = super::command_line::words().join(" ");
    let append = format!("{words} TERM={}", terminal());
    let mut command = vm::qemu(
        &prepared.kernel.image,
        &prepared.initramfs,
        MEMORY,
        &append,
        false,
    );
    vm::add_ports(&mut command, &console);
    let errors = prepared.folder.join("qemu.log");
    let file =
        fs::File::create(&errors).with_context(|| format!("cannot write {}", errors.display()))?;
    if timeout.is_some() {
        command.stdin(Stdio::null());
    }
    let mut qemu = command.stderr(file).spawn().context("cannot start QEMU")?;
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = qemu.try_wait().context("cannot wait for QEMU")? {
            break status;
        }
        if timeout.is_some_and(|timeout| begin.elapsed() > timeout) {
            qemu.kill().context("cannot end QEMU")?;
            qemu.wait().context("cannot wait for QEMU")?;
            return Ok(Ending::Timeout(begin.elapsed()));
        }
        thread::sleep(POLL);
    };
    ensure!(
        status.success(),
        "QEMU failed: {status}\n{}",
        process::last_lines(&errors, CONSOLE_LINES)?
    );
    let text = fs::read(&console).with_context(|| format!("cannot read {}", console.display()))?;
    Ok(Ending::read(&String::from_utf8_lossy(&text)))
}

/// The command's exit code, or an error that says why there is none.
fn ending(prepared: &Prepared, ending: Ending, program: &str) -> Result<u8> {
    ending.code(program, &console_end(&prepared.console()))
}

fn console_end(console: &Path) -> String {
    let tail = process::last_lines(console, CONSOLE_LINES).unwrap_or_default();
    format!("the end of {}:\n{tail}", console.display())
}

/// Rows and columns of this terminal.
fn terminal_size() -> (u16, u16) {
    let output = Command::new("stty")
        .arg("size")
        .stdin(Stdio::inherit())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(rows), Some(columns)) if rows > 0 && columns > 0 => (rows, columns),
        _ => (24, 80),
    }
}

fn terminal() -> String {
    std::env::var("TERM")
        .ok()
        .filter(|name| {
            let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
            !name.is_empty() && name.chars().all(plain)
        })
        .unwrap_or_else(|| "linux".to_owned())
}

/// Quotes a word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn the_shell_takes_a_quoted_word_as_it_is() {
        for word in ["a b", "it's", "$HOME `id`", "", "\\", "a\nb"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }
}
