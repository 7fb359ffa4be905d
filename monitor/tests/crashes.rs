//! `crashes` from an operator's point of view.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use livepatch_core::crash::{CrashRecord, Kind, Phase, Precision, When};
use livepatch_monitor::crash::store::Store;
use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/crash")
        .join(name)
}

fn import(files: &[&Path], flags: &[&str]) -> Answer {
    let mut command = Command::new(BINARY);
    command.args(["crashes", "import"]).args(flags).args(files);
    Process::run(command)
}

#[test]
fn console_and_pstore_give_one_crash() {
    let console = fixture("6.12/oops.log");
    let pstore = fixture("6.12/pstore-oops");
    let answer = import(&[&pstore, &console], &[]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    let out = answer.out;
    assert_eq!(out.matches("oops: BUG: kernel NULL").count(), 1, "{out}");
    for said in [
        "  when        2026-11-23T12:49:08Z (by pstore's record, to about a second), 10.894377 s after boot\n",
        "  kernel      6.12.95+deb12-cloud-amd64\n",
        "  phase       soak: patching of lpm_patch_oops had ended 4.1 s before\n",
        "  implicated  yes: the fault is in livepatch lpm_patch_oops, livepatch_function+0x9/0x30 [lpm_patch_oops]\n",
        "  task        \"cat\" pid 145 on CPU 0\n",
        "  then        Kernel panic: Fatal exception\n",
        "    seq_read_iter+0x123/0x470\n",
        "    ? __pfx_direct_splice_actor+0x10/0x10\n",
        "6.12/oops.log\n",
        "dmesg-erst-7711348131945775105\n",
    ] {
        assert!(out.contains(said), "no {said:?} in:\n{out}");
    }
}

#[test]
fn json_has_the_same() {
    let pstore = fixture("7.2/pstore-transition");
    let answer = import(&[&pstore], &["--json"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let at = |path: &str| report.pointer(path).expect(path).clone();
    assert_eq!(at("/crashes/0/kind"), "panic");
    assert_eq!(at("/crashes/0/phase"), "transition");
    assert_eq!(at("/crashes/0/transition/patch"), "lpm_patch_a");
    assert_eq!(at("/crashes/0/transition/direction"), "patch");
    assert_eq!(at("/crashes/0/implicated"), "no");
    assert_eq!(at("/crashes/0/when/precision"), "dump");
    assert_eq!(at("/crashes/0/function/name"), "sysrq_handle_crash");
    assert_eq!(at("/problems"), serde_json::json!([]));
}

#[test]
fn exit_codes() {
    let root = tempfile::tempdir().unwrap();
    let quiet = root.path().join("quiet.log");
    fs::write(&quiet, "[    0.000000] Linux version 6.12.1\n").unwrap();
    let answer = import(&[&quiet], &[]);
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (Some(1), "no crash found\n")
    );

    let vmcore = root.path().join("vmcore");
    fs::write(&vmcore, b"KDUMP   \0\0").unwrap();
    let console = fixture("6.1/sysrq.log");
    let missing = root.path().join("missing");
    let answer = import(&[&vmcore, &missing, &console], &[]);
    assert_eq!(answer.code, Some(2));
    assert!(
        answer.out.starts_with("panic: Kernel panic"),
        "{}",
        answer.out
    );
    for said in [
        "vmcore is a memory image",
        "makedumpfile",
        "cannot read",
        "missing",
    ] {
        assert!(answer.err.contains(said), "no {said:?} in: {}", answer.err);
    }
    assert_eq!(import(&[], &[]).code, Some(2));
}

#[test]
fn a_missing_part_is_named() {
    let root = tempfile::tempdir().unwrap();
    let mut parts: Vec<_> = fs::read_dir(fixture("6.12/pstore-sysrq"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    parts.sort();
    let [newest, _, oldest] = parts.as_slice() else {
        panic!("{parts:?}");
    };
    for part in [newest, oldest] {
        fs::copy(part, root.path().join(part.file_name().unwrap())).unwrap();
    }
    let answer = import(&[root.path()], &[]);
    assert_eq!(answer.code, Some(2));
    assert!(
        answer.err.contains("1 of the dump's parts is not there"),
        "{}",
        answer.err
    );
    assert!(answer.out.contains("sysrq_handle_crash"), "{}", answer.out);
}

#[test]
fn hostile_bytes_do_not_reach_the_terminal() {
    let root = tempfile::tempdir().unwrap();
    let log = root.path().join("a\x1b[2Jlog");
    let text =
        b"[ 1.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [\x1b]0;evil\x07\xff:7]\n\
        [ 1.0] CPU: 1 PID: 7 Comm: \x1b[31m\xe2\x80\xae Tainted: G K 6.1\x1b[2J #1\n";
    fs::write(&log, text).unwrap();
    let answer = import(&[&log], &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let strange = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!answer.out.contains(strange), "{:?}", answer.out);
    let answer = import(&[&log], &["--json"]);
    assert!(
        !answer.out.contains(|c: char| c.is_control() && c != '\n'),
        "{:?}",
        answer.out
    );
}

/// A host whose state directory has two oopses and a reset, and their ids.
fn stored() -> (FakeHost, Vec<String>) {
    let host = FakeHost::default();
    let mut store = Store::open(&host.path("state")).unwrap().store;
    let when = |uptime: f64| When {
        uptime_seconds: Some(uptime),
        unix_seconds: Some(1_795_438_089.0 + uptime),
        precision: Precision::Line,
    };
    for uptime in [5.0, 65.0] {
        let oops = CrashRecord {
            headline: "BUG: kernel NULL pointer dereference\u{1b}[31m".into(),
            when: when(uptime),
            phase: Phase::Transition,
            ..CrashRecord::empty(Kind::Oops)
        };
        assert!(store.put(oops, Some("b1"), Some(false)).unwrap());
    }
    let reset = CrashRecord {
        headline: "the boot ended without a message in the log".into(),
        when: when(90.0),
        ..CrashRecord::empty(Kind::Reset)
    };
    assert!(store.put(reset, Some("b1"), Some(true)).unwrap());
    let ids = store.crashes().iter().map(|crash| crash.id.clone());
    (host, ids.collect())
}

fn run(host: &FakeHost, arguments: &[&str]) -> Answer {
    Process::run(host.command(BINARY, &[&["crashes"], arguments].concat()))
}

#[test]
fn the_newest_crash_is_the_first_of_the_table() {
    let (host, ids) = stored();
    let Answer { code, out, err } = run(&host, &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("WHEN") && lines[0].ends_with("HEADLINE"));
    for (line, id) in lines[1..].iter().zip(ids.iter().rev()) {
        assert!(line.contains(id.as_str()), "{line}");
    }
    assert!(!out.contains('\u{1b}'), "{out}");

    let answer = run(&host, &["--json"]);
    let list = answer.says(0, &[]).json();
    assert_eq!(list["crashes"][0]["kind"], "reset");
    assert_eq!(list["crashes"][0]["ended_boot"], true);
    assert_eq!(list["crashes"][2]["id"], ids[0].as_str());
    assert_eq!(list["updates"], serde_json::json!([]));
}

#[test]
fn a_crash_is_shown_by_a_unique_prefix_of_its_id() {
    let (host, ids) = stored();
    let show = |id: &str| run(&host, &["show", id]);
    let parts = [
        &ids[0],
        "oops",
        "transition",
        "the machine kept running",
        "b1",
    ];
    show(&ids[0]).says(0, &parts);
    let unique = &ids[2][..ids[2].len() - 4];
    show(unique).says(0, &["the machine went down with it"]);
    show("2026").refuses(&["several ids begin with"]);
    show("nothing-like-it").refuses(&["nothing-like-it"]);
}

#[test]
fn no_crash_is_reported_as_none() {
    let answer = run(&FakeHost::default(), &[]);
    answer.says(1, &["no crash", "no exporter has run"]);
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let (host, ids) = stored();
    let path = host.path(&format!("state/crashes/{}.json", ids[0]));
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replace("\"version\": 1", "\"version\": 2");
    assert_ne!(text, newer);
    fs::write(&path, &newer).unwrap();
    let Answer { code, out, err } = run(&host, &[]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("version 2"), "{err}");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
