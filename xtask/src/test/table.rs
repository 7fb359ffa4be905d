//! Tables of how long the scenarios and steps of a run took.

use std::{fmt::Write as _, time::Duration};

use crate::host::process::Step;

/// A scenario that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timed {
    /// Its name, with its variant if it is not the usual one.
    pub(super) scenario: String,
    pub(super) kernel: String,
    /// The time from start to end, including reboots.
    pub(super) elapsed: Duration,
}

/// A table of seconds, with one row per scenario and one column per kernel; `-` if it did not run.
pub(super) fn scenarios(timed: &[Timed], kernels: &[&str]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for entry in timed {
        if !names.contains(&entry.scenario.as_str()) {
            names.push(&entry.scenario);
        }
    }
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}", "seconds");
    for kernel in kernels {
        let _ = write!(text, " {kernel:>11}");
    }
    text.push('\n');
    let sum = |of: &dyn Fn(&Timed) -> bool| -> Option<f64> {
        let mut found = timed.iter().filter(|entry| of(entry)).peekable();
        found.peek()?;
        Some(found.map(|entry| entry.elapsed.as_secs_f64()).sum())
    };
    let mut row = |name: &str, of: &dyn Fn(&Timed) -> bool| {
        let _ = write!(text, "{name:width$}");
        for kernel in kernels {
            match sum(&|entry| entry.kernel == *kernel && of(entry)) {
                Some(seconds) => {
                    let _ = write!(text, " {seconds:>11.1}");
                }
                None => {
                    let _ = write!(text, " {:>11}", "-");
                }
            }
        }
        text.push('\n');
    };
    for name in &names {
        row(name, &|entry| entry.scenario == *name);
    }
    row("all", &|_| true);
    text
}

/// A table with one row per step in the order in which they ended, so that a step is below its
/// parts, which are indented more. Steps run in parallel, so their sum is larger than the duration
/// of the run.
pub(super) fn steps(steps: &[Step]) -> String {
    let mut text = String::from("seconds\n");
    for step in steps {
        let _ = writeln!(
            text,
            "{:>7.1}  {}{}",
            step.elapsed.as_secs_f64(),
            "  ".repeat(step.depth),
            step.what
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_a_row_and_a_kernel_a_column() {
        let timed = |scenario: &str, kernel: &str, millis| Timed {
            scenario: scenario.to_owned(),
            kernel: kernel.to_owned(),
            elapsed: Duration::from_millis(millis),
        };
        let text = scenarios(
            &[
                timed("forced", "6.12", 1_500),
                timed("nmi", "6.12", 20_000),
                timed("forced", "7.2", 2_000),
            ],
            &["6.12", "7.2"],
        );
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0], ["seconds", "6.12", "7.2"]);
        assert_eq!(rows[1], ["forced", "1.5", "2.0"]);
        assert_eq!(rows[2], ["nmi", "20.0", "-"]);
        assert_eq!(rows[3], ["all", "21.5", "2.0"]);
    }
}
