//! Runs programs, and reports steps and how long they took.

use std::{
    cell::Cell,
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A step that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) what: String,
    /// The number of enclosing steps.
    pub(crate) depth: usize,
    /// From its start to its end.
    pub(crate) elapsed: Duration,
}

/// The steps that have ended; a step comes after its parts.
static STEPS: Mutex<Vec<Step>> = Mutex::new(Vec::new());

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// The steps that have ended; a step comes after its parts.
pub(crate) fn steps() -> Vec<Step> {
    STEPS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Prints the name of a step, runs it, and prints how long it took.
pub(crate) fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let begin = Instant::now();
    let depth = DEPTH.replace(DEPTH.get() + 1);
    let result = run();
    DEPTH.set(depth);
    STEPS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Step {
            what: what.to_owned(),
            depth,
            elapsed: begin.elapsed(),
        });
    let verdict = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!(
        "    {verdict}: {what} ({:.1} s)",
        begin.elapsed().as_secs_f64()
    );
    result
}

/// Runs a program with this terminal; its failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| not_started(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a program and returns what it printed on standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| not_started(command))?;
    if !output.status.success() {
        bail!(
            "`{}` failed: {}\n{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", shown(command)))
}

/// Runs a program whose output matters only when it fails: it goes to `log`.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file
        .try_clone()
        .with_context(|| format!("cannot share {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .status()
        .with_context(|| not_started(command))?;
    if !status.success() {
        bail!(
            "`{}` failed: {status}; the end of {}:\n{}",
            shown(command),
            log.display(),
            last_lines(log, 30)?
        );
    }
    Ok(())
}

/// The last `count` lines of a text file, whatever its encoding.
pub(crate) fn last_lines(path: &Path, count: usize) -> Result<String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(count);
    Ok(lines.get(first..).unwrap_or_default().join("\n"))
}

/// Finds a program on PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    words.join(" ")
}

fn not_started(command: &Command) -> String {
    format!("cannot start `{}`", command.get_program().to_string_lossy())
}
