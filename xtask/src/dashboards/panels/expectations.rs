//! What the dashboards must show of the rollout in the end-to-end test.
//!
//! Two hosts are scraped, host-a and host-b. On host-b lpm_vmlinux is applied and stays in force.
//! host-a gets lpm_patch_a, which a task asleep in lpm_hold of lpm_target holds up until it counts
//! as stuck; the host panics in that transition, reboots, and reports the crash. Then host-b gets
//! the patch, is held up and panics too, but sooner: it may not have counted as stuck by then.

use super::{
    Expect::{self, Above, Below, Max, Min, Nothing, Quiet, Shows, Zero},
    Expectation, Labels,
};

const FLEET: &str = "livepatch-fleet";
const HOST: &str = "livepatch-host";

const ALL: Labels = &[];
const PATCH_A: Labels = &[("patch", "lpm_patch_a")];
const VMLINUX: Labels = &[("patch", "lpm_vmlinux")];
const HOST_A: Labels = &[("instance", "host-a")];
const HOST_B: Labels = &[("instance", "host-b")];
const A_OF_A: Labels = &[("instance", "host-a"), ("patch", "lpm_patch_a")];
const A_OF_B: Labels = &[("instance", "host-b"), ("patch", "lpm_patch_a")];
const VMLINUX_OF_B: Labels = &[("instance", "host-b"), ("patch", "lpm_vmlinux")];
const HELD: Labels = &[
    ("patch", "lpm_patch_a"),
    ("object", "lpm_target"),
    ("function", "lpm_hold"),
];
const HELD_ON_A: Labels = &[
    ("instance", "host-a"),
    ("patch", "lpm_patch_a"),
    ("object", "lpm_target"),
    ("function", "lpm_hold"),
];
const CRASH_OF_A: Labels = &[
    ("instance", "host-a"),
    ("patch", "lpm_patch_a"),
    ("kind", "panic"),
    ("phase", "transition"),
];
const CRASH_OF_B: Labels = &[
    ("instance", "host-b"),
    ("patch", "lpm_patch_a"),
    ("kind", "panic"),
    ("phase", "transition"),
];

const NO_SIGNAL: &str =
    "the panic takes the machine down before its signal can be scraped, and nothing else is unwell";
const NOBODY_FORCES: &str = "nobody forces a transition";
const NOBODY_REVERSES: &str = "nobody reverses a transition";
const NONE_EXPECTED: &str = "the hosts are configured to expect no patch, and have no kpatch";
const NO_PACKAGES: &str = "the guests have no package manager";
const NONE_LOST: &str = "the ring buffer does not fill";
const DISK_WORKS: &str = "the disk takes every journal entry";

const fn of(
    board: &'static str,
    panel: &'static str,
    query: &'static str,
    expect: &'static [Expect],
) -> Expectation {
    Expectation {
        board,
        panel,
        query,
        expect,
    }
}

