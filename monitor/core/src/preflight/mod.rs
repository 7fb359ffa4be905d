//! Before a livepatch is loaded: what its module holds, what this host would say to it,
//! and which tasks would hold it up. Values in, values out.

pub mod findings;
pub mod forecast;
pub mod host;
pub mod module;
pub mod unpack;

use serde::Serialize;

/// What a finding means for the load, from the least to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It may go wrong, or do less than is hoped.
    Warning,
    /// A question that decides cannot be answered.
    Unknown,
    /// The kernel will refuse it, or it must not be loaded here.
    Failure,
}

/// One thing found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was checked: a fixed word, for programs.
    pub check: &'static str,
    /// What was found, in a sentence.
    pub what: String,
    /// What to do about it; empty where there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// A finding.
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

/// What all findings come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is in the way.
    Clear,
    /// It can be loaded; read the warnings first.
    Warnings,
    /// Something that decides is not known.
    CannotTell,
    /// It will not load, or must not.
    WillFail,
}

impl Verdict {
    /// The worst of the findings.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        match findings.iter().map(|finding| finding.severity).max() {
            None | Some(Severity::Info) => Self::Clear,
            Some(Severity::Warning) => Self::Warnings,
            Some(Severity::Unknown) => Self::CannotTell,
            Some(Severity::Failure) => Self::WillFail,
        }
    }

    /// The command's answer: what cannot be told is no better than what fails.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clear => 0,
            Self::Warnings => 1,
            Self::CannotTell | Self::WillFail => 2,
        }
    }

    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Warnings => "warnings",
            Self::CannotTell => "cannot tell",
            Self::WillFail => "will fail",
        }
    }
}
