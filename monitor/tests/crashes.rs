//! `crashes import` as an operator meets it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/crash")
        .join(name)
}

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn import(files: &[&Path], flags: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_livepatch-monitor"))
        .args(["crashes", "import"])
        .args(flags)
        .args(files)
        .output()
        .unwrap();
    Answer {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn one_crash_out_of_console_and_pstore() {
    let console = fixture("6.12/oops.log");
    let pstore = fixture("6.12/pstore-oops");
    let answer = import(&[&pstore, &console], &[]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    let out = answer.out;
    assert_eq!(out.matches("oops: BUG: kernel NULL").count(), 1, "{out}");
    for said in [
        "  when        2026-11-23T12:49:08Z (by pstore's record number, to about a second), 10.894377 s after boot\n",
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
fn a_part_that_is_missing_is_named() {
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
