//! The monitor under test: as a service, and as a command.

use std::{
    fs,
    fs::File,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use livepatch_monitor_test_support::http;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    helpers::{self, Confinement, Task},
};

pub(crate) const PROGRAM: &str = "/bin/livepatch-monitor";
/// Where scenarios scrape it.
pub(crate) const ADDRESS: &str = "127.0.0.1:9969";

/// The monitor's state directory.
pub(crate) const STATE: &str = "/var/lib/livepatch-monitor";
/// Where its log goes.
pub(crate) const LOG: &str = "/tmp/monitor.log";

/// Loading BPF programs takes an emulated processor a while.
const START: Duration = seconds(60);
const STOP: Duration = seconds(20);

/// How much of the log a failure shows.
const LOG_LINES: usize = 30;

/// A running `livepatch-monitor serve`.
pub(crate) struct Monitor {
    child: Child,
}

impl Monitor {
    /// Starts it and waits until it listens. The log is appended to the earlier one. `through` is a
    /// command that runs it, or empty.
    pub(crate) fn start(
        confinement: Confinement,
        through: &[&str],
        arguments: &[&str],
    ) -> Result<Self> {
        fs::create_dir_all(STATE).with_context(|| format!("cannot make {STATE}"))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(LOG)
            .with_context(|| format!("cannot open {LOG}"))?;
        let before = listening();
        let command = through.iter().chain(&[PROGRAM, "serve"]).chain(arguments);
        let child = helpers::command(&Task::Confined {
            confinement,
            command: command.map(|word| (*word).to_owned()).collect(),
        })?
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log")?)
        .stderr(log)
        .spawn()
        .context("cannot start the monitor")?;
        let mut monitor = Self { child };
        // One that has already ended will never listen.
        let ended = eventually(START, || match monitor.child.try_wait() {
            Ok(None) => {
                ensure!(listening() > before, "the monitor does not listen");
                Ok(None)
            }
            Ok(Some(status)) => Ok(Some(status)),
            Err(error) => Err(error).context("cannot wait for the monitor"),
        })?;
        if let Some(status) = ended {
            bail!("the monitor has ended: {status}");
        }
        // From here on every scrape must succeed.
        monitor.scrape().context("the first scrape")?;
        Ok(monitor)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One scrape, which must not contradict itself.
    pub(crate) fn scrape(&self) -> Result<Exposition> {
        let exposition = Exposition::parse(&http::body(ADDRESS, "/metrics")?)?;
        exposition.expect_consistent()?;
        Ok(exposition)
    }

    /// Stops it as a service manager does, and expects exit code 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = only_child(self.child.id()).unwrap_or(self.child.id());
        let pid = i32::try_from(pid).context("an absurd pid")?;
        let pid = Pid::from_raw(pid).context("pid 0")?;
        kill_process(pid, Signal::TERM).context("cannot signal the monitor")?;
        let status = self.wait_ended(STOP).context("after SIGTERM");
        if status.is_err() {
            self.kill()?;
        }
        let status = status?;
        ensure!(status.success(), "the monitor ended with {status}");
        Ok(())
    }

    /// Waits until it has ended.
    pub(crate) fn wait_ended(&mut self, timeout: Duration) -> Result<ExitStatus> {
        eventually(timeout, || {
            let status = self.child.try_wait().context("cannot wait")?;
            status.context("the monitor still runs")
        })
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the monitor")?;
        self.child.wait().context("cannot wait for the monitor")?;
        Ok(())
    }
}

/// The monitor, if another program runs it as its child.
fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.trim().parse().ok()
}

/// What the monitors of this scenario wrote to their standard streams.
pub(crate) fn log() -> String {
    String::from_utf8_lossy(&fs::read(LOG).unwrap_or_default()).into_owned()
}

/// How many monitors of this scenario have said that they listen.
fn listening() -> usize {
    log().matches("listening").count()
}

/// The end of [`log`].
pub(crate) fn log_tail() -> String {
    let log = log();
    let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// Removes log and state, so that the next scenario starts without any.
pub(crate) fn forget() -> Result<()> {
    for (path, result) in [
        (LOG, fs::remove_file(LOG)),
        (STATE, fs::remove_dir_all(STATE)),
    ] {
        match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {path}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The result of a command of the monitor.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    /// Its standard output, byte for byte.
    pub(crate) output: Vec<u8>,
    pub(crate) errors: String,
}

/// Runs `livepatch-monitor ARGUMENTS` to its end.
pub(crate) fn command(arguments: &[&str]) -> Result<Answer> {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {PROGRAM}"))?;
    Ok(Answer {
        code: output
            .status
            .code()
            .with_context(|| format!("{PROGRAM} {}", output.status))?,
        output: output.stdout,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The output of `livepatch-monitor blockers --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Blockers {
    /// The patch in transition.
    pub(crate) patch: Option<String>,
    /// Direction of the transition: `patch` or `unpatch`.
    pub(crate) direction: Option<String>,
    /// How long it has been running.
    pub(crate) running_for_seconds: Option<f64>,
    /// How many tasks have not switched.
    pub(crate) pending: u64,
    /// The first of these tasks.
    pub(crate) tasks: Vec<PendingTask>,
}

/// A task that has not switched.
#[derive(Debug, Deserialize)]
pub(crate) struct PendingTask {
    pub(crate) tid: u32,
    pub(crate) pid: u32,
    pub(crate) comm: String,
    /// Whether it is a kernel thread.
    pub(crate) kthread: bool,
    /// The unit of its cgroup.
    pub(crate) unit: Option<String>,
    /// Why it has not switched.
    pub(crate) reason: String,
    /// The object of the function it sleeps in.
    pub(crate) object: Option<String>,
    /// The function it sleeps in.
    pub(crate) function: Option<String>,
    /// Its stack, the innermost frame first.
    pub(crate) stack: Vec<String>,
}

impl Blockers {
    /// The task with this thread id.
    pub(crate) fn task(&self, tid: u32) -> Result<&PendingTask> {
        self.tasks
            .iter()
            .find(|task| task.tid == tid)
            .with_context(|| format!("`blockers` does not name thread {tid}: {self:?}"))
    }
}

/// Runs `livepatch-monitor blockers --json`; the exit code must agree with the output.
pub(crate) fn blockers() -> Result<Blockers> {
    let answer = command(&["blockers", "--json"])?;
    let output = String::from_utf8(answer.output).context("`blockers --json` is not UTF-8")?;
    let blockers: Blockers = serde_json::from_str(&output).with_context(|| {
        format!(
            "`blockers --json` ended with {} and said `{output}` {}",
            answer.code, answer.errors
        )
    })?;
    ensure!(
        answer.code == i32::from(blockers.pending > 0),
        "`blockers --json` ended with {} and said {blockers:?}",
        answer.code
    );
    Ok(blockers)
}
