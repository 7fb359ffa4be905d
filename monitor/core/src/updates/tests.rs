//! The databases that real package managers left, killed at each step of an upgrade of
//! lp-a, lp-b and lp-c from 1-1 to 2-1 (tests/fixtures/updates/README.md).

#![expect(clippy::disallowed_methods, reason = "tests read recorded inputs")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
};

use proptest::prelude::*;

use super::{
    history::{self, Dialect, Item, Transaction},
    remedy::{Tool, commands},
    rpm::{HalfDone, Outcome, State, judge},
    rpmdb::{self, Installed},
    sqlite::{Database, SqliteError},
};

const RPMDB: &str = "usr/lib/sysimage/rpm/rpmdb.sqlite";
const DNF4: &str = "var/lib/dnf/history.sqlite";
const DNF5: &str = "usr/lib/sysimage/libdnf5/transaction_history.sqlite";

type Files = BTreeMap<String, Vec<u8>>;

fn files(name: &str) -> Files {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/updates");
    let packed = fs::read(format!("{folder}/{name}.tar.xz")).unwrap();
    let reader = lzma_rust2::XzReader::new(packed.as_slice(), false);
    let mut archive = tar::Archive::new(reader);
    let mut files = Files::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(path, bytes);
    }
    files
}

fn open<'a>(files: &'a Files, path: &str) -> Result<Database<&'a [u8]>, SqliteError> {
    let wal = files.get(&format!("{path}-wal")).map(Vec::as_slice);
    Database::open(files[path].as_slice(), wal)
}

fn last(files: &Files) -> Option<Transaction> {
    for (path, dialect) in [(DNF4, Dialect::Dnf4), (DNF5, Dialect::Dnf5)] {
        if files.contains_key(path) {
            return history::last(&open(files, path).unwrap(), dialect).unwrap();
        }
    }
    None
}

fn outcome(files: &Files) -> Result<Outcome, SqliteError> {
    let last = last(files).filter(|last| last.end.is_none());
    let names = last.iter().flat_map(|last| &last.items);
    let names: BTreeSet<String> = names.map(|item| item.name.clone()).collect();
    let installed = rpmdb::installed(&open(files, RPMDB)?, &names)?;
    Ok(judge(last.as_ref(), &installed))
}

fn half_done(name: &str, state: State) -> HalfDone {
    HalfDone {
        name: format!("lp-{name}"),
        arch: "noarch".into(),
        evr: "2-1".into(),
        install_only: false,
        state,
    }
}

fn both(name: &str) -> HalfDone {
    let versions = vec!["1-1".into(), "2-1".into()];
    half_done(name, State::BothInstalled { versions })
}

fn old(name: &str) -> HalfDone {
    let version = "1-1".into();
    half_done(name, State::StillOld { version })
}

fn script(name: &str) -> HalfDone {
    half_done(name, State::PosttransUnknown)
}

#[test]
fn what_each_manager_left_at_each_step() {
    let unclosed = Outcome::NotClosed(["a", "b", "c"].map(script).to_vec());
    for manager in ["dnf-bookworm", "dnf-trixie", "dnf5-sid"] {
        // dnf5 dies of SIGTERM in the middle, dnf 4 when rpm has finished.
        let terminated = match manager {
            "dnf5-sid" => Outcome::HalfDone(vec![old("a"), both("b"), both("c")]),
            _ => unclosed.clone(),
        };
        for (step, expected) in [
            ("pretrans-a-9", Outcome::ChangedNothing),
            (
                "pre-b-9",
                Outcome::HalfDone(vec![old("a"), old("b"), both("c")]),
            ),
            (
                "post-b-9",
                Outcome::HalfDone(vec![old("a"), both("b"), both("c")]),
            ),
            (
                "postun-b-9",
                Outcome::HalfDone(vec![both("a"), both("b"), script("c")]),
            ),
            ("posttrans-a-9", unclosed.clone()),
            ("post-b-TERM", terminated),
            ("none-x-9", Outcome::Clean),
        ] {
            let found = outcome(&files(&format!("{manager}-{step}"))).unwrap();
            assert_eq!(found, expected, "{manager} {step}");
        }
    }
}

