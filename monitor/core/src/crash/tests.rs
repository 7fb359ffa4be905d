//! The recorded crashes of three kernels (`tests/fixtures/crash`), and what is known about each.
#![expect(clippy::disallowed_methods, reason = "tests read recorded inputs")]

use std::{fs, path::PathBuf};

use super::{
    CrashRecord, EvidenceKind, Implicated, Kind, Marker, Phase, Precision, Signal,
    parser::{self, Reading},
    pstore::{self, Header, Name, Part},
};

mod formats;
mod kinds;
mod no_module_list;
mod properties;
mod pstore_parts;

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.2"];
pub(super) const SOAK: f64 = 1800.0;

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    phase: Phase,
    implicated: Implicated,
    evidence: &'static [EvidenceKind],
    function: &'static str,
    comm: &'static str,
    panic: Option<&'static str>,
    patch: Option<&'static str>,
}

const fn case(name: &'static str, kind: Kind, phase: Phase) -> Case {
    Case {
        name,
        kind,
        phase,
        implicated: Implicated::No,
        evidence: &[],
        function: "",
        comm: "insmod",
        panic: Some("Fatal exception"),
        patch: None,
    }
}

pub(super) const CASES: [Case; 8] = [
    Case {
        function: "sysrq_handle_crash",
        comm: "init",
        panic: Some("sysrq triggered crash"),
        ..case("sysrq", Kind::Panic, Phase::Unpatched)
    },
    Case {
        function: "sysrq_handle_crash",
        comm: "init",
        panic: Some("sysrq triggered crash"),
        patch: Some("lpm_patch_a"),
        ..case("transition", Kind::Panic, Phase::Transition)
    },
    Case {
        implicated: Implicated::Yes,
        evidence: &[EvidenceKind::FaultInPatch],
        function: "livepatch_function",
        comm: "cat",
        patch: Some("lpm_patch_oops"),
        ..case("oops", Kind::Oops, Phase::Soak)
    },
    Case {
        implicated: Implicated::Yes,
        evidence: &[EvidenceKind::FaultInPatch],
        function: "livepatch_function",
        comm: "cat",
        patch: Some("lpm_patch_oops"),
        panic: None,
        ..case("oops_alive", Kind::Oops, Phase::Soak)
    },
    Case {
        implicated: Implicated::Yes,
        evidence: &[EvidenceKind::FaultInPatch, EvidenceKind::PatchLoading],
        function: "livepatch_init",
        patch: Some("lpm_patch_init_oops"),
        ..case("init_oops", Kind::Oops, Phase::Load)
    },
    Case {
        function: "lpm_crash_null",
        patch: Some("lpm_patch_a"),
        ..case("unrelated", Kind::Oops, Phase::Soak)
    },
    Case {
        function: "lpm_crash_init",
        panic: Some("softlockup: hung tasks"),
        ..case("soft", Kind::SoftLockup, Phase::Unpatched)
    },
    // Out-of-tree modules (O) and no module list: it may be one of another mechanism.
    Case {
        implicated: Implicated::Unknown,
        function: "lpm_kthread_sleep",
        comm: "lpm_sleeper",
        panic: Some("hung_task: blocked tasks"),
        ..case("hung", Kind::HungTask, Phase::Unknown)
    },
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/crash")
}

pub(super) fn console(kernel: &str, name: &str) -> Vec<u8> {
    fs::read(folder().join(kernel).join(format!("{name}.log"))).unwrap()
}

fn parts(kernel: &str, name: &str) -> Vec<Part> {
    let folder = folder().join(kernel).join(format!("pstore-{name}"));
    let part = |entry: fs::DirEntry| {
        let content = fs::read(entry.path()).unwrap();
        let (header, text) = Header::parse(&content).unwrap();
        let file = entry.file_name().to_string_lossy().into_owned();
        Part {
            name: Some(Name::parse(&file).unwrap()),
            header,
            written: None,
            text: text.to_owned(),
            file,
        }
    };
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| part(entry.unwrap()))
        .collect()
}

fn only(records: Vec<CrashRecord>) -> CrashRecord {
    assert_eq!(records.len(), 1, "{records:#?}");
    records.into_iter().next().unwrap()
}

