//! Hosts in every state that the page knows.

use std::{collections::BTreeMap, time::Duration};

use livepatch_core::{
    blockers::{
        Blocker, BlockerReport, Counts, Frame, PendingTask, Reason, Symbol, TaskState, printable,
    },
    crash::{
        CrashRecord, Evidence, EvidenceKind, Function, Implicated, Kind, Last, Phase, Precision,
        Signal, When, boots::HostCrash, capture::Source,
    },
    degradation::Degradation,
    lifecycle::InForce,
    patch::{self, Object, Patch, PatchSet},
    transition::{BootTime, Direction, Totals},
};
use livepatch_monitor::{
    exporter::status_page::{BLOCKERS_SHOWN, Page, Pending, Transition},
    host::{
        expected::{Expected, State},
        packages::{Interrupted, Manager, Package},
    },
    metrics::CrashView,
};

/// 2026-11-23T16:52:47Z
const NOW: f64 = 1_795_452_767.0;
const PATCH: &str = "livepatch_2026_11_net_fix";

/// Nothing is loaded, and all is well.
pub(crate) fn quiet() -> Page {
    Page {
        host: "db-0417.example.net".into(),
        release: "6.12.95+deb12-cloud-amd64".into(),
        now_unix_seconds: Some(NOW),
        telemetry_path: "/metrics".into(),
        patches: Some(PatchSet {
            supported: true,
            patches: Vec::new(),
        }),
        crashes: CrashView {
            crashes: Some(BTreeMap::new()),
            boot_unclean: Some(false),
            evidence_ready: BTreeMap::from([
                (Source::Pstore, true),
                (Source::Kdump, true),
                (Source::Recorder, true),
                (Source::Watchdog, true),
                (Source::RebootOnPanic, true),
            ]),
            ..CrashView::default()
        },
        interrupted: vec![Interrupted {
            manager: Manager::Dpkg,
            packages: Vec::new(),
        }],
        ..Page::default()
    }
}

fn patch(name: &str) -> Patch {
    let functions = |names: &[&str]| {
        let function = |name: &&str| patch::Function {
            name: (*name).into(),
            sympos: 1,
        };
        names.iter().map(function).collect()
    };
    Patch {
        name: name.into(),
        enabled: Some(true),
        transition: Some(false),
        replace: Some(true),
        srcversion: Some("7E5C8D2A9B1F4E6D3C0A7B8".into()),
        objects: vec![
            Object {
                name: "nf_tables".into(),
                patched: Some(false),
                functions: functions(&["nft_chain_validate"]),
            },
            Object {
                name: "vmlinux".into(),
                patched: Some(true),
                functions: functions(&[
                    "tcp_rcv_established",
                    "skb_segment",
                    "sk_psock_msg_verdict",
                ]),
            },
        ],
    }
}

/// A patch is in force.
pub(crate) fn in_force() -> Page {
    let mut page = quiet();
    page.patches = Some(PatchSet {
        supported: true,
        patches: vec![patch(PATCH)],
    });
    page.in_force.insert(
        PATCH.into(),
        InForce {
            since_unix_seconds: Some(NOW - 93_784.0),
            took: Some(Duration::from_millis(2_340)),
        },
    );
    page.forced.insert(PATCH.into(), false);
    page.crashes.of_patch.insert(PATCH.into(), (0, None));
    page.expected = vec![Expected {
        patch: PATCH.into(),
        file: None,
        state: State::InForce,
    }];
    page.totals = Totals {
        attempts: 3,
        ..Totals::default()
    };
    page
}

/// A task that holds the transition up.
pub(crate) fn blocker(number: u32, comm: &str, reason: Reason, detail: &str) -> Blocker {
    let frame = |name: &str, module: Option<&str>| Frame {
        address: None,
        symbol: Some(Symbol {
            name: name.into(),
            module: module.map(str::to_owned),
            offset: 0x94,
            size: Some(0xd0),
            generated: false,
        }),
    };
    Blocker {
        task: PendingTask {
            tid: 1500 + number,
            tgid: 1500,
            comm: comm.as_bytes().to_vec(),
            kthread: false,
            idle_cpu: None,
            on_cpu: Some(reason == Reason::Running),
            state: TaskState::Uninterruptible,
            patch_state: 0,
            cgroup_id: None,
            start_ns: Some(1),
            stack: match reason {
                Reason::Running => Vec::new(),
                _ => vec![
                    frame("schedule_timeout", None),
                    frame(
                        "sk_wait_data_interruptible_with_a_rather_long_name_of_a_function",
                        Some("some_module_with_a_long_name"),
                    ),
                    frame("tcp_rcv_established", None),
                    frame("do_syscall_64", None),
                ],
            },
        },
        reason,
        object: (reason == Reason::Sleeping).then(|| "vmlinux".into()),
        function: (reason == Reason::Sleeping).then(|| "tcp_rcv_established".into()),
        detail: printable(detail.as_bytes()),
    }
}