/// For every query of every panel.
pub(super) const EXPECTATIONS: &[Expectation] = &[
    // Is it safe to continue?
    of(
        FLEET,
        "Stop the rollout",
        "A",
        &[Max(PATCH_A, 1.0), Max(&[("patch", "any patch")], 0.0)],
    ),
    of(FLEET, "Hurt hosts", "A", &[Max(ALL, 2.0), Below(ALL, 1.0)]),
    of(
        FLEET,
        "Worst stuck ratio",
        "A",
        &[Max(ALL, 1.0), Below(ALL, 1.0)],
    ),
    of(
        FLEET,
        "Hosts reporting",
        "A",
        &[Max(ALL, 1.0), Below(ALL, 1.0)],
    ),
    of(
        FLEET,
        "In transition",
        "A",
        &[Max(ALL, 1.0), Below(ALL, 1.0)],
    ),
    of(FLEET, "Stuck hosts", "A", &[Max(ALL, 1.0), Below(ALL, 1.0)]),
    of(
        FLEET,
        "Crashed hosts",
        "A",
        &[Max(ALL, 2.0), Below(ALL, 1.0)],
    ),
    of(
        FLEET,
        "Silent hosts",
        "A",
        &[Max(ALL, 1.0), Below(ALL, 1.0)],
    ),
    of(FLEET, "Hurt hosts by patch", "A", &[Max(PATCH_A, 2.0)]),
    of(
        FLEET,
        "Rollout by patch",
        "A",
        &[Max(VMLINUX, 1.0), Max(PATCH_A, 0.0)],
    ),
    of(FLEET, "Rollout by patch", "B", &[Max(PATCH_A, 1.0)]),
    of(FLEET, "Rollout by patch", "C", &[Max(PATCH_A, 1.0)]),
    of(
        FLEET,
        "Transition durations by patch",
        "A",
        &[
            Above(VMLINUX, 0.0),
            Shows(&[("patch", "lpm_vmlinux"), ("quantile", "0.99")]),
        ],
    ),
    of(FLEET, "Blocking functions", "A", &[Max(HELD, 1.0)]),
    // Who is hurt, stuck, crashed, silent?
    of(
        FLEET,
        "Hurt hosts: why",
        "A",
        &[
            Shows(&[
                ("instance", "host-a"),
                ("patch", "lpm_patch_a"),
                ("cause", "silent"),
            ]),
            Shows(&[
                ("instance", "host-a"),
                ("patch", "lpm_patch_a"),
                ("cause", "crashed"),
            ]),
            Shows(&[
                ("instance", "host-b"),
                ("patch", "lpm_patch_a"),
                ("cause", "crashed"),
            ]),
        ],
    ),
    of(FLEET, "Stuck hosts: where", "A", &[Above(A_OF_A, 1.0)]),
    of(FLEET, "Stuck hosts: where", "B", &[Min(A_OF_A, 1.0)]),
    of(FLEET, "Stuck hosts: where", "C", &[Max(HELD_ON_A, 1.0)]),
    of(
        FLEET,
        "Crashed hosts: last crash",
        "A",
        &[Above(CRASH_OF_A, 1.0e12), Above(CRASH_OF_B, 1.0e12)],
    ),
    of(
        FLEET,
        "Silent hosts: which",
        "A",
        &[
            Shows(&[
                ("instance", "host-a"),
                ("patch", "lpm_patch_a"),
                ("phase", "transition"),
            ]),
            Shows(&[
                ("instance", "host-b"),
                ("patch", "lpm_patch_a"),
                ("phase", "transition"),
            ]),
        ],
    ),
    // Not about the rollout.
    of(FLEET, "Hosts", "A", &[Max(ALL, 2.0)]),
    of(FLEET, "Hosts", "B", &[Max(ALL, 2.0), Below(ALL, 2.0)]),
    of(
        FLEET,
        "Firing alerts",
        "A",
        &[
            Max(
                &[
                    ("alertname", "LivepatchStopRollout"),
                    ("severity", "critical"),
                    ("patch", "lpm_patch_a"),
                ],
                1.0,
            ),
            Above(
                &[
                    ("alertname", "LivepatchHostCrashed"),
                    ("patch", "lpm_patch_a"),
                ],
                0.0,
            ),
            Above(
                &[
                    ("alertname", "LivepatchHostSilentInTransition"),
                    ("patch", "lpm_patch_a"),
                ],
                0.0,
            ),
        ],
    ),
    of(
        FLEET,
        "Failed loads, reversals, forced transitions",
        "A",
        &[Nothing("every load succeeds, and nobody reverses")],
    ),
    of(
        FLEET,
        "Failed loads, reversals, forced transitions",
        "B",
        &[Zero(NOBODY_FORCES)],
    ),
    of(
        FLEET,
        "Degraded monitors",
        "A",
        &[Nothing("both monitors read all they need")],
    ),
    of(FLEET, "Patch missing", "A", &[Nothing(NONE_EXPECTED)]),
    of(
        FLEET,
        "Crash signals that implicate a patch",
        "A",
        &[Nothing(NO_SIGNAL)],
    ),
    of(
        FLEET,
        "Rollout by patch and kernel release",
        "A",
        &[Above(VMLINUX, 0.0), Shows(PATCH_A)],
    ),
    of(
        FLEET,
        "Rollout by patch and kernel release",
        "B",
        &[Max(VMLINUX, 1.0), Shows(PATCH_A)],
    ),
    of(
        FLEET,
        "Rollout by patch and kernel release",
        "C",
        &[Shows(PATCH_A)],
    ),
    of(
        FLEET,
        "Rollout by patch and kernel release",
        "D",
        &[Max(VMLINUX, 2.0)],
    ),
    of(
        FLEET,
        "Hosts that do not answer",
        "A",
        &[Shows(HOST_A), Shows(HOST_B)],
    ),
    // The host board, now.
    of(HOST, "Exporter", "A", &[Max(ALL, 1.0), Below(ALL, 1.0)]),
    of(HOST, "Transitions", "A", &[Max(ALL, 1.0), Below(ALL, 1.0)]),
    of(HOST, "Age of the transition", "A", &[Above(ALL, 1.0)]),
    // More than the sleeping one, if a busy machine has not tried all tasks in time.
    of(
        HOST,
        "Stuck tasks",
        "A",
        &[Above(ALL, 0.0), Below(ALL, 1.0)],
    ),
    of(
        HOST,
        "Patches in force",
        "A",
        &[Max(ALL, 1.0), Below(ALL, 1.0)],
    ),
    of(HOST, "Since the last crash", "A", &[Above(ALL, 0.0)]),
    of(HOST, "Previous boot", "A", &[Max(ALL, 1.0)]),
    of(HOST, "Crash dump", "A", &[Max(ALL, 1.0)]),
    // The running transition.
    of(
        HOST,
        "Transitions by patch",
        "A",
        &[Max(A_OF_A, 1.0), Max(A_OF_B, 1.0)],
    ),
    of(
        HOST,
        "Pending tasks by reason",
        "A",
        &[Above(
            &[
                ("instance", "host-a"),
                ("patch", "lpm_patch_a"),
                ("reason", "sleeping"),
            ],
            0.0,
        )],
    ),
    of(HOST, "Blocking functions", "A", &[Max(HELD_ON_A, 1.0)]),
    of(
        HOST,
        "Attempts, signals, reversals, forces",
        "A",
        &[Above(HOST_A, 0.0), Shows(HOST_B)],
    ),
    // The kernel sends none before 15 s; whether it sends any depends on the test's speed.
    of(
        HOST,
        "Attempts, signals, reversals, forces",
        "B",
        &[Shows(HOST_A), Shows(HOST_B)],
    ),
    of(
        HOST,
        "Attempts, signals, reversals, forces",
        "C",
        &[Zero(NOBODY_REVERSES)],
    ),
    of(
        HOST,
        "Attempts, signals, reversals, forces",
        "D",
        &[Zero(NOBODY_FORCES)],
    ),
    // Patches.
    of(
        HOST,
        "Livepatches of the host",
        "A",
        &[Max(A_OF_A, 1.0), Max(VMLINUX_OF_B, 1.0)],
    ),
    of(
        HOST,
        "Livepatches of the host",
        "B",
        &[Max(A_OF_A, 1.0), Max(VMLINUX_OF_B, 1.0)],
    ),
    of(HOST, "Livepatches of the host", "C", &[Zero(NOBODY_FORCES)]),
    of(
        HOST,
        "Livepatches of the host",
        "D",
        &[Above(VMLINUX_OF_B, 1.0e12)],
    ),
    of(
        HOST,
        "Livepatches of the host",
        "E",
        &[Above(VMLINUX_OF_B, 0.0)],
    ),
    of(
        HOST,
        "Livepatches of the host",
        "F",
        &[Above(A_OF_A, 0.0), Above(VMLINUX_OF_B, 0.0)],
    ),
    of(
        HOST,
        "Livepatches of the host",
        "G",
        &[Above(A_OF_A, 1.0e12), Above(A_OF_B, 1.0e12)],
    ),
    of(
        HOST,
        "Enabled by patch",
        "A",
        &[Max(A_OF_A, 1.0), Max(VMLINUX_OF_B, 1.0)],
    ),
    // Crashes.
    of(
        HOST,
        "Last crash",
        "A",
        &[Above(CRASH_OF_A, 1.0e12), Above(CRASH_OF_B, 1.0e12)],
    ),
    of(
        HOST,
        "Crash capture",
        "A",
        &[
            Max(&[("instance", "host-a"), ("source", "pstore")], 1.0),
            Max(&[("instance", "host-a"), ("source", "recorder")], 1.0),
        ],
    ),
    of(HOST, "Crash signals", "A", &[Nothing(NO_SIGNAL)]),
    of(
        HOST,
        "Crash signals: last by phase",
        "A",
        &[Nothing(NO_SIGNAL)],
    ),
    of(
        HOST,
        "Crash signals that implicate a patch",
        "A",
        &[Nothing(NO_SIGNAL)],
    ),
    of(
        HOST,
        "Missed signals and journal errors",
        "A",
        &[Quiet(NO_SIGNAL)],
    ),
    of(
        HOST,
        "Missed signals and journal errors",
        "B",
        &[Zero(DISK_WORKS)],
    ),
    of(
        HOST,
        "Half-installed packages and missing patches",
        "A",
        &[Nothing(NO_PACKAGES)],
    ),
    of(
        HOST,
        "Half-installed packages and missing patches",
        "B",
        &[Nothing(NONE_EXPECTED)],
    ),
    // The monitor itself.
    of(
        HOST,
        "Collectors",
        "A",
        &[
            Max(&[("instance", "host-a"), ("collector", "tasks")], 1.0),
            Max(&[("instance", "host-b"), ("collector", "sysfs")], 1.0),
        ],
    ),
    of(
        HOST,
        "Kernel signals",
        "A",
        &[Above(HOST_A, 10.0), Above(HOST_B, 10.0)],
    ),
    of(HOST, "Kernel events", "A", &[Above(HOST_A, 0.0)]),
    of(HOST, "Kernel events lost", "A", &[Zero(NONE_LOST)]),
    of(
        HOST,
        "Memory",
        "A",
        &[Above(HOST_A, 1.0e6), Above(HOST_B, 1.0e6)],
    ),
    of(HOST, "CPU", "A", &[Above(HOST_A, 0.0), Above(HOST_B, 0.0)]),
    of(HOST, "Versions", "A", &[Shows(HOST_A), Shows(HOST_B)]),
    of(HOST, "Versions", "B", &[Shows(HOST_A), Shows(HOST_B)]),
];