#[track_caller]
fn check(case: &Case, kernel: &str, record: &CrashRecord) {
    let name = format!("{} on {kernel}", case.name);
    assert_eq!(record.kind, case.kind, "{name}");
    assert_eq!(record.phase, case.phase, "{name}");
    assert_eq!(record.implicated, case.implicated, "{name}");
    let evidence: Vec<_> = record
        .evidence
        .iter()
        .map(|evidence| evidence.kind)
        .collect();
    assert_eq!(evidence, case.evidence, "{name}");
    for evidence in &record.evidence {
        assert_eq!(evidence.patch.as_deref(), case.patch, "{name}");
    }
    let function = record.function.as_ref().unwrap();
    assert_eq!(function.name, case.function, "{name}");
    assert_eq!(record.comm.as_deref(), Some(case.comm), "{name}");
    assert_eq!(record.panic.as_deref(), case.panic, "{name}");
    let patches: Vec<_> = record
        .patches
        .iter()
        .map(|patch| patch.name.as_str())
        .collect();
    assert_eq!(patches, Vec::from_iter(case.patch), "{name}");
    let release = record.release.as_deref().unwrap();
    assert!(
        release.starts_with(&format!("{kernel}.")),
        "{name}: {release}"
    );
    let reliable = record.trace.iter().filter(|frame| frame.reliable).count();
    assert!((4..30).contains(&reliable), "{name}: {:#?}", record.trace);
    assert!(
        record.pid.is_some() && record.when.uptime_seconds.is_some(),
        "{name}"
    );
    assert!(record.when.unix_seconds.is_some() && !record.cut, "{name}");
}

#[test]
fn consoles_of_three_kernels() {
    for kernel in KERNELS {
        for case in &CASES {
            let parsed = parser::read(&console(kernel, case.name), &Reading::new(SOAK));
            let record = only(parsed.records);
            check(case, kernel, &record);
            assert_eq!(record.when.precision, Precision::LogClock);
            // The warning of `unrelated` is another event, and not a crash.
            let non_fatal: Vec<_> = parsed
                .non_fatal
                .iter()
                .map(|signal| signal.signal)
                .collect();
            let warned = case.name == "unrelated";
            assert_eq!(non_fatal, Vec::from_iter(warned.then_some(Signal::Warning)));
        }
    }
}

#[test]
fn pstore_of_three_kernels() {
    for kernel in KERNELS {
        for case in CASES
            .iter()
            .filter(|case| ["sysrq", "transition", "oops"].contains(&case.name))
        {
            let mut records = Vec::new();
            let dumps = pstore::join(parts(kernel, case.name));
            for dump in &dumps {
                assert_eq!(dump.missing, 0);
                records.extend(
                    parser::read(
                        &dump.text,
                        &Reading {
                            anchor: dump.anchor,
                            ..Reading::new(SOAK)
                        },
                    )
                    .records,
                );
            }
            assert_eq!(dumps.len(), if case.name == "oops" { 2 } else { 1 });
            // The console has the same crash, in no more detail.
            let console = parser::read(&console(kernel, case.name), &Reading::new(SOAK)).records;
            records.extend(console);
            let record = only(super::merge(records));
            check(case, kernel, &record);
            assert_eq!(record.when.precision, Precision::Dump);
        }
    }
}

#[test]
fn in_transition_for_how_long() {
    for kernel in KERNELS {
        let record =
            only(parser::read(&console(kernel, "transition"), &Reading::new(SOAK)).records);
        let running = record.transition.unwrap();
        assert_eq!(running.patch, "lpm_patch_a");
        let age = running.seconds.unwrap();
        assert!((2.5..4.5).contains(&age), "{age}");
    }
}

#[test]
fn behind_the_soak_it_is_just_patched() {
    let record = only(parser::read(&console("6.12", "oops"), &Reading::new(1.0)).records);
    assert_eq!(record.phase, Phase::Patched);
    assert!(record.last_transition.unwrap().seconds.unwrap() > 1.0);
}