#[test]
fn zypper_has_no_history_of_transactions() {
    for (step, expected) in [
        ("post-b-9", Outcome::HalfDone(vec![both("b")])),
        ("none-x-9", Outcome::Clean),
    ] {
        let found = outcome(&files(&format!("zypper-bookworm-{step}"))).unwrap();
        assert_eq!(found, expected, "{step}");
    }
}

#[test]
fn the_history_names_the_command_and_its_times() {
    let unclosed = last(&files("dnf-bookworm-post-b-9")).unwrap();
    assert_eq!((unclosed.id, unclosed.end, unclosed.user), (2, None, None));
    assert!(
        unclosed
            .command
            .unwrap()
            .ends_with("--disablerepo=r1 upgrade")
    );
    assert_eq!(unclosed.items.len(), 6);
    let closed = last(&files("dnf5-sid-none-x-9")).unwrap();
    assert!(closed.end.is_some_and(|end| end >= closed.begin));
}

#[test]
fn without_its_wal_a_history_shows_the_transaction_before() {
    let mut files = files("dnf-bookworm-post-b-9");
    files.remove(&format!("{DNF4}-wal"));
    // So a reader that ignores the WAL is wrong: this one is never given a part of the files.
    assert_ne!(
        last(&files).map(|last| (last.id, last.end)),
        Some((2, None))
    );
}

fn kernel(version: &str, transaction: u32, install_only: bool) -> Installed {
    Installed {
        name: "kernel-core".into(),
        arch: "x86_64".into(),
        epoch: 0,
        version: version.into(),
        release: "1".into(),
        transaction: Some(transaction),
        install_only,
        posttrans: true,
    }
}

#[test]
fn versions_that_are_meant_to_be_there_twice_are_not_half_done() {
    assert_eq!(
        judge(None, &[kernel("1", 10, true), kernel("2", 20, true)]),
        Outcome::Clean
    );
    let by_mistake = [kernel("1", 10, false), kernel("2", 20, false)];
    assert!(matches!(judge(None, &by_mistake), Outcome::HalfDone(_)));
    // 32 and 64 bits of one library.
    let mut other = kernel("1", 20, false);
    other.arch = "i686".into();
    assert_eq!(
        judge(None, &[kernel("1", 10, false), other]),
        Outcome::Clean
    );
}

/// An update of the kernel installs the new one and, at the limit of `installonly_limit`, removes
/// the oldest. Each is judged by itself, and no command names all kernels.
#[test]
fn of_a_kernel_each_version_is_judged_by_itself() {
    let item = |version: &str, comes| Item {
        name: "kernel-core".into(),
        arch: "x86_64".into(),
        evr: format!("{version}-1"),
        comes,
    };
    let transaction = Transaction {
        id: 1,
        begin: 30,
        end: None,
        command: None,
        user: None,
        items: vec![item("3", true), item("1", false)],
    };
    let judged = |versions: &[u32]| {
        let installed: Vec<Installed> = versions
            .iter()
            .map(|version| kernel(&version.to_string(), version * 10, true))
            .collect();
        match judge(Some(&transaction), &installed) {
            Outcome::HalfDone(found) | Outcome::NotClosed(found) => {
                let texts: Vec<String> = found.iter().map(HalfDone::text).collect();
                (
                    texts.join("; "),
                    commands(Tool::Dnf, &found).join("; "),
                    commands(Tool::Dnf5, &found).join("; "),
                )
            }
            outcome => panic!("{outcome:?}"),
        }
    };
    let posttrans = "installed, but its %posttrans script may not have run: 3-1";
    let reinstall = "reinstall kernel-core-3-1.x86_64";
    let remove = "kernel-core-1-1.x86_64";
    for (installed, expected, dnf, dnf5) in [
        // The new one is unpacked, the oldest is not yet gone.
        (
            [1, 2, 3].as_slice(),
            format!("not removed: 1-1; {posttrans}"),
            format!("dnf {reinstall}; dnf remove --noautoremove {remove}"),
            format!("dnf5 {reinstall}; dnf5 remove --no-autoremove {remove}"),
        ),
        (
            &[2, 3],
            posttrans.to_owned(),
            format!("dnf {reinstall}"),
            format!("dnf5 {reinstall}"),
        ),
        (
            &[2],
            "not installed: 3-1".to_owned(),
            "dnf install kernel-core-3-1.x86_64".to_owned(),
            "dnf5 install kernel-core-3-1.x86_64".to_owned(),
        ),
    ] {
        assert_eq!(judged(installed), (expected, dnf, dnf5), "{installed:?}");
    }
    let untouched = [kernel("1", 10, true), kernel("2", 20, true)];
    assert_eq!(
        judge(Some(&transaction), &untouched),
        Outcome::ChangedNothing
    );
}

