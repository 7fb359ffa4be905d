//! Plans the machines of a run and their scenarios.

use livepatch_monitor_tests::protocol::{
    CRASH_SCENARIOS, ENDURANCE_SCENARIOS, INTEROP_SCENARIOS, SCENARIOS,
};

use super::run::{LONG, SHORT};
use crate::{
    lab::{
        kernels::{self, Line},
        reboot_vm,
    },
    rollout, updates,
};

/// The scenario with two machines, Prometheus and Alertmanager.
pub(super) const ROLLOUT: &str = "rollout";
/// The packages: built, installed, upgraded and removed.
pub(super) const PACKAGES: &str = "packages";

/// Package managers, killed in the middle of an upgrade.
pub(super) const UPDATES: &str = "updates";

/// One command in a guest, as `cargo xtask lab run` has it.
pub(super) const LAB_RUN: &str = "lab_run";

/// The kernel for scenarios that run on one kernel only.
const ONE_KERNEL: &str = rollout::KERNEL;

/// The kinds of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Scenarios of one boot.
    Scenarios,
    /// Scenarios that crash or reboot the machine, with this pstore backend.
    Reboots(&'static str),
    /// Scenarios with other programs on the same machine.
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
    // A second line with a list exists only for what it lists.
    let each_memory = match asked {
        [] => list.is_none() || once,
        names => names.contains(&reboot_vm::OF_EACH_MEMORY),
    };
    if each_memory {
        // The crash of one scenario is enough to show what each memory keeps.
        machines.extend(
            other_memories()
                .map(|memory| Planned::new(Kind::Reboots(memory), &[reboot_vm::OF_EACH_MEMORY])),
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
                .filter(|name| {
                    ![ROLLOUT, PACKAGES, UPDATES, LAB_RUN].contains(name) && kind_of(name) == *kind
                })
                .collect();
            (!names.is_empty()).then(|| Planned::new(*kind, &names))
        })
        .collect()
}

/// What a run without `--thorough` leaves out on these kernel lines, one line of text each. With
/// `only_vm` there is no fleet of simulated hosts, thorough or not.
pub(super) fn left_out(lines: &[&Line], only_vm: bool) -> Vec<String> {
    let mut text = Vec::new();
    for line in lines {
        let Some(list) = line.normal_run else {
            continue;
        };
        let mut left: Vec<String> = SCENARIOS
            .iter()
            .chain(&CRASH_SCENARIOS)
            .filter(|name| !list.contains(name))
            .map(|name| (*name).to_owned())
            .collect();
        if !is_the_one(line, lines) {
            left.extend(
                other_memories()
                    .map(|memory| format!("{} with {memory}", reboot_vm::OF_EACH_MEMORY)),
            );
        }
        text.push(format!("kernel {}: {}", line.name, left.join(", ")));
    }
    let absent: Vec<&str> = kernels::LINES
        .iter()
        .map(|line| line.name)
        .filter(|name| lines.iter().all(|line| line.name != *name))
        .collect();
    if !absent.is_empty() {
        text.push(format!("kernels {}: everything", absent.join(", ")));
    }
    text.push(updates::left_out());
    let of = |part: u32, all: u32| format!("{} of the {all}", all - part);
    let cuts = of(reboot_vm::CUTS, reboot_vm::CUTS_WHEN_THOROUGH);
    text.push(format!("{cuts} power cuts of power_cuts"));
    let (transitions, scrapes) = (of(SHORT.0, LONG.0), of(SHORT.1, LONG.1));
    text.push(format!(
        "{transitions} transitions and {scrapes} scrapes of long_run"
    ));
    if !only_vm {
        text.push("the layouts of several servers, and a day of 1,000 hosts".to_owned());
    }
    text
}