#[test]
fn without_the_start_of_the_log_nothing_is_guessed() {
    let whole = String::from_utf8(console("6.12", "transition")).unwrap();
    let (_, end) = whole.split_once("sysrq: Trigger a crash").unwrap();
    let record = only(parser::read(end.as_bytes(), &Reading::new(SOAK)).records);
    assert_eq!((record.kind, record.phase), (Kind::Panic, Phase::Unknown));
    assert_eq!(record.implicated, Implicated::Unknown);

    let whole = String::from_utf8(console("6.12", "oops")).unwrap();
    let (_, end) = whole.split_once("patching complete").unwrap();
    let record = only(parser::read(end.as_bytes(), &Reading::new(SOAK)).records);
    assert_eq!(
        (record.phase, record.implicated),
        (Phase::Unknown, Implicated::Yes)
    );
}

#[test]
fn the_incident_of_2017() {
    let record =
        only(parser::read(&console("modelled", "kpatch-4.4"), &Reading::new(SOAK)).records);
    assert_eq!(record.kind, Kind::HardLockup);
    assert_eq!(record.signals, [Signal::HardLockup, Signal::Panic]);
    assert_eq!(record.phase, Phase::Load);
    assert_eq!(record.implicated, Implicated::Yes);
    let evidence = record.evidence.first().unwrap();
    assert_eq!(evidence.kind, EvidenceKind::PatchLoading);
    assert_eq!(evidence.patch.as_deref(), Some("kpatch_livepatch_20170602"));
    let function = record.function.unwrap();
    assert_eq!(function.to_string(), "multi_cpu_stop+0x90/0xf0");
    assert_eq!(record.comm.as_deref(), Some("migration/0"));
    assert_eq!(record.release.as_deref(), Some("4.4.0-62-generic"));
    assert_eq!(record.cpu, Some(0));
    let unloading = record.modules.as_ref().unwrap().iter();
    let unloading: Vec<_> = unloading
        .filter(|module| module.state == Marker::Unloading)
        .collect();
    assert_eq!(unloading.first().unwrap().name, "kvm_intel");
    let trace: Vec<_> = record
        .trace
        .iter()
        .map(|frame| frame.function.name.as_str())
        .collect();
    assert_eq!(trace.len(), 9);
    assert_eq!(trace.get(1), Some(&"cpu_stopper_thread"));
    assert!(!trace.contains(&"dump_stack"));
}

#[test]
fn signals_of_one_event_are_one_record() {
    let parsed = parser::read(&console("modelled", "lockups"), &Reading::new(SOAK));
    let kinds: Vec<_> = parsed.records.iter().map(|record| record.kind).collect();
    assert_eq!(
        kinds,
        [Kind::SoftLockup, Kind::SoftLockup, Kind::MachineCheck]
    );
    let non_fatal: Vec<_> = parsed
        .non_fatal
        .iter()
        .map(|signal| signal.signal)
        .collect();
    assert_eq!(non_fatal, [Signal::BadPage]);

    let lockup = parsed.records.first().unwrap();
    assert_eq!(lockup.signals, [Signal::RcuStall, Signal::SoftLockup]);
    assert_eq!(lockup.reports, 2);
    assert_eq!(lockup.comm.as_deref(), Some("klp worker"));
    let trace: Vec<_> = lockup
        .trace
        .iter()
        .map(|frame| frame.function.name.as_str())
        .collect();
    assert_eq!(
        trace,
        [
            "klp_unreliable_frame",
            "klp_try_complete_transition",
            "new_function"
        ],
        "neither another CPU's line nor the second report"
    );
    let evidence: Vec<_> = lockup
        .evidence
        .iter()
        .map(|evidence| {
            (
                evidence.kind,
                evidence.function.as_ref().unwrap().name.as_str(),
            )
        })
        .collect();
    assert_eq!(
        evidence,
        [
            (EvidenceKind::StackInPatch, "new_function"),
            (EvidenceKind::StackInCore, "klp_try_complete_transition"),
        ]
    );
    // The patch is listed, but the log does not say since when.
    assert_eq!(lockup.phase, Phase::Unknown);
}