/// The running transition with these blockers.
pub(crate) fn waiting(mut page: Page, blockers: &[Blocker], running_for: u64, stuck: bool) -> Page {
    let now = BootTime::from_nanos(400_000_000_000_000);
    let report = |one| {
        let unit = Some("postgresql@17-main.service".to_owned());
        BlockerReport::new(one, None, unit, now)
    };
    if let Some(one) = page
        .patches
        .as_mut()
        .and_then(|set| set.patches.first_mut())
    {
        one.transition = Some(true);
    }
    let patch = page
        .patches
        .as_ref()
        .and_then(|set| Some(set.patches.first()?.name.clone()));
    page.transition = Some(Transition {
        patch,
        direction: Direction::Patch,
        running_for: Some(Duration::from_secs(running_for)),
        attempts: u32::try_from(running_for).ok(),
        signals: u32::try_from(running_for / 15).ok(),
        stuck,
        pending: Some(Pending {
            counts: Counts::of(blockers),
            idle_unknown: false,
            shown: blockers.iter().take(BLOCKERS_SHOWN).map(report).collect(),
        }),
    });
    page
}

/// A transition has begun.
pub(crate) fn running() -> Page {
    let detail = "on a CPU; it switches when it returns to user space, or once it sleeps";
    let blockers = [blocker(0, "stress-ng", Reason::Running, detail)];
    waiting(in_force(), &blockers, 4, false)
}

const ASLEEP: &str = "asleep in tcp_rcv_established, which the patch replaces; no signal wakes it";

/// It does not end.
pub(crate) fn stuck() -> Page {
    let generated = "asleep below bpf_trampoline_6442536012, code made at run time that the kernel \
        cannot unwind through; it belongs to a tracer or security tool, and must be left or detached";
    let blockers = [
        blocker(0, "postgres", Reason::Sleeping, ASLEEP),
        blocker(1, "walwriter", Reason::Sleeping, ASLEEP),
        blocker(2, "agent", Reason::UnreliableStack, generated),
    ];
    waiting(in_force(), &blockers, 483, true)
}

/// More tasks hold it up than are described.
pub(crate) fn crowded() -> Page {
    let blockers: Vec<Blocker> = (0..80)
        .map(|number| blocker(number, "worker", Reason::Sleeping, ASLEEP))
        .collect();
    let mut page = waiting(in_force(), &blockers, 61, true);
    if let Some(pending) = page.transition.as_mut().and_then(|it| it.pending.as_mut()) {
        pending.idle_unknown = true;
    }
    page
}

/// A crash that implicates the patch.
pub(crate) fn crash(ended_boot: bool) -> HostCrash {
    let function = Function {
        name: "livepatch_tcp_rcv_established".into(),
        offset: Some(0x9),
        size: Some(0x30),
        module: Some(PATCH.into()),
    };
    HostCrash {
        id: "20261123T124908Z-oops-20404707".into(),
        boot_id: Some("7e91b90d-0000-4000-8000-000000000001".into()),
        ended_boot: Some(ended_boot),
        record: CrashRecord {
            when: When {
                uptime_seconds: Some(10.894_377),
                unix_seconds: Some(NOW - 14_619.0),
                precision: Precision::Dump,
            },
            headline: "BUG: kernel NULL pointer dereference, address: 0000000000000001".into(),
            panic: Some("Fatal exception".into()),
            function: Some(function.clone()),
            comm: Some("cat".into()),
            pid: Some(145),
            cpu: Some(0),
            phase: Phase::Soak,
            last_transition: Some(Last {
                patch: PATCH.into(),
                direction: Direction::Patch,
                ended_before_seconds: Some(4.1),
            }),
            implicated: Implicated::Yes,
            evidence: vec![Evidence {
                kind: EvidenceKind::FaultInPatch,
                patch: Some(PATCH.into()),
                function: Some(function),
            }],
            ..CrashRecord::empty(Kind::Oops)
        },
    }
}

/// The boot before this one ended in a crash, and an update was cut off by it.
pub(crate) fn crashed() -> Page {
    let mut page = quiet();
    page.last_crash = Some(crash(true));
    page.crashes.boot_unclean = Some(true);
    page.crashes.crashes = Some(BTreeMap::from([((Kind::Oops, Phase::Soak), 2)]));
    page.interrupted = vec![Interrupted {
        manager: Manager::Dpkg,
        packages: vec![
            Package {
                name: "linux-image-6.12.95+deb12-cloud-amd64".into(),
                state: "half-configured".into(),
            },
            Package {
                name: "openssl".into(),
                state: "unpacked".into(),
            },
        ],
    }];
    page.expected = vec![Expected {
        patch: PATCH.into(),
        file: None,
        state: State::Missing,
    }];
    page
}

