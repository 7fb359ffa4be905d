//! Hosts in every state that the page can show.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use livepatch_core::{
    blockers::{
        Blocker, BlockerReport, Counts, Frame, PendingTask, Reason, Symbol, TaskState, printable,
    },
    crash::{
        CrashRecord, Evidence, EvidenceKind, Function, HostCrash, Implicated, Kind,
        PatchTransition, Phase, Precision, Signal, When, capture::Source, counts,
    },
    degradation::Degradation,
    function_ref::{CodePlace, FunctionRef},
    lifecycle::{At, Step},
    patch::{self, Object, Patch, PatchSet},
    pending_tasks::Found,
    transition::{BootTime, Direction, Outcome, Totals, Transition},
    transition_state::Running,
};
use livepatch_monitor::{
    exporter::{
        collectors::{Values, transitions::Failure},
        status_page::{BLOCKERS_SHOWN, Page},
    },
    host::{
        expected::{Expected, State},
        packages::{Interrupted, Manager, Package},
    },
    kernel::probes::{Method, ProbeStatus},
};

/// 2026-11-23T16:52:47Z in seconds since 1970.
const NOW: f64 = 1_795_452_767.0;
const PATCH: &str = "livepatch_2026_11_net_fix";

/// The state of a host in this test, to be changed.
pub(crate) const fn values(page: &mut Page) -> &mut Values {
    &mut page.collected.values
}

/// Nothing is loaded, and nothing is wrong.
pub(crate) fn quiet() -> Page {
    let mut page = Page {
        host: "db-0417.example.net".into(),
        now_unix_seconds: Some(NOW),
        telemetry_path: "/metrics".into(),
        ..Page::default()
    };
    let known = values(&mut page);
    known.patches.release = "6.12.95+deb12-cloud-amd64".into();
    known.patches.set = Some(Arc::new(PatchSet {
        supported: true,
        patches: Vec::new(),
    }));
    known.transitions.totals = Some(Totals::default());
    known.crashes.signals = Some(counts::Counts::default());
    known.crashes.totals = Some(BTreeMap::new());
    known.crashes.boot_unclean = Some(false);
    known.crash_capture.ready = BTreeMap::from([
        (Source::Pstore, true),
        (Source::Kdump, true),
        (Source::Recorder, true),
        (Source::Watchdog, true),
        (Source::RebootOnPanic, true),
    ]);
    known.updates.interrupted = vec![left(Manager::Dpkg, Vec::new(), "")];
    page
}

fn left(manager: Manager, packages: Vec<Package>, command: &str) -> Interrupted {
    Interrupted {
        manager,
        packages,
        commands: vec![command.to_owned()],
        run: None,
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
        ..Patch::default()
    }
}

fn expected(patch: &str, state: State) -> Expected {
    Expected {
        patch: patch.into(),
        file: None,
        state,
        srcversion: None,
        cves: Vec::new(),
    }
}

/// A patch is in force.
pub(crate) fn in_force() -> Page {
    let mut page = quiet();
    let since = At {
        unix_seconds: Some(NOW - 93_784.0),
        ..At::default()
    };
    let ended = Step::Ended {
        patch: Some(PATCH),
        direction: Some(Direction::Patch),
        outcome: Some(Outcome::Completed),
        took: Some(Duration::from_millis(2_340)),
    };
    let history = Arc::make_mut(&mut page.collected.moment.history);
    history.life.step(since, ended);
    let known = values(&mut page);
    known.patches.set = Some(Arc::new(PatchSet {
        supported: true,
        patches: vec![patch(PATCH)],
    }));
    known.transitions.forced.insert(PATCH.into(), false);
    known.crashes.of_patch.insert(PATCH.into(), (0, None));
    known.expected.patches = vec![expected(PATCH, State::InForce)];
    known.transitions.totals = Some(Totals {
        attempts: 3,
        ..Totals::default()
    });
    page
}

