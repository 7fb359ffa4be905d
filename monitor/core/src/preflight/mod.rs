//! Checks before a livepatch is loaded: what its module contains, whether this host would
//! accept it, and which tasks would block it. Pure: takes and returns values.

pub mod findings;
pub mod forecast;
pub mod host;
pub mod module;
pub mod unpack;

use serde::Serialize;

/// What a finding means for the load, from the least to the most severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information only: no influence on the verdict or the exit code.
    Info,
    /// The load may go wrong, or the patch may have less effect than expected.
    Warning,
    /// A fact that decides is unknown.
    Unknown,
    /// The kernel will refuse the module, or it must not be loaded on this host.
    Failure,
}

/// One result of the checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Severity of the finding.
    pub severity: Severity,
    /// Identifier of the check, for programs.
    pub check: &'static str,
    /// The finding as a sentence.
    pub what: String,
    /// What to do about it; empty if there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// A finding about one module or the host.
    #[must_use]
    pub fn new(
        severity: Severity,
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            check,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// The verdict over all findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing prevents the load.
    Clear,
    /// The module can be loaded, but the warnings should be read first.
    Warnings,
    /// A fact that decides is unknown.
    CannotTell,
    /// The module will not load, or must not be loaded.
    WillFail,
}

impl Verdict {
    /// The verdict for these findings: that of the most severe.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        match findings.iter().map(|finding| finding.severity).max() {
            None | Some(Severity::Info) => Self::Clear,
            Some(Severity::Warning) => Self::Warnings,
            Some(Severity::Unknown) => Self::CannotTell,
            Some(Severity::Failure) => Self::WillFail,
        }
    }

    /// Exit code of the command. "Cannot determine" counts as a failure.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clear => 0,
            Self::Warnings => 1,
            Self::CannotTell | Self::WillFail => 2,
        }
    }

    /// The verdict as the report prints it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Warnings => "warnings",
            Self::CannotTell => "cannot determine",
            Self::WillFail => "will fail",
        }
    }
}
