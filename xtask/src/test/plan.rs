//! Plans the machines of a run and their scenarios.

use livepatch_monitor_tests::protocol::{
    CRASH_SCENARIOS, ENDURANCE_SCENARIOS, INTEROP_SCENARIOS, SCENARIOS,
};

use crate::{
    lab::{kernels::Line, reboot_vm},
    rollout,
};

/// The scenario with two machines, Prometheus and Alertmanager.
pub(super) const ROLLOUT: &str = "rollout";
/// The packages: built, installed, upgraded and removed.
pub(super) const PACKAGES: &str = "packages";

/// The kernel for scenarios that run on one kernel only.
const ONE_KERNEL: &str = rollout::KERNEL;

/// The kinds of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Scenarios of one boot.
    Scenarios,
    /// Scenarios that crash or reboot the machine, with this pstore backend.
    Reboots(&'static str),
    /// Scenarios with other programs beside the monitor.
    Interop,
    /// Scenarios with a long run or a storm of events.
    Endurance,
}

/// The kinds with their scenarios, in the order of a full run.
const KINDS: [(Kind, &[&str]); 4] = [
    (Kind::Scenarios, &SCENARIOS),
    (Kind::Reboots(reboot_vm::MAIN_MEMORY), &CRASH_SCENARIOS),
    (Kind::Interop, &INTEROP_SCENARIOS),
    (Kind::Endurance, &ENDURANCE_SCENARIOS),
];

impl Kind {
    /// A rough measure of how long a scenario of this kind takes.
    fn weight(self) -> usize {
        match self {
            Self::Scenarios => 2,
            Self::Reboots(_) | Self::Interop => 4,
            Self::Endurance => 8,
        }
    }
}

/// A machine and its scenarios.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) scenarios: Vec<String>,
}

impl Planned {
    fn new(kind: Kind, scenarios: &[&str]) -> Self {
        let scenarios = scenarios.iter().map(|name| (*name).to_owned()).collect();
        Self { kind, scenarios }
    }

    /// A rough measure of its time. Long ones are started first, so that no machine runs alone at
    /// the end.
    pub(super) fn weight(&self) -> usize {
        self.kind.weight() * self.scenarios.len()
    }
}

/// The machines of a kernel line. `list` contains the scenarios of a line that does not run all;
/// `once` says whether this is the line for the machines that a run has only once; `asked` are the
/// requested scenarios (empty means all).
pub(super) fn plan(list: Option<&[&str]>, once: bool, asked: &[&str]) -> Vec<Planned> {
    let mut machines = match (asked, list) {
        ([], None) => {
            let [scenarios, reboots, ..] = &KINDS;
            [scenarios, reboots]
                .map(|(kind, names)| Planned::new(*kind, names))
                .into()
        }
        ([], Some(names)) => by_kind(names),
        (names, _) => by_kind(names),
    };
    if asked.is_empty() && once {
        let [.., interop, endurance] = &KINDS;
        machines.extend([interop, endurance].map(|(kind, names)| Planned::new(*kind, names)));
    }
    // A line with a list runs only what it lists.
    let each_memory = match asked {
        [] => list.is_none(),
        names => names.contains(&reboot_vm::OF_EACH_MEMORY),
    };
    if each_memory {
        let others = reboot_vm::MEMORIES
            .into_iter()
            .filter(|memory| *memory != reboot_vm::MAIN_MEMORY);
        // One scenario is enough to show what each backend keeps.
        machines.extend(
            others.map(|memory| Planned::new(Kind::Reboots(memory), &[reboot_vm::OF_EACH_MEMORY])),
        );
    }
    machines
}

/// Assigns each scenario to the machine of its kind. An unknown name goes to the first machine,
/// whose guest reports that it is unknown.
fn by_kind(names: &[&str]) -> Vec<Planned> {
    let kind_of = |name: &str| {
        KINDS
            .iter()
            .find(|(_, known)| known.contains(&name))
            .map_or(Kind::Scenarios, |(kind, _)| *kind)
    };
    KINDS
        .iter()
        .filter_map(|(kind, _)| {
            let names: Vec<&str> = names
                .iter()
                .copied()
                .filter(|name| ![ROLLOUT, PACKAGES].contains(name) && kind_of(name) == *kind)
                .collect();
            (!names.is_empty()).then(|| Planned::new(*kind, &names))
        })
        .collect()
}