/// The kernel that runs has had an oops.
pub(crate) fn survived() -> Page {
    let mut page = in_force();
    page.last_crash = Some(crash(false));
    page.crashed_in_this_boot = true;
    page.crashes.crashes = Some(BTreeMap::from([((Kind::Oops, Phase::Soak), 1)]));
    page.crashes
        .of_patch
        .insert(PATCH.into(), (1, Some(NOW - 14_619.0)));
    page.crashes.signals.insert((Signal::Oops, Phase::Soak), 1);
    page.crashes
        .implicating
        .insert((Signal::Oops, PATCH.into()), 1);
    page.forced.insert(PATCH.into(), true);
    page.totals.load_failures = 2;
    page
}

/// Without BPF, with a full disk, and no dump to hope for.
pub(crate) fn degraded() -> Page {
    let mut page = in_force();
    page.degradations = vec![
        Degradation {
            what: "no kernel probes (loading the BPF programs: Operation not permitted (os error 1)): transitions are seen by reading sysfs every second, tasks by walking /proc; attempts, signals and load failures are not seen".into(),
            remedy: "run as root or with CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), on a kernel with CONFIG_BPF_SYSCALL=y".into(),
        },
        Degradation {
            what: "notes of the flight recorder that did not reach the disk: 12".into(),
            remedy: "see that --state-dir can be written and is not full".into(),
        },
    ];
    page.probes_missing = vec![
        ("klp_enable_patch", None),
        (
            "klp_init_transition",
            Some("fentry: not permitted; kprobe: not permitted".into()),
        ),
    ];
    for ready in page.crashes.evidence_ready.values_mut() {
        *ready = false;
    }
    page
}

/// Nothing can be read.
pub(crate) fn unknown() -> Page {
    Page {
        host: "db-0417.example.net".into(),
        release: "6.12.95+deb12-cloud-amd64".into(),
        telemetry_path: "/metrics".into(),
        degradations: vec![Degradation {
            what: "livepatches cannot be read: /sys is not sysfs".into(),
            remedy: "mount sysfs, or name its place with --path.sysfs".into(),
        }],
        ..Page::default()
    }
}

/// A transition of which next to nothing is known.
pub(crate) fn nameless() -> Page {
    let mut page = unknown();
    page.transition = Some(Transition {
        patch: None,
        direction: Direction::Unpatch,
        running_for: None,
        attempts: None,
        signals: None,
        stuck: false,
        pending: None,
    });
    page
}

/// This kernel cannot be livepatched.
pub(crate) fn unsupported() -> Page {
    let mut page = quiet();
    page.patches = Some(PatchSet::default());
    page
}

/// Every foreign string is this one.
pub(crate) fn foreign(text: &str) -> Page {
    let text = || text.to_owned();
    let mut page = degraded();
    page.host = text();
    page.release = text();
    let mut one = patch(&text());
    one.srcversion = Some(text());
    for object in &mut one.objects {
        object.name = text();
        for function in &mut object.functions {
            function.name = text();
        }
    }
    page.patches = Some(PatchSet {
        supported: true,
        patches: vec![one],
    });
    page.forced = BTreeMap::from([(text(), true)]);
    let mut held = blocker(0, &text(), Reason::Sleeping, &text());
    held.object = Some(text());
    held.function = Some(text());
    for frame in &mut held.task.stack {
        if let Some(symbol) = &mut frame.symbol {
            symbol.name = text();
            symbol.module = Some(text());
        }
    }
    page = waiting(page, &[held], 20, true);
    if let Some(pending) = page.transition.as_mut().and_then(|it| it.pending.as_mut()) {
        pending.shown[0].unit = Some(text());
    }
    let mut last = crash(true);
    last.id = text();
    last.record.headline = text();
    last.record.comm = Some(text());
    last.record.function = Some(Function {
        name: text(),
        offset: None,
        size: None,
        module: Some(text()),
    });
    last.record.evidence[0].patch = Some(text());
    last.record.last_transition = Some(Last {
        patch: text(),
        direction: Direction::Patch,
        ended_before_seconds: Some(1.0),
    });
    page.last_crash = Some(last);
    page.crashes.implicating = BTreeMap::from([((Signal::Oops, text()), 1)]);
    page.interrupted = vec![Interrupted {
        manager: Manager::Yum,
        packages: vec![Package {
            name: text(),
            state: text(),
        }],
    }];
    let expected = |state| Expected {
        patch: text(),
        file: None,
        state,
    };
    page.expected = vec![
        expected(State::Disabled),
        expected(State::OtherBuild {
            disk: text(),
            loaded: text(),
        }),
    ];
    page.degradations = vec![Degradation {
        what: text(),
        remedy: text(),
    }];
    page.probes_missing = vec![("klp_enable_patch", Some(text()))];
    page
}
