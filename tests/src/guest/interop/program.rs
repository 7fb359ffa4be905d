//! A Debian program, and its output.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::eventually;

/// The PATH of an ordinary root, and no locale.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` if a signal ended it.
    pub(super) code: Option<i32>,
    /// Its output, on either stream.
    pub(super) output: String,
}

impl Ended {
    /// Expects exit code 0.
    pub(super) fn success(self) -> Result<Self> {
        ensure!(self.code == Some(0), "it ended with {:?}", self);
        Ok(self)
    }
}

/// A running program; killed when it is dropped.
pub(super) struct Running {
    child: Child,
    log: String,
}

impl Running {
    /// Starts it; `first_on_path` is a directory put first on PATH.
    pub(super) fn start(words: &[&str], first_on_path: Option<&str>) -> Result<Self> {
        let (program, arguments) = words.split_first().context("no program to run")?;
        let name = program.rsplit('/').next().unwrap_or(program);
        let log = format!("/tmp/{name}.log");
        let file = File::create(&log).with_context(|| format!("cannot make {log}"))?;
        let path = match first_on_path {
            Some(folder) => format!("{folder}:{PATH}"),
            None => PATH.to_owned(),
        };
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("cannot share a log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child, log })
    }

    /// Its output so far.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for this text in its output.
    pub(super) fn wait_for(&mut self, what: &str, timeout: Duration) -> Result<()> {
        eventually(timeout, || {
            let output = self.output();
            ensure!(output.contains(what), "it has not said `{what}`: {output}");
            Ok(())
        })
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(super) fn interrupt(&self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("an absurd pid")?;
        let pid = Pid::from_raw(pid).context("pid 0")?;
        kill_process(pid, Signal::INT).context("cannot interrupt it")
    }

    /// Waits until it ends.
    pub(super) fn end(mut self, timeout: Duration) -> Result<Ended> {
        let status = eventually(timeout, || {
            let status = self.child.try_wait().context("cannot wait")?;
            status.with_context(|| format!("it still runs and has said {}", self.output()))
        })?;
        Ok(Ended {
            code: status.code(),
            output: self.output(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
pub(super) fn run(words: &[&str], timeout: Duration) -> Result<Ended> {
    let shown = words.join(" ");
    Running::start(words, None)?
        .end(timeout)
        .with_context(|| format!("`{shown}`"))
}
