//! The result of one check of what a host allows the monitor.

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing is missing.
    Ok,
    /// It cannot be determined.
    Unknown,
    /// Something is missing or at risk.
    Warning,
    /// Livepatches fail, or the monitor is blind.
    Failure,
}

impl Status {
    /// The word that starts a line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "WARNING",
            Self::Failure => "FAILURE",
        }
    }
}

/// One line of `doctor`: what was checked and how to repair it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, which does not change.
    pub check: &'static str,
    /// Whether something is missing, and how bad that is.
    pub status: Status,
    /// What was found, as a sentence.
    pub what: String,
    /// What to do about it; empty if nothing is wrong.
    pub remedy: String,
}

impl Check {
    /// A check that found nothing missing.
    #[must_use]
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, what, "")
    }

    /// A check that found something, with the remedy.
    #[must_use]
    pub fn new(
        check: &'static str,
        status: Status,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            status,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Exit code: 0 all is well; 1 something is wrong; 2 nothing is known to be wrong, but not
/// everything could be checked.
#[must_use]
pub fn exit_code(checks: &[Check]) -> u8 {
    match checks.iter().map(|check| check.status).max() {
        Some(Status::Warning | Status::Failure) => 1,
        Some(Status::Ok) => 0,
        Some(Status::Unknown) | None => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_not_well_and_a_problem_is_worse() {
        let of = |statuses: &[Status]| {
            let checks: Vec<Check> = statuses
                .iter()
                .map(|status| Check::new("x", *status, "", ""))
                .collect();
            exit_code(&checks)
        };
        assert_eq!(of(&[]), 2);
        assert_eq!(of(&[Status::Ok]), 0);
        assert_eq!(of(&[Status::Ok, Status::Unknown]), 2);
        assert_eq!(of(&[Status::Unknown, Status::Warning]), 1);
        assert_eq!(of(&[Status::Failure, Status::Ok]), 1);
    }
}
