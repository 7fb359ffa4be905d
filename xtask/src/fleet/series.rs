//! Compares the series of a host with those of the recording of its state.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::sample::Sample;

/// Labels whose values are of a build of the monitor, a module or a kernel.
const OF_A_BUILD: &[&str] = &["build_id", "release", "revision", "srcversion", "version"];

/// What the first look at the tasks adds; a young transition may or may not have had it.
const OF_THE_TASKS: &[&str] = &[
    "livepatch_blocking_tasks",
    "livepatch_pending_tasks",
    "livepatch_stuck_tasks",
];

/// The series that only one of both has, one a line; nothing if there are none.
pub(crate) fn difference(state: &str, recorded: &str, served: &str) -> Result<String> {
    let known = series(state, recorded).context("the recording")?;
    let found = series(state, served).context("the exposition of the host")?;
    let gone = known.difference(&found).map(|series| format!("-{series}"));
    let new = found.difference(&known).map(|series| format!("+{series}"));
    Ok(gone.chain(new).collect::<Vec<_>>().join("\n"))
}

fn series(state: &str, text: &str) -> Result<BTreeSet<String>> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let samples = lines.map(|line| {
        Sample::parse(line).with_context(|| format!("not the Prometheus text format: {line}"))
    });
    let mut all = BTreeSet::new();
    for sample in samples {
        let sample = sample?;
        if state == "transition" && OF_THE_TASKS.contains(&sample.name) {
            continue;
        }
        let labels = sample.labels.iter().map(|(name, value)| {
            let value = if OF_A_BUILD.contains(name) {
                "~"
            } else {
                value
            };
            format!("{name}=\"{value}\"")
        });
        let labels: Vec<String> = labels.collect();
        all.insert(format!("{}{{{}}}", sample.name, labels.join(",")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = "# HELP x X\nlivepatch_supported 1\n\
        livepatch_kernel_info{release=\"6.12.1\"} 1\n";

    #[test]
    fn values_and_builds_may_differ() {
        let served = RECORDED.replace(" 1\n", " 2\n").replace("6.12.1", "6.12.2");
        assert_eq!(difference("stuck", RECORDED, &served).unwrap(), "");
    }

    #[test]
    fn what_is_gone_and_what_is_new_is_named() {
        let served = RECORDED.replace("livepatch_supported", "livepatch_new{patch=\"a\"}");
        assert_eq!(
            difference("stuck", RECORDED, &served).unwrap(),
            "-livepatch_supported{}\n+livepatch_new{patch=\"a\"}"
        );
        assert!(difference("stuck", RECORDED, "nonsense\n").is_err());
    }

    #[test]
    fn a_young_transition_may_have_its_tasks() {
        let served = format!("{RECORDED}livepatch_pending_tasks{{patch=\"a\"}} 1\n");
        assert_eq!(difference("transition", RECORDED, &served).unwrap(), "");
        assert_ne!(difference("stuck", RECORDED, &served).unwrap(), "");
    }
}
