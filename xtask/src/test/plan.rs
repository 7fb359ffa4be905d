//! Which machines a run has, and which scenarios each of them.

use livepatch_monitor_tests::protocol::{CRASH_SCENARIOS, ENDURANCE_SCENARIOS, INTEROP_SCENARIOS};

use crate::{chain, kernels::Line, rollout};

/// The scenario of two machines, a Prometheus and an Alertmanager.
pub(super) const ROLLOUT: &str = "rollout";
/// The packages, and their life under systemd.
pub(super) const PACKAGES: &str = "packages";

/// The kernel of what is run on one only.
const ONE_KERNEL: &str = rollout::KERNEL;

/// What a machine is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The scenarios of one boot.
    Scenarios,
    /// Those that take the machine down, with a memory for its last words.
    Chain(&'static str),
    /// Those beside real programs of others.
    Neighbours,
    /// Those of a monitor that runs for long or is stormed.
    Endurance,
}

/// Those that have a kind of machine of their own; all others are of one boot.
const OF_A_KIND: [(Kind, &[&str]); 3] = [
    (Kind::Chain(chain::MAIN_MEMORY), &CRASH_SCENARIOS),
    (Kind::Neighbours, &INTEROP_SCENARIOS),
    (Kind::Endurance, &ENDURANCE_SCENARIOS),
];

impl Kind {
    fn of(scenario: &str) -> Self {
        OF_A_KIND
            .iter()
            .find(|(_, names)| names.contains(&scenario))
            .map_or(Self::Scenarios, |(kind, _)| *kind)
    }
}

/// The machines of a line, and the names of what they run, or `all`. `once` says whether
/// it is the one that has the machines that a full run has once; `asked` are scenarios,
/// none is a full run.
pub(super) fn plan(full_run: Option<&[&str]>, once: bool, asked: &[&str]) -> Vec<(Kind, String)> {
    let mut runs = match (asked, full_run) {
        ([], None) => {
            let chains = chain::MEMORIES.map(|memory| match memory {
                chain::MAIN_MEMORY => (Kind::Chain(memory), "all".to_owned()),
                _ => of_each_memory(memory),
            });
            let mut runs = vec![(Kind::Scenarios, "all".to_owned())];
            runs.extend(chains);
            runs
        }
        ([], Some(names)) => sorted(names),
        (names, _) => sorted(names),
    };
    if asked.is_empty() && once {
        runs.push((Kind::Neighbours, "all".to_owned()));
        runs.push((Kind::Endurance, "all".to_owned()));
    }
    // A line with a list of its own is there for what it lists.
    if asked.contains(&chain::OF_EACH_MEMORY) {
        let others = chain::MEMORIES
            .into_iter()
            .filter(|memory| *memory != chain::MAIN_MEMORY);
        runs.extend(others.map(of_each_memory));
    }
    runs
}

/// The crash of one scenario shows what each memory keeps.
fn of_each_memory(memory: &'static str) -> (Kind, String) {
    (Kind::Chain(memory), chain::OF_EACH_MEMORY.to_owned())
}

/// Each to the machine of its kind.
fn sorted(names: &[&str]) -> Vec<(Kind, String)> {
    let kinds = [Kind::Scenarios]
        .into_iter()
        .chain(OF_A_KIND.iter().map(|(kind, _)| *kind));
    kinds
        .filter_map(|kind| {
            let names: Vec<&str> = names
                .iter()
                .copied()
                .filter(|name| ![ROLLOUT, PACKAGES].contains(name) && Kind::of(name) == kind)
                .collect();
            (!names.is_empty()).then(|| (kind, names.join(",")))
        })
        .collect()
}

/// Whether a line is the one for what is run on one kernel: [`ONE_KERNEL`], or the first
/// where that one is not among them.
pub(super) fn is_the_one(line: &Line, lines: &[&Line]) -> bool {
    let one = lines.iter().find(|line| line.name == ONE_KERNEL);
    one.or(lines.first())
        .is_some_and(|one| one.name == line.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    fn planned(full_run: Option<&[&str]>, once: bool, asked: &[&str]) -> Vec<String> {
        let runs = plan(full_run, once, asked).into_iter();
        runs.map(|(kind, names)| match kind {
            Kind::Scenarios => format!("-: {names}"),
            Kind::Chain(memory) => format!("{memory}: {names}"),
            Kind::Neighbours => format!("neighbours: {names}"),
            Kind::Endurance => format!("endurance: {names}"),
        })
        .collect()
    }

    #[test]
    fn a_full_run_has_all_but_where_a_line_has_a_list() {
        let all = [
            "-: all",
            "erst: all",
            "ramoops: sysrq_in_transition",
            "none: sysrq_in_transition",
        ];
        assert_eq!(planned(None, false, &[]), all);
        let list = ["reversed", "sysrq_in_transition", "forced"];
        assert_eq!(
            planned(Some(&list), false, &[]),
            ["-: reversed,forced", "erst: sysrq_in_transition"]
        );
    }

    #[test]
    fn some_machines_are_run_once() {
        let once = planned(None, true, &[]);
        assert!(once.contains(&"neighbours: all".to_owned()), "{once:?}");
        assert!(once.contains(&"endurance: all".to_owned()), "{once:?}");
        let lines = kernels::lines(&["6.1".to_owned(), ONE_KERNEL.to_owned()]).unwrap();
        assert!(is_the_one(lines[1], &lines) && !is_the_one(lines[0], &lines));
        assert!(is_the_one(lines[0], &lines[..1]));
    }

    #[test]
    fn what_is_asked_for_runs_whatever_the_line_lists() {
        for full_run in [None, Some(["reversed"].as_slice())] {
            for once in [false, true] {
                let planned = |asked| planned(full_run, once, asked);
                assert_eq!(planned(&["forced"]), ["-: forced"]);
                assert_eq!(planned(&["nmi", ROLLOUT, PACKAGES]), ["erst: nmi"]);
                assert_eq!(planned(&["locked_down"]), ["neighbours: locked_down"]);
                assert_eq!(planned(&["quiet"]), ["endurance: quiet"]);
                assert_eq!(
                    planned(&["sysrq_in_transition", "nmi"]),
                    [
                        "erst: sysrq_in_transition,nmi",
                        "ramoops: sysrq_in_transition",
                        "none: sysrq_in_transition"
                    ]
                );
            }
        }
    }
}
