//! One log of each kind of report, source and damage (`tests/fixtures/crash/kinds`), and the
//! expected result of each.

mod hostile;
mod negatives;
mod words;

use super::*;
use crate::crash::{NonFatalSignal, display};

pub(super) fn kind_log(name: &str) -> Vec<u8> {
    fs::read(folder().join(format!("kinds/{name}.log"))).unwrap()
}

fn summary(record: &CrashRecord) -> String {
    let function = record
        .function
        .as_ref()
        .map_or("-".to_owned(), ToString::to_string);
    let known = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    format!(
        "{} x{}: {function}, {} {} on {}, taint {}, {}, {}",
        record.kind.name(),
        record.reports,
        record.comm.as_deref().unwrap_or("-"),
        known(record.pid),
        known(record.cpu),
        record.taint.as_deref().unwrap_or("-"),
        record.phase.name(),
        record.implicated.name(),
    )
}

fn non_fatal(signal: &NonFatalSignal) -> String {
    let function = signal
        .function
        .as_ref()
        .map_or("-".to_owned(), ToString::to_string);
    format!(
        "{}: {function}, {}",
        signal.report.as_deref().unwrap_or(signal.signal.name()),
        signal.implicated.name()
    )
}

/// By file: every crash, then the signals that were not crashes, then the problems.
const KINDS: &[(&str, &[&str])] = &[
    (
        "arm64-bad-mode",
        &[
            "oops x1: acme_fixed+0x14/0x60 [livepatch_cve_7], io_helper 642 on 2, taint OEK, unknown, yes",
        ],
    ),
    (
        "arm64-old-instruction",
        &[
            "oops x1: acme_plain+0x184/0x2b0 [acme_net], io_helper 642 on 2, taint OE, unpatched, no",
        ],
    ),
    (
        "arm64-serror",
        &["panic x1: acme_plain+0x4/0x1b4, io_helper 642 on 1, taint , unpatched, no"],
    ),
    (
        "arm64-stack-overflow",
        &[
            "panic x1: acme_fixed+0x4/0x1b4 [livepatch_cve_7], io_helper 642 on 1, taint K, unknown, unknown",
        ],
    ),
    (
        "bare-address",
        &["oops x1: 0xffffffffc0aa1234, io_helper 642 on 3, taint OK, soak, unknown"],
    ),
    (
        "decoded-stack",
        &["oops x1: acme_plain, io_helper 642 on 1, taint OEK, unknown, yes"],
    ),
    (
        "dmesg-T-soak",
        &["oops x1: acme_plain+0x13/0x150, io_helper 642 on 5, taint OEK, soak, no"],
    ),
    (
        "frame-of-unloaded-patch",
        &["oops x1: acme_plain+0x13/0x150, io_helper 642 on 5, taint OEK, unknown, yes"],
    ),
    (
        "ghes-fatal",
        &["machine_check x1: -, swapper/0 0 on 0, taint , unpatched, no"],
    ),
    (
        "glued-module-list",
        &[
            "hard_lockup x1: acme_fixed+0x12/0x80 [livepatch_cve_7], io_helper 642 on 3, taint OEK, unknown, yes",
        ],
    ),
    (
        "hard-lockup-behind-nmi",
        &[
            "hard_lockup x1: native_queued_spin_lock_slowpath+0x6a/0x2f0, io_helper 642 on 1, taint OEK, unknown, yes",
        ],
    ),
    (
        "hung-ppc64le",
        &["hung_task x1: acme_wait+0x94/0x180 [acme_net], acme_a 11 on -, taint , unpatched, no"],
    ),
    (
        "hung-then-panic",
        &["hung_task x2: acme_wait+0x1/0x20, acme_a 11 on -, taint OEK, unknown, yes"],
    ),
    (
        "hung-three-by-three",
        &[
            "hung_task x3: acme_wait+0x1/0x2, acme_a 11 on -, taint , unpatched, no",
            "hung_task x3: acme_wait+0x1/0x2, acme_b 12 on -, taint , unpatched, no",
            "hung_task x3: acme_wait+0x1/0x2, acme_c 13 on -, taint , unpatched, no",
        ],
    ),
    (
        "interleaved-callers",
        &["oops x1: acme_plain+0x6/0x10, io_helper 642 on 1, taint , unpatched, no"],
    ),
    (
        "iso-dates-soak",
        &["oops x1: acme_plain+0x13/0x150, io_helper 642 on 5, taint OEK, soak, no"],
    ),
    (
        "kasan-panic",
        &[
            "panic x1: acme_fixed+0x57/0x150 [livepatch_cve_7], io_helper 642 on 1, taint OEK, unknown, unknown",
        ],
    ),
    (
        "kdump-kernel-behind",
        &[
            "panic x1: sysrq_handle_crash+0x1a/0x20, bash 642 on 1, taint , unpatched, no",
            "panic x1: -, systemd 1 on 0, taint , unpatched, no",
        ],
    ),
    (
        "kdump-loaded",
        &["oops x1: acme_read+0x3a/0x1c0 [acme_net], io_helper 642 on 1, taint OEK, unknown, no"],
    ),
    (
        "kdump-loaded-untainted",
        &["oops x1: acme_read+0x3a/0x1c0 [acme_net], io helper 642 on 1, taint , unpatched, no"],
    ),
    (
        "kgraft-sles12",
        &[
            "oops x1: kgr_acme_fixed+0x12/0x80 [kgraft_patch_4_4_121_92_1], io_helper 642 on 1, taint OEK, unknown, yes",
        ],
    ),
    (
        "list-corruption",
        &[
            "oops x1: __list_del_entry_valid_or_report+0xd4/0xf0, io_helper 642 on 1, taint OEK, unknown, yes",
        ],
    ),
    (
        "loading-not-listed",
        &["oops x1: apply_relocate_add+0xbe/0x14c, insmod 642 on 1, taint OEK, load, yes"],
    ),
    (
        "login-prompt",
        &[
            "soft_lockup x1: acme_read+0x3a/0x1c0 [livepatch_cve_7], io_helper 642 on 1, taint OEK, unknown, yes",
        ],
    ),
    (
        "lone-headline",
        &[
            "problem: cannot determine whether this is a crash, since nothing else of its report is in the log: BUG: unable to handle page fault for address: ffffffffc0aa1234",
        ],
    ),
    (
        "loongarch-oops",
        &["oops x1: acme_plain+0x54/0x80, io_helper 642 on 1, taint K, unknown, no"],
    ),
    (
        "module-without-its-flag",
        &[
            "oops x1: acme_fixed+0x12/0x80 [livepatch_cve_7], io_helper 642 on 0, taint OEK, unknown, unknown",
        ],
    ),
    (
        "nmi-reason",
        &["panic x1: unknown_nmi_error+0x9c/0xa0, io_helper 642 on 0, taint OEK, unknown, yes"],
    ),
    (
        "non-fatal-reports",
        &[
            "kfence: acme_fixed+0x57/0x150 [livepatch_cve_7], unknown",
            "ubsan: -, unknown",
            "scheduling_while_atomic: -, unknown",
            "sleeping_in_atomic: -, unknown",
            "workqueue_lockup: -, unknown",
        ],
    ),
    (
        "ppc64le-bug",
        &[
            "oops x1: acme_check+0x24/0x40 [livepatch_cve_7], io_helper 55 on 2, taint K, unknown, yes",
        ],
    ),
    (
        "ppc64le-hard-lockup",
        &[
            "hard_lockup x1: acme_spin+0x74/0x90 [livepatch_cve_7], io_helper 700 on 3, taint OEK, unknown, yes",
        ],
    ),
    (
        "ppc64le-oops",
        &[
            "oops x1: acme_read+0x24/0x140 [livepatch_cve_7], io_helper 5150 on 7, taint OEK, soak, yes",
        ],
    ),
    (
        "quoted-mail",
        &[
            "oops x1: acme_read+0x3a/0x1c0 [livepatch_cve_7], io_helper 642 on 1, taint OEK, unknown, yes",
        ],
    ),
    (
        "rcu-stall-interrupted",
        &["rcu_stall: acme_fixed+0x14/0x60 [livepatch_cve_7], yes"],
    ),
    (
        "refcount-warning",
        &["refcount: refcount_warn_saturate+0xba/0x110, yes"],
    ),
    (
        "rhel7-dashes",
        &[
            "oops x1: acme_fixed+0x12/0x80 [kpatch_cve_7], io_helper 642 on 1, taint OEKT, unknown, yes",
        ],
    ),
    (
        "riscv-oops",
        &["oops x1: acme_plain+0x1a/0x44 [acme_net], io_helper 642 on 3, taint K, unknown, no"],
    ),
    (
        "s390x-illegal-operation",
        &[
            "oops x1: acme_read+0x3a/0x1c0 [livepatch_cve_7], io_helper 642 on 1, taint K, unknown, yes",
        ],
    ),
    (
        "s390x-leaf-function",
        &[
            "oops x1: acme_leaf+0x3a/0x1c0 [livepatch_cve_7], io_helper 642 on 1, taint K, unknown, yes",
        ],
    ),
    (
        "signaling-only",
        &["oops x1: acme_plain+0x13/0x150, io_helper 642 on 5, taint EK, transition, no"],
    ),
    (
        "soft-lockups-alternating",
        &[
            "soft_lockup x4: acme_spin+0x10/0x20 [acme_net], acme_w 11 on 1, taint , unpatched, no",
            "soft_lockup x4: acme_spin+0x10/0x20 [acme_net], acme_w 12 on 2, taint , unpatched, no",
        ],
    ),
    (
        "stack-protector",
        &[
            "panic x1: acme_fixed+0x7ea/0x7f0 [livepatch_cve_7], io_helper 642 on 1, taint OEK, unknown, unknown",
        ],
    ),
    (
        "text-before-time",
        &["oops x1: acme_read+0x3a/0x1c0 [acme_net], io_helper 642 on 1, taint , unpatched, no"],
    ),
    (
        "two-boots-no-first-line",
        &[
            "oops x1: acme_plain+0x13/0x150, io_helper 642 on 5, taint , unpatched, no",
            "oops x1: acme_other+0x13/0x150, second_boot 99 on 2, taint , unpatched, no",
        ],
    ),
    (
        "two-excerpts",
        &[
            "oops x1: acme_plain+0x214/0x348, acme_a 642 on 0, taint OEK, unknown, unknown",
            "oops x1: acme_other+0x214/0x348, acme_b 99 on 3, taint OEK, unknown, unknown",
        ],
    ),
    ("user-faults", &[]),
    (
        "weekday-date-zone",
        &["panic x1: -, bash 642 on 1, taint , unpatched, no"],
    ),
    (
        "wrapped-module-list",
        &[
            "oops x1: acme_fixed+0x13/0x150 [livepatch_cve_7], io_helper 642 on 5, taint OEK, unknown, yes",
        ],
    ),
    (
        "wrapped-warning",
        &["warning: acme_handler+0x136/0x150, yes"],
    ),
    (
        "x86-double-fault",
        &["oops x1: acme_recurse+0x5/0x30 [acme_net], io_helper 642 on 4, taint , unpatched, no"],
    ),
    (
        "x86-machine-check",
        &["machine_check x1: -, - - on 3, taint -, unknown, unknown"],
    ),
];

