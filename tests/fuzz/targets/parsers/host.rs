//! What package managers leave behind.

use std::collections::{BTreeMap, BTreeSet};

use livepatch_core::updates::{
    history::{self, Dialect},
    logs::{self, TimeZone},
    rpmdb, run,
    sqlite::Database,
};
use livepatch_monitor::host::packages::{not_done, states_of};

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [dpkg, yum, sqlite, run_logs]);
}

/// A second reading of the same says the same; a shorter line is not another package.
fn dpkg(bytes: &[u8]) {
    let (mut once, mut twice) = (BTreeMap::new(), BTreeMap::new());
    states_of(bytes, &mut once).unwrap();
    let doubled = [bytes, b"\n\n", bytes].concat();
    states_of(doubled.as_slice(), &mut twice).unwrap();
    assert_eq!(once, twice);
    for (name, status) in &once {
        assert!(!name.contains('\n') && !status.state.contains(char::is_whitespace));
    }
}

/// What is done is not left, and all is left where nothing is done.
fn yum(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (planned, done) = text.split_once('\0').unwrap_or((&text, ""));
    assert!(not_done(planned, planned).is_empty());
    assert!(not_done(planned, done).len() <= not_done(planned, "").len());
}

/// A database and its WAL: the first two bytes say where the one ends. A recorded database of
/// rpm or dnf is the beginning of the corpus.
fn sqlite(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length)) << 4;
    let (main, wal) = rest.split_at(length.min(rest.len()));
    for (main, wal) in [(main, Some(wal)), (rest, None)] {
        let Ok(database) = Database::open(main, wal) else {
            continue;
        };
        for dialect in [Dialect::Dnf4, Dialect::Dnf5] {
            let _ = history::last(&database, dialect);
            let since = history::since(&database, dialect, 0);
            assert!(since.map_or(0, |transactions| transactions.len()) <= 64);
        }
        let _ = rpmdb::has_packages(&database);
        let _ = rpmdb::installed(&database, &BTreeSet::from(["lp-a".to_owned()]));
    }
}

/// Nothing that a log holds is without a bound.
fn run_logs(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let zone = logs::zone(bytes).unwrap_or(TimeZone::UTC);
    for read in [logs::apt, logs::dpkg, logs::zypper] {
        for run in read(&text, &zone) {
            assert!(run.packages.len() <= run::MAX_PACKAGES);
        }
        assert_eq!(read(&text, &TimeZone::UTC), read(&text, &TimeZone::UTC));
    }
}