/// Of a package that is there for two architectures only the one that is half done is named.
#[test]
fn commands_name_the_architecture() {
    let foreign = |state| HalfDone {
        arch: "i686".into(),
        evr: "1:2-1".into(),
        ..half_done("a", state)
    };
    let version = "1-1".to_owned();
    let versions = vec!["1:1-1".to_owned(), "1:2-1".to_owned()];
    for (tool, state, expected) in [
        (
            Tool::Dnf,
            State::NotRemoved,
            "dnf remove --noautoremove lp-a-1:2-1.i686",
        ),
        (
            Tool::Dnf,
            State::StillOld { version },
            "dnf upgrade lp-a.i686",
        ),
        (
            Tool::Zypper,
            State::PosttransUnknown,
            "zypper install --force lp-a.i686; zypper update",
        ),
        (
            Tool::Rpm,
            State::BothInstalled { versions },
            "rpm --upgrade --replacepkgs lp-a-2-1.i686.rpm",
        ),
    ] {
        assert_eq!(commands(tool, &[foreign(state)]).join("; "), expected);
    }
    let kernel = HalfDone {
        install_only: true,
        ..foreign(State::PosttransUnknown)
    };
    assert_eq!(
        commands(Tool::Zypper, &[kernel]),
        [
            "zypper install --force lp-a.i686=1:2-1".to_owned(),
            "zypper update".to_owned()
        ]
    );
    // A name that is no name is not printed.
    let hostile = HalfDone {
        evr: "2-1;reboot".into(),
        ..foreign(State::NotRemoved)
    };
    assert_eq!(commands(Tool::Dnf, &[hostile]), Vec::<String>::new());
}

#[test]
fn other_databases_are_refused_by_name() {
    let text = b"#!/bin/sh\n".repeat(100);
    assert_eq!(
        Database::open(text.as_slice(), None).err(),
        Some(SqliteError::NotSqlite)
    );
    let files = files("dnf-bookworm-none-x-9");
    let history = open(&files, DNF4).unwrap();
    let error = rpmdb::installed(&history, &BTreeSet::new()).unwrap_err();
    assert_eq!(error, SqliteError::NoTable("Name".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A damaged file is an error or another answer, never a panic or an endless loop.
    #[test]
    fn damage_is_survived(
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
    ) {
        let mut files = files("dnf-bookworm-postun-b-9");
        for bytes in files.values_mut().filter(|bytes| !bytes.is_empty()) {
            for (index, value) in &at {
                let at = index.index(bytes.len());
                bytes[at] = *value;
            }
            if shorten {
                bytes.truncate(cut.index(bytes.len()));
            }
        }
        let _ = open(&files, DNF4).and_then(|database| history::last(&database, Dialect::Dnf4));
        let _ = open(&files, RPMDB)
            .and_then(|database| rpmdb::installed(&database, &BTreeSet::new()));
    }

    /// A power cut leaves any beginning of a WAL: what it says is a state that was committed.
    #[test]
    fn a_torn_wal_ends_at_its_last_commit(cut in any::<prop::sample::Index>()) {
        let mut files = files("dnf-bookworm-postun-b-9");
        let wal = files.get_mut(&format!("{RPMDB}-wal")).unwrap();
        wal.truncate(cut.index(wal.len()));
        let installed = open(&files, RPMDB)
            .and_then(|database| rpmdb::installed(&database, &BTreeSet::from(["lp-shell".into()])));
        if let Ok(installed) = installed {
            prop_assert!(installed.len() <= 7);
        }
    }
}