#[test]
fn each_kind() {
    let files = fs::read_dir(folder().join("kinds")).unwrap();
    assert_eq!(files.count(), KINDS.len(), "a file without its row");
    for (name, expected) in KINDS {
        let parsed = parser::read(&kind_log(name), &Reading::new(SOAK));
        let mut found: Vec<String> = parsed.records.iter().map(summary).collect();
        found.extend(parsed.non_fatal.iter().map(non_fatal));
        found.extend(
            parsed
                .problems
                .iter()
                .map(|problem| format!("problem: {problem}")),
        );
        assert_eq!(found, *expected, "{name}");
    }
}

fn record(name: &str) -> CrashRecord {
    let parsed = parser::read(&kind_log(name), &Reading::new(SOAK));
    parsed.records.into_iter().next().unwrap()
}

#[test]
fn a_headline_has_no_decoration() {
    for (name, headline) in [
        (
            "text-before-time",
            "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        ),
        (
            "login-prompt",
            "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [io_helper:642]",
        ),
        (
            "quoted-mail",
            "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        ),
        (
            "glued-module-list",
            "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
        ),
        (
            "kasan-panic",
            "BUG: KASAN: slab-use-after-free in acme_fixed+0x57/0x150 [livepatch_cve_7]",
        ),
        (
            "arm64-serror",
            "Kernel panic - not syncing: Asynchronous SError Interrupt",
        ),
    ] {
        assert_eq!(record(name).headline, headline, "{name}");
    }
    assert_eq!(
        record("text-before-time").panic.as_deref(),
        Some("Fatal exception")
    );
    assert_eq!(
        record("list-corruption").report.as_deref(),
        Some("list_corruption")
    );
}

#[test]
fn a_trace_ends_where_the_callers_end() {
    let names = |name: &str, reliable: bool| -> Vec<String> {
        let frames = record(name).trace.into_iter();
        let of_kind = frames.filter(|frame| frame.reliable == reliable);
        of_kind.map(|frame| frame.function.name).collect()
    };
    // Neither the last breaking event, nor the first, guessed frame.
    assert_eq!(
        names("s390x-leaf-function", true),
        ["ksys_read", "system_call"]
    );
    assert_eq!(names("s390x-leaf-function", false), ["acme_leaf"]);
    assert_eq!(
        names("ppc64le-oops", true),
        ["ksys_read", "system_call_vectored_common"]
    );
    assert_eq!(names("ppc64le-oops", false), ["acme_read"]);
    assert_eq!(names("interleaved-callers", true), ["ksys_read"]);
}

/// The clock stands still: the panic may be part of the name before it.
#[test]
fn a_doubt_says_why() {
    let log = "[   10.840000] acme: file of a user\n[   10.840000] Kernel panic - not syncing: x\n";
    let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
    assert_eq!(
        parsed.problems,
        [
            "cannot determine whether this is a crash, since it may be part of a name in the \
             lines before it, and nothing that only a crash has follows outside of what a name \
             may hold: Kernel panic - not syncing: x"
        ]
    );
    assert!(parsed.records.is_empty());
}

#[test]
fn unknown_says_why() {
    for (name, reason) in [
        (
            "bare-address",
            "0xffffffffc0aa1234 has no name: it may be in a livepatch that is gone",
        ),
        (
            "module-without-its-flag",
            "the kernel is tainted by a livepatch (K), and the log does not name it",
        ),
        (
            "arm64-stack-overflow",
            "the end of the report is not in the log",
        ),
        ("two-excerpts", "the end of the report is not in the log"),
    ] {
        let shown = display::implicated(&record(name));
        assert!(
            shown.starts_with("unknown: ") && shown.contains(reason),
            "{name}: {shown}"
        );
    }
}