/// What a run without `--thorough` leaves out on these kernel lines, one line of text each.
pub(super) fn left_out(lines: &[&Line]) -> Vec<String> {
    let mut text: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let list = line.normal_run?;
            let left: Vec<&str> = SCENARIOS
                .iter()
                .chain(&CRASH_SCENARIOS)
                .copied()
                .filter(|name| !list.contains(name))
                .collect();
            let memories = reboot_vm::MEMORIES
                .iter()
                .filter(|memory| **memory != reboot_vm::MAIN_MEMORY)
                .map(|memory| format!("{} with {memory}", reboot_vm::OF_EACH_MEMORY));
            let memories: Vec<String> = memories.collect();
            Some(format!(
                "kernel {}: {}, {}",
                line.name,
                left.join(", "),
                memories.join(", ")
            ))
        })
        .collect();
    text.push("15 of the 20 power cuts of power_cuts".to_owned());
    text.push(
        "800 of the 1,000 transitions and 9,000 of the 10,000 scrapes of long_run".to_owned(),
    );
    text
}

/// Whether this is the line for scenarios that run on one kernel only: [`ONE_KERNEL`], or the first
/// line if that one is not included.
pub(super) fn is_the_one(line: &Line, lines: &[&Line]) -> bool {
    let one = lines.iter().find(|line| line.name == ONE_KERNEL);
    one.or(lines.first())
        .is_some_and(|one| one.name == line.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::kernels;

    fn planned(list: Option<&[&str]>, once: bool, asked: &[&str]) -> Vec<String> {
        let machines = plan(list, once, asked).into_iter();
        machines
            .map(|Planned { kind, scenarios }| {
                let names = match KINDS.iter().find(|(_, all)| *all == scenarios.as_slice()) {
                    Some(_) => "all".to_owned(),
                    None => scenarios.join(","),
                };
                match kind {
                    Kind::Scenarios => format!("-: {names}"),
                    Kind::Reboots(memory) => format!("{memory}: {names}"),
                    Kind::Interop => format!("interop: {names}"),
                    Kind::Endurance => format!("endurance: {names}"),
                }
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
        assert!(once.contains(&"interop: all".to_owned()), "{once:?}");
        assert!(once.contains(&"endurance: all".to_owned()), "{once:?}");
        let lines = kernels::lines(&["6.1".to_owned(), ONE_KERNEL.to_owned()]).unwrap();
        assert!(is_the_one(lines[1], &lines) && !is_the_one(lines[0], &lines));
        assert!(is_the_one(lines[0], &lines[..1]));
    }

    #[test]
    fn what_is_asked_for_runs_whatever_the_line_lists() {
        for list in [None, Some(["reversed"].as_slice())] {
            for once in [false, true] {
                let planned = |asked| planned(list, once, asked);
                assert_eq!(planned(&["forced"]), ["-: forced"]);
                assert_eq!(planned(&["nmi", ROLLOUT, PACKAGES]), ["erst: nmi"]);
                assert_eq!(planned(&["locked_down"]), ["interop: locked_down"]);
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

    #[test]
    fn the_lists_of_the_lines_name_scenarios_that_exist() {
        for line in kernels::LINES {
            for name in line.normal_run.unwrap_or_default() {
                assert!(
                    SCENARIOS.contains(name) || CRASH_SCENARIOS.contains(name),
                    "{}: {name}",
                    line.name
                );
            }
        }
    }

    #[test]
    fn every_scenario_runs_on_two_lines_in_a_normal_run_and_the_rest_is_named() {
        let whole: Vec<_> = kernels::LINES
            .iter()
            .filter(|line| line.normal_run.is_none())
            .map(|line| line.name)
            .collect();
        assert_eq!(whole, ["6.12", "7.2"]);
        let lines = kernels::lines(&["5.10".to_owned(), "6.12".to_owned()]).unwrap();
        let text = left_out(&lines).join("\n");
        assert!(text.contains("kernel 5.10: "), "{text}");
        assert!(text.contains("ten_thousand_threads"), "{text}");
        assert!(!text.contains("rcu_stall_is_survived"), "{text}");
        assert!(!text.contains("6.12"), "{text}");
    }
}
