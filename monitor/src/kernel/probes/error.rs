//! Why the BPF programs are not loaded, and how aya's errors are shown on one line.

use std::path::PathBuf;

use aya::programs::ProgramError;
use livepatch_core::degradation::Degradation;

use super::verifier;

/// No BPF program could be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbesError {
    /// The kernel has no livepatch support.
    #[error("this kernel has no {}", .0.display())]
    NoLivepatch(PathBuf),
    /// The programs could not be loaded: the reason.
    #[error("cannot load the BPF programs: {0}")]
    Load(String),
    /// A map of the object is missing or cannot be used: its name and the reason.
    #[error("BPF map {0}: {1}")]
    Map(&'static str, String),
}

impl ProbesError {
    /// The consequence for the monitor, and the remedy.
    #[must_use]
    pub fn degradation(&self) -> Degradation {
        const COST: &str = "transitions are detected by reading sysfs every second, tasks by walking /proc; attempts, signals and load failures are not seen";
        let (cost, remedy) = match self {
            Self::NoLivepatch(_) => (
                "without the kernel's own livepatch there is nothing to probe",
                "boot a kernel with CONFIG_LIVEPATCH=y, or check --path.sysfs",
            ),
            Self::Load(_) | Self::Map(..) => (
                COST,
                "run as root or with CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), on a kernel with CONFIG_BPF_SYSCALL=y",
            ),
        };
        Degradation {
            what: format!("no kernel probes ({self}): {cost}"),
            remedy: remedy.into(),
        }
    }
}

/// The error with its causes on one line, without the verifier's log.
pub(super) fn brief(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            match verifier::reason(&log) {
                Some(line) => format!("the kernel refuses the program: {io_error} ({line})"),
                None => format!("the kernel refuses the program: {io_error}"),
            }
        }
        error => chain(error),
    }
}

pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
