use super::*;
use livepatch_core::{
    boots::RESET_HEADLINE,
    crash::{Precision, Signal, When},
};

fn oops(uptime: f64) -> CrashRecord {
    CrashRecord {
        headline: "BUG: kernel NULL pointer dereference".into(),
        signals: vec![Signal::Oops],
        when: When {
            uptime_seconds: Some(uptime),
            unix_seconds: Some(1_795_438_089.0 + uptime),
            precision: Precision::Line,
        },
        phase: Phase::Soak,
        ..CrashRecord::empty(Kind::Oops)
    }
}

fn open(directory: &Path) -> Store {
    let opened = Store::open(directory).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.store
}

#[test]
fn a_crash_is_stored_once_and_learns() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    assert!(!store.exists());
    assert!(store.put(oops(5.0), Some("b1"), Some(false)).unwrap());
    let id = store.crashes()[0].id.clone();
    assert!(id.starts_with("20261123T124814Z-oops-"), "{id}");
    let dump = CrashRecord {
        panic: Some("Fatal exception".into()),
        files: vec!["dmesg-erst-1".into()],
        ..oops(5.0)
    };
    for _ in 0..2 {
        let mut store = open(directory.path());
        assert!(!store.put(dump.clone(), None, Some(true)).unwrap());
        assert_eq!(store.crashes().len(), 1);
    }
    let store = open(directory.path());
    let crash = &store.crashes()[0];
    assert_eq!(crash.id, id);
    assert_eq!(crash.boot_id.as_deref(), Some("b1"));
    assert_eq!(crash.ended_boot, Some(true));
    assert_eq!(crash.record.panic.as_deref(), Some("Fatal exception"));
    assert_eq!(crash.record.files, ["dmesg-erst-1"]);
    assert_eq!(
        store.totals(),
        BTreeMap::from([((Kind::Oops, Phase::Soak), 1)])
    );
}

#[test]
fn crashes_that_are_let_go_still_count_and_do_not_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    for second in 0..120 {
        assert!(store.put(oops(f64::from(second)), None, None).unwrap());
    }
    let mut store = open(directory.path());
    assert_eq!(store.crashes().len(), KEPT);
    let total = BTreeMap::from([((Kind::Oops, Phase::Soak), 120)]);
    assert_eq!(store.totals(), total);
    for second in 0..120 {
        assert!(!store.put(oops(f64::from(second)), None, None).unwrap());
    }
    assert_eq!(open(directory.path()).totals(), total);
}

#[test]
fn resets_are_distinguished_by_their_boots() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let reset = CrashRecord {
        headline: RESET_HEADLINE.into(),
        ..CrashRecord::empty(Kind::Reset)
    };
    let old = CrashRecord {
        headline: "the boot ended without a word".into(),
        ..reset.clone()
    };
    assert!(
        store.put(old, Some("b1"), Some(true)).unwrap(),
        "by an earlier version"
    );
    assert!(!store.put(reset.clone(), Some("b1"), Some(true)).unwrap());
    assert!(store.put(reset, Some("b2"), Some(true)).unwrap());
    assert!(store.crashes()[0].id.starts_with("unknown-time-reset-"));
}

#[test]
fn a_newer_version_is_refused_and_a_broken_file_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    store.put(oops(1.0), None, None).unwrap();
    let folder = directory.path().join("crashes");
    fs::write(folder.join("broken.json"), "{\"version\":1").unwrap();
    let opened = Store::open(directory.path()).unwrap();
    assert_eq!(opened.store.crashes().len(), 1);
    let problem = opened.problems[0].to_string();
    assert!(problem.contains("broken.json"), "{problem}");
    fs::write(folder.join("later.json"), "{\"version\":2,\"x\":[]}").unwrap();
    let error = Store::open(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("later.json") && error.contains("version 2"),
        "{error}"
    );
}

#[test]
fn damaged_files_are_set_aside_before_others_take_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let crashes = directory.path().join("crashes");
    let mut store = open(directory.path());
    for second in 0..KEPT {
        let second = u32::try_from(second).unwrap();
        store.put(oops(f64::from(second)), None, None).unwrap();
    }
    let id = store.crashes()[0].id.clone();
    let (counts, record) = (crashes.join(COUNTS), crashes.join(format!("{id}.json")));
    for path in [&counts, &record] {
        fs::write(path, "damaged").unwrap();
    }
    fs::write(crashes.join(format!("{COUNTS}.damaged")), "before").unwrap();
    let opened = Store::open(directory.path()).unwrap();
    assert_eq!(opened.problems.len(), 2, "{:?}", opened.problems);
    // Looking changes nothing.
    assert_eq!(fs::read_to_string(&counts).unwrap(), "damaged");
    let mut store = opened.store;
    // The crash of the damaged record again, from its dump, and two more: one is let go.
    for second in [0, 1000, 1001] {
        store.put(oops(f64::from(second)), None, None).unwrap();
    }
    let text = |name: String| fs::read_to_string(crashes.join(name)).unwrap();
    assert_eq!(text(format!("{COUNTS}.damaged")), "before");
    assert_eq!(text(format!("{COUNTS}.damaged.1")), "damaged");
    assert_eq!(text(format!("{id}.json.damaged")), "damaged");
    let store = open(directory.path());
    assert_eq!(store.totals().values().sum::<u64>(), 102);
}