#[test]
fn what_the_kernel_panicked_over() {
    const WARN: &str = "[ 1.0] WARNING: CPU: 0 PID: 7 at a.c:1 f+0x1/0x2 [m]\n\
        [ 1.0] CPU: 0 PID: 7 Comm: x Not tainted 6.1.0 #1\n[ 1.0] RIP: 0010:f+0x1/0x2 [m]\n";
    const OOPS: &str = "[ 1.0] Oops: general protection fault, probably for non-canonical address \
        0xdead: 0000 [#1] SMP\n[ 1.0] RIP: 0010:f+0x1/0x2 [m]\n[ 1.1] ---[ end trace 0 ]---\n";
    const INIT: &str = "Attempted to kill init! exitcode=0x0000000b";
    for (before, at, panic, kinds) in [
        (
            WARN,
            "1.0",
            "kernel: panic_on_warn set ...",
            &[Kind::Panic][..],
        ),
        (OOPS, "1.2", "Fatal exception in interrupt", &[Kind::Oops]),
        (OOPS, "1.2", INIT, &[Kind::Oops]),
        // An hour later it has other reasons.
        (OOPS, "3601.2", INIT, &[Kind::Oops, Kind::Panic]),
        ("", "1.0", INIT, &[Kind::Panic]),
        ("", "1.0", "Hard LOCKUP", &[Kind::HardLockup]),
        ("", "1.0", "RCU Stall", &[Kind::Panic]),
        (
            "",
            "1.0",
            "VFS: Unable to mount root fs on unknown-block(0,0)",
            &[Kind::Panic],
        ),
    ] {
        let log = format!("{before}[ {at}] Kernel panic - not syncing: {panic}\n");
        let records = parser::read(log.as_bytes(), &Reading::new(SOAK)).records;
        let found: Vec<_> = records.iter().map(|record| record.kind).collect();
        assert_eq!(found, kinds, "{log}");
        assert_eq!(records.last().unwrap().panic.as_deref(), Some(panic));
        if let [record] = records.as_slice()
            && !before.is_empty()
        {
            assert_eq!(record.function.as_ref().unwrap().name, "f", "{log}");
        }
    }
}

#[test]
fn two_boots_in_one_console() {
    let mut both = console("6.1", "oops");
    both.extend(console("6.12", "sysrq"));
    let parsed = parser::read(&both, &Reading::new(SOAK));
    let kinds: Vec<_> = parsed
        .records
        .iter()
        .map(|record| (record.kind, record.phase))
        .collect();
    assert_eq!(
        kinds,
        [(Kind::Oops, Phase::Soak), (Kind::Panic, Phase::Unpatched)]
    );
}

#[test]
fn a_quiet_console_has_no_first_line() {
    let quiet = |kernel, name| {
        let text = String::from_utf8(console(kernel, name)).unwrap();
        let (_, rest) = text.split_once("tainting kernel with").unwrap();
        rest.to_owned()
    };
    let both = quiet("6.1", "oops") + "\n[    0.500000] x\n" + &quiet("6.12", "init_oops");
    let parsed = parser::read(both.as_bytes(), &Reading::new(SOAK));
    let phases: Vec<_> = parsed.records.iter().map(|record| record.phase).collect();
    assert_eq!(phases, [Phase::Soak, Phase::Load]);
    let patches = parsed.records.last().unwrap().patches.len();
    assert_eq!(patches, 1, "the other boot's is not this one's");
}

#[test]
fn every_prefix_tells_the_same() {
    let plain = console("6.12", "oops");
    let plain = String::from_utf8(plain).unwrap().replace('\r', "");
    let expected = only(parser::read(plain.as_bytes(), &Reading::new(SOAK)).records);
    let prefixes: [fn(&str) -> String; 4] = [
        |line| format!("<4>{line}\n"),
        |line| format!("Nov 23 12:48:09 web-1 kernel: {line}\r\n"),
        |line| line.replacen("] ", "][  T145] ", 1) + "\n",
        |line| line.replacen("] ", "][    C0] ", 1) + "\r\r\n",
    ];
    for prefix in prefixes {
        let text: String = plain.lines().map(prefix).collect();
        let mut record = only(parser::read(text.as_bytes(), &Reading::new(SOAK)).records);
        record.host = None;
        assert_eq!(record, expected);
    }
    let dated: String = plain
        .lines()
        .map(|line| format!("2026-11-23T12:00:00Z web-1 kernel: {line}\n"))
        .collect();
    let record = only(parser::read(dated.as_bytes(), &Reading::new(SOAK)).records);
    assert_eq!(record.when.precision, Precision::Line);
    assert_eq!(record.when.unix_seconds, Some(1_795_435_200.0));
}
