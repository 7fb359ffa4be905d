//! Runs of package managers, as their own histories and logs have them: what was asked for, by
//! whom, when, and whether it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Packages kept of a run.
pub const MAX_PACKAGES: usize = 1024;
/// Characters kept of a command line or a name.
const MAX_TEXT: usize = 512;

/// A run of a package manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRun {
    /// The package manager: a value of the label `manager`.
    pub manager: String,
    /// When it began, in seconds since 1970.
    pub begin_unix_seconds: i64,
    /// When it ended, in seconds since 1970; `None` if its history has no end.
    pub end_unix_seconds: Option<i64>,
    /// The command line, where the history has it.
    pub command: Option<String>,
    /// Who asked for it, where the history has it.
    pub user: Option<String>,
    /// The packages that it was to change.
    pub packages: Vec<String>,
}

/// Text of a foreign file, bounded.
pub(super) fn kept(text: &str) -> Option<String> {
    let text: String = text.trim().chars().take(MAX_TEXT).collect();
    (!text.is_empty()).then_some(text)
}

/// A crash that ended a boot, for [`under_way`]. All in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crash {
    /// A run that began before this is another boot's.
    pub earliest: f64,
    /// The latest moment at which the machine may have gone down.
    pub latest: f64,
}

/// The run that had not ended when the machine went down: the last one of its package manager in
/// that boot, and it ended after the crash or never. Of several managers' the last. One that was
/// killed long before the crash is such a run too, if that manager has not run since.
#[must_use]
pub fn under_way(runs: &[UpdateRun], crash: Crash) -> Option<&UpdateRun> {
    let seconds = |unix: i64| i32::try_from(unix).map_or(f64::from(u32::MAX), f64::from);
    let mut last: BTreeMap<&str, &UpdateRun> = BTreeMap::new();
    for run in runs {
        let begin = seconds(run.begin_unix_seconds);
        if begin < crash.earliest || begin > crash.latest {
            continue;
        }
        let known = last.entry(run.manager.as_str()).or_insert(run);
        if run.begin_unix_seconds > known.begin_unix_seconds {
            *known = run;
        }
    }
    last.into_values()
        .filter(|run| {
            run.end_unix_seconds
                .is_none_or(|end| seconds(end) > crash.latest)
        })
        .max_by_key(|run| run.begin_unix_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: Crash = Crash {
        earliest: 1_000.0,
        latest: 2_000.5,
    };

    fn run(begin: i64, end: Option<i64>) -> UpdateRun {
        UpdateRun {
            begin_unix_seconds: begin,
            end_unix_seconds: end,
            ..UpdateRun::default()
        }
    }

    #[test]
    fn a_run_was_under_way_if_it_began_before_and_ended_after_or_never() {
        for (begin, end, expected) in [
            (1_990, None, true),
            (1_990, Some(2_005), true),
            (1_990, Some(1_995), false),
            (2_010, None, false),
            // Of an earlier boot, and never closed.
            (500, None, false),
        ] {
            let found = under_way(&[run(begin, end)], CRASH).is_some();
            assert_eq!(found, expected, "{begin} {end:?}");
        }
    }

    #[test]
    fn of_two_the_last_counts() {
        let runs = [run(1_990, None), run(1_500, None)];
        assert_eq!(under_way(&runs, CRASH), runs.first());
        // The last one ended well: the crash did not interrupt the one before it.
        let runs = [run(1_990, Some(1_995)), run(1_500, None)];
        assert_eq!(under_way(&runs, CRASH), None);
        // Of another manager it says nothing.
        let other = UpdateRun {
            manager: "dnf".to_owned(),
            ..run(1_500, None)
        };
        let runs = [run(1_990, Some(1_995)), other];
        assert_eq!(under_way(&runs, CRASH), runs.last());
    }
}