/// A task that holds the transition up.
pub(crate) fn blocker(number: u32, comm: &str, reason: Reason, detail: &str) -> Blocker {
    let frame = |name: &str, module: Option<&str>| Frame {
        address: None,
        symbol: Some(Symbol {
            place: CodePlace {
                name: name.into(),
                module: module.map(str::to_owned),
                offset: Some(0x94),
                size: Some(0xd0),
            },
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
        function: (reason == Reason::Sleeping).then(|| FunctionRef {
            object: "vmlinux".into(),
            function: "tcp_rcv_established".into(),
        }),
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
    // As `Exporter::status` chooses them.
    let mut ordered: Vec<&Blocker> = blockers.iter().collect();
    ordered.sort_by_key(|blocker| (!blocker.reason.holds(), blocker.reason));
    let shown = ordered.into_iter().take(BLOCKERS_SHOWN);
    page.blockers = shown.map(report).collect();
    let known = values(&mut page);
    let mut patches = known
        .patches
        .set
        .iter_mut()
        .flat_map(|set| &mut Arc::make_mut(set).patches);
    let patch = patches.next().map(|patch| {
        patch.transition = Some(true);
        patch.name.clone()
    });
    let age = Duration::from_secs(running_for);
    known.tasks.found = Some(Arc::new(Found {
        patch: patch.clone().unwrap_or_default(),
        blockers: blockers.to_vec(),
        counts: Counts::of(blockers),
        ..Found::default()
    }));
    known.transitions.stuck = stuck;
    known.transitions.running = Some(Running {
        transition: Transition {
            attempts: u32::try_from(running_for).ok(),
            ..Transition::new(patch, Direction::Patch)
        },
        running_for: Some(age),
        at_least: age,
        signals: u32::try_from(running_for / 15).ok(),
        segment: 1,
    });
    page
}

/// A transition has started.
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
    if let Some(found) = &mut values(&mut page).tasks.found {
        Arc::make_mut(found).idle_unknown = true;
    }
    page
}

/// The kernel has just started: thousands are pending, and the two that hold it up are the last of
/// the scan.
pub(crate) fn ten_thousand() -> Page {
    let clean = "nothing holds it up: the kernel has not checked it since its stack became clean";
    let mut blockers: Vec<Blocker> = (0..9998)
        .map(|number| blocker(number, "worker", Reason::Unvisited, clean))
        .collect();
    blockers
        .extend((9998..10_000).map(|number| blocker(number, "worker", Reason::Sleeping, ASLEEP)));
    waiting(in_force(), &blockers, 6, false)
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
        found_unix_seconds: None,
        update: None,
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
            last_transition: Some(PatchTransition {
                patch: PATCH.into(),
                direction: Direction::Patch,
                seconds: Some(4.1),
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

/// The boot before this one ended in a crash that interrupted an update.
pub(crate) fn crashed() -> Page {
    let mut page = quiet();
    let known = values(&mut page);
    known.crashes.last = Some(crash(true));
    known.crashes.boot_unclean = Some(true);
    known.crashes.totals = Some(BTreeMap::from([((Kind::Oops, Phase::Soak), 2)]));
    let half_done = [
        ("linux-image-6.12.95+deb12-cloud-amd64", "half-configured"),
        ("openssl", "unpacked"),
    ];
    let packages = half_done.map(|(name, state)| Package {
        name: name.into(),
        state: state.into(),
    });
    let command = "dpkg --configure -a; apt-get -f install";
    known.updates.interrupted = vec![left(Manager::Dpkg, packages.into(), command)];
    known.expected.patches = vec![expected(PATCH, State::Missing)];
    page
}

/// The running kernel has had an oops.
pub(crate) fn survived() -> Page {
    let mut page = in_force();
    let known = values(&mut page);
    let mut signals = counts::Counts::default();
    signals.signals.insert((Signal::Oops, Phase::Soak), 1);
    signals.implicating.insert((Signal::Oops, PATCH.into()), 1);
    known.crashes.signals = Some(signals);
    known.crashes.last = Some(crash(false));
    known.crashes.last_in_this_boot = true;
    known.crashes.totals = Some(BTreeMap::from([((Kind::Oops, Phase::Soak), 1)]));
    let last = Some(NOW - 14_619.0);
    known.crashes.of_patch.insert(PATCH.into(), (1, last));
    known.transitions.forced.insert(PATCH.into(), true);
    known.transitions.totals = Some(Totals {
        load_failures: 2,
        ..Totals::default()
    });
    known.transitions.last_failure = Some(Failure {
        patch: Some("other_fix".into()),
        unix_seconds: Some(NOW - 3_600.0),
        cancelled: false,
    });
    page
}

/// Without BPF, with a full disk, and without any source of dumps.
pub(crate) fn degraded() -> Page {
    let mut page = in_force();
    page.collected.degradations = vec![
        Degradation {
            what: "no kernel probes (cannot load the BPF programs: Operation not permitted (os error 1)): transitions are detected by reading sysfs every second, tasks by walking /proc; attempts, signals and load failures are not seen".into(),
            remedy: "run as root or with CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), on a kernel with CONFIG_BPF_SYSCALL=y".into(),
        },
        Degradation {
            what: "journal entries that did not reach the disk: 12".into(),
            remedy: "make sure that --state-dir is writable and not full".into(),
        },
    ];
    let refused = "fentry: not permitted; kprobe: not permitted";
    let known = values(&mut page);
    known.monitor.probes = vec![
        not_attached("klp_enable_patch", None),
        not_attached("klp_init_transition", Some(refused)),
    ];
    for ready in known.crash_capture.ready.values_mut() {
        *ready = false;
    }
    page
}

fn not_attached(probe: &'static str, problem: Option<&str>) -> ProbeStatus {
    ProbeStatus {
        probe,
        method: Method::None,
        problem: problem.map(str::to_owned),
    }
}

/// Nothing can be read.
pub(crate) fn unknown() -> Page {
    let mut page = Page {
        host: "db-0417.example.net".into(),
        telemetry_path: "/metrics".into(),
        ..Page::default()
    };
    values(&mut page).patches.release = "6.12.95+deb12-cloud-amd64".into();
    page.collected.degradations = vec![Degradation {
        what: "cannot determine which livepatches are loaded: /sys is not sysfs".into(),
        remedy: "mount sysfs, or name its place with --path.sysfs".into(),
    }];
    page
}

/// A transition about which almost nothing is known.
pub(crate) fn nameless() -> Page {
    let mut page = unknown();
    values(&mut page).transitions.running = Some(Running {
        transition: Transition::new(None, Direction::Unpatch),
        running_for: None,
        at_least: Duration::ZERO,
        signals: None,
        segment: 1,
    });
    page
}

/// This kernel does not support livepatching.
pub(crate) fn unsupported() -> Page {
    let mut page = quiet();
    values(&mut page).patches.set = Some(Arc::default());
    page
}

/// Every untrusted string is this one.
pub(crate) fn foreign(text: &str) -> Page {
    let text = || text.to_owned();
    let mut page = degraded();
    page.host = text();
    values(&mut page).patches.release = text();
    let mut one = patch(&text());
    one.srcversion = Some(text());
    for object in &mut one.objects {
        object.name = text();
        for function in &mut object.functions {
            function.name = text();
        }
    }
    values(&mut page).patches.set = Some(Arc::new(PatchSet {
        supported: true,
        patches: vec![one],
    }));
    values(&mut page).transitions.forced = BTreeMap::from([(text(), true)]);
    let mut held = blocker(0, &text(), Reason::Sleeping, &text());
    held.function = Some(FunctionRef {
        object: text(),
        function: text(),
    });
    for frame in &mut held.task.stack {
        if let Some(symbol) = &mut frame.symbol {
            symbol.place.name = text();
            symbol.place.module = Some(text());
        }
    }
    page = waiting(page, &[held], 20, true);
    page.blockers[0].unit = Some(text());
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
    last.record.last_transition = Some(PatchTransition {
        patch: text(),
        direction: Direction::Patch,
        seconds: Some(1.0),
    });
    let known = values(&mut page);
    known.crashes.last = Some(last);
    let mut signals = counts::Counts::default();
    signals.implicating.insert((Signal::Oops, text()), 1);
    known.crashes.signals = Some(signals);
    let (name, state) = (text(), text());
    let packages = vec![Package { name, state }];
    known.updates.interrupted = vec![left(Manager::Yum, packages, &text())];
    let other = State::OtherBuild {
        disk: text(),
        loaded: text(),
    };
    known.expected.patches = vec![expected(&text(), State::Disabled), expected(&text(), other)];
    page.collected.degradations = vec![Degradation {
        what: text(),
        remedy: text(),
    }];
    let refused = text();
    values(&mut page).monitor.probes = vec![not_attached("klp_enable_patch", Some(&refused))];
    page
}