/// What runs on one kernel only, with and without `--thorough`.
pub(super) fn on_one_kernel(lines: &[&Line]) -> Option<String> {
    let one = lines.iter().find(|line| is_the_one(line, lines))?;
    let names = INTEROP_SCENARIOS
        .iter()
        .chain(&ENDURANCE_SCENARIOS)
        .copied();
    let names: Vec<&str> = names.chain([PACKAGES, LAB_RUN, ROLLOUT]).collect();
    Some(format!(
        "run on kernel {} alone, with --thorough too: {}",
        one.name,
        names.join(", ")
    ))
}

/// The memories that one scenario is run with in addition to the main one.
fn other_memories() -> impl Iterator<Item = &'static str> {
    reboot_vm::MEMORIES
        .into_iter()
        .filter(|memory| *memory != reboot_vm::MAIN_MEMORY)
}

/// Whether a line is the one for scenarios that run on one kernel: [`ONE_KERNEL`], or the first if
/// that one is not included.
pub(super) fn is_the_one(line: &Line, lines: &[&Line]) -> bool {
    let one = lines.iter().find(|line| line.name == ONE_KERNEL);
    one.or(lines.first())
        .is_some_and(|one| one.name == line.name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for list in [None, Some(["reversed"].as_slice())] {
            let once = planned(list, true, &[]);
            assert!(once.contains(&"interop: all".to_owned()), "{once:?}");
            assert!(once.contains(&"endurance: all".to_owned()), "{once:?}");
            let memory = "none: sysrq_in_transition".to_owned();
            assert!(once.contains(&memory), "{once:?}");
        }
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
                assert_eq!(planned(&["nmi", ROLLOUT, PACKAGES, LAB_RUN]), ["erst: nmi"]);
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

    fn in_a_normal_run(line: &Line, name: &str) -> bool {
        line.normal_run.is_none_or(|list| list.contains(&name))
    }

    #[test]
    fn every_scenario_runs_on_two_lines_in_a_normal_run() {
        for name in SCENARIOS.iter().chain(&CRASH_SCENARIOS) {
            let lines = kernels::LINES
                .iter()
                .filter(|line| in_a_normal_run(line, name));
            assert!(lines.count() >= 2, "{name}");
        }
    }

    #[test]
    fn all_that_is_left_out_is_named() {
        let lines: Vec<&Line> = kernels::LINES.iter().collect();
        let text = left_out(&lines, false);
        for line in kernels::LINES {
            let own = text
                .iter()
                .find(|text| text.starts_with(&format!("kernel {}: ", line.name)));
            for name in SCENARIOS.iter().chain(&CRASH_SCENARIOS) {
                let named = own.is_some_and(|own| own.split([' ', ',']).any(|word| word == *name));
                // It runs once for each memory.
                if *name != reboot_vm::OF_EACH_MEMORY {
                    assert_eq!(named, !in_a_normal_run(line, name), "{}: {name}", line.name);
                }
            }
            let memory = own.is_some_and(|own| own.contains("with ramoops"));
            let has = line.normal_run.is_none() || line.name == ONE_KERNEL;
            assert_eq!(memory, !has, "{}", line.name);
        }
        let text = left_out(&lines[1..3], false).join("\n");
        let mut absent: Vec<&str> = kernels::LINES.iter().map(|line| line.name).collect();
        absent.drain(1..3);
        let absent = format!("kernels {}: everything", absent.join(", "));
        for part in [
            absent.as_str(),
            "15 of the 20 power cuts",
            "800 of the 1000 transitions and 9000 of the 10000 scrapes",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_simulated_hosts_are_left_out_where_they_would_run() {
        let names_them = |only_vm| left_out(&[], only_vm).join("\n").contains("layouts");
        assert!(names_them(false) && !names_them(true));
    }

    #[test]
    fn what_runs_on_one_kernel_is_named() {
        let lines: Vec<&Line> = kernels::LINES.iter().collect();
        let text = on_one_kernel(&lines).unwrap();
        assert!(text.starts_with("run on kernel 6.12 alone"), "{text}");
        for name in INTEROP_SCENARIOS.iter().chain(&ENDURANCE_SCENARIOS) {
            assert!(text.contains(name), "{text}");
        }
    }
}
