//! Runs `livepatch-monitor gate` and measures how long it takes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::host::{paths, process};

/// The gate command of a monitor, with its Prometheus and patch.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    program: PathBuf,
    prometheus: String,
    patch: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    /// The moment of the scenario at which it was run.
    pub(super) moment: &'static str,
    /// Its exit code: 0 continue, 1 hold, 2 cannot determine.
    pub(super) code: i32,
    /// From its start to its end, in seconds.
    pub(super) seconds: f64,
    pub(super) text: String,
}

/// Builds the monitor with plain `cargo build`.
pub(super) fn build() -> Result<PathBuf> {
    process::run(Command::new(env!("CARGO")).args([
        "build",
        "--quiet",
        "--package",
        "livepatch-monitor",
    ]))?;
    Ok(paths::target()?.join("debug/livepatch-monitor"))
}

impl Gate {
    pub(super) fn new(program: &Path, prometheus: String, patch: &str) -> Self {
        Self {
            program: program.to_owned(),
            prometheus,
            patch: patch.to_owned(),
        }
    }

    /// Runs it with these further arguments.
    pub(super) fn ask(&self, moment: &'static str, further: &[&str]) -> Result<Answer> {
        let begin = Instant::now();
        let output = Command::new(&self.program)
            .args([
                "gate",
                "--prometheus",
                &self.prometheus,
                "--patch",
                &self.patch,
            ])
            .args(further)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let seconds = begin.elapsed().as_secs_f64();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let Some(code) = output.status.code() else {
            bail!("the gate was ended: {}\n{text}", output.status);
        };
        Ok(Answer {
            moment,
            code,
            seconds,
            text,
        })
    }
}
