//! Was the crash in the middle of an update? The first start after a crash finds out, while the
//! histories still have it.

use std::path::Path;

use livepatch_core::{
    crash::{HostCrash, Precision},
    updates::run::{self, Crash, UpdateRun},
};

use crate::{
    crash::store::Store,
    exporter::log_lines,
    host::packages::{Packages, runs_since},
};

/// The latest crashes that are looked at.
const CRASHES: usize = 16;

/// Stores with each crash that ended a boot the run of a package manager that was under way.
/// `began` is when the running boot began, in seconds since 1970. Returns what could not be read
/// or stored.
pub(super) fn note(store: &mut Store, rootfs: &Path, began: Option<f64>) -> Vec<String> {
    let last_end = store.crashes().iter().rev().find(ended_boot);
    let last_end = last_end.map(|crash| crash.id.clone());
    let moments: Vec<(String, Crash)> = store
        .crashes()
        .iter()
        .rev()
        .take(CRASHES)
        .filter(|crash| ended_boot(crash) && crash.update.is_none())
        .filter_map(|crash| {
            let is_last = last_end.as_ref() == Some(&crash.id);
            let moment = moment(crash, began.filter(|_| is_last))?;
            Some((crash.id.clone(), moment))
        })
        .collect();
    let Some(first) = moments
        .iter()
        .map(|(_, crash)| crash.boot)
        .min_by(f64::total_cmp)
    else {
        return Vec::new();
    };
    let (half_done, _) = Packages::new(rootfs).read();
    let (runs, mut problems) = runs_since(rootfs, before(first), &half_done);
    for (id, moment) in moments {
        let Some(run) = run::under_way(&runs, moment) else {
            continue;
        };
        log_lines::update_under_way(&id, run);
        let run: UpdateRun = run.clone();
        let stored = store.correct(&id, |crash| crash.update = Some(run));
        problems.extend(stored.err().map(|error| error.to_string()));
    }
    problems
}

fn ended_boot(crash: &&HostCrash) -> bool {
    crash.ended_boot == Some(true)
}

/// When the boot of a crash began and ended; `None` where its dates do not say that.
fn moment(crash: &HostCrash, next_boot: Option<f64>) -> Option<Crash> {
    let when = &crash.record.when;
    let at = when.unix_seconds.filter(|_| when.is_utc())?;
    let boot = at - when.uptime_seconds?;
    // Of a boot that ended without a word only the last entry of its journal is known.
    let is_lower_bound = matches!(when.precision, Precision::After);
    let latest = next_boot.filter(|_| is_lower_bound).unwrap_or(at);
    Some(Crash { boot, at, latest })
}

/// The whole second a minute before, by which clocks may differ.
fn before(seconds: f64) -> i64 {
    let earlier = (seconds - 60.0).max(0.0);
    i64::try_from(std::time::Duration::from_secs_f64(earlier).as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use livepatch_core::crash::{CrashRecord, Kind, When};

    use super::*;

    /// A host of dnf on which an upgrade was killed, and when that began.
    fn host() -> (tempfile::TempDir, f64) {
        let root = tempfile::tempdir().unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/updates");
        let packed = fs::read(format!("{folder}/dnf-bookworm-post-b-9.tar.xz")).unwrap();
        let reader = lzma_rust2::XzReader::new(packed.as_slice(), false);
        tar::Archive::new(reader).unpack(root.path()).unwrap();
        let (runs, _) = runs_since(root.path(), 0, &[]);
        let begin = runs.first().unwrap().begin_unix_seconds;
        (root, f64::from(u32::try_from(begin).unwrap()))
    }

    fn crash(at: f64, uptime: f64, precision: Precision) -> CrashRecord {
        CrashRecord {
            when: When {
                uptime_seconds: Some(uptime),
                unix_seconds: Some(at),
                precision,
            },
            ..CrashRecord::empty(Kind::Panic)
        }
    }

    /// What is stored with a crash.
    fn noted(record: CrashRecord, ended_boot: Option<bool>, began: f64) -> Option<UpdateRun> {
        let (root, _) = host();
        let state = tempfile::tempdir().unwrap();
        let mut store = Store::open(state.path()).unwrap().store;
        store.put(record, Some("boot"), ended_boot).unwrap();
        assert_eq!(
            note(&mut store, root.path(), Some(began)),
            Vec::<String>::new()
        );
        // On the disk, not only in memory.
        let store = Store::open(state.path()).unwrap().store;
        store.crashes().first().unwrap().update.clone()
    }

    #[test]
    fn a_crash_in_the_middle_of_an_update_names_it() {
        let (_, begin) = host();
        let run = noted(
            crash(begin + 2.0, 500.0, Precision::Dump),
            Some(true),
            begin + 60.0,
        );
        let run = run.unwrap();
        assert_eq!((run.manager.as_str(), run.end_unix_seconds), ("dnf", None));
        assert!(run.command.unwrap().ends_with("upgrade"));
        assert_eq!(run.packages, ["lp-a.noarch", "lp-b.noarch", "lp-c.noarch"]);
    }

    #[test]
    fn a_boot_that_ended_without_a_word_may_have_ended_later() {
        let (_, begin) = host();
        let last_word = crash(begin - 20.0, 500.0, Precision::After);
        assert!(noted(last_word, Some(true), begin + 60.0).is_some());
    }

    #[test]
    fn other_crashes_name_none() {
        let (_, begin) = host();
        let ended = Some(true);
        // Before the update; in a later boot; one that the machine survived; one without a date.
        let before = crash(begin - 20.0, 500.0, Precision::Dump);
        assert_eq!(noted(before, ended, begin + 60.0), None);
        let later = crash(begin + 1000.0, 500.0, Precision::Dump);
        assert_eq!(noted(later, ended, begin + 2000.0), None);
        let survived = crash(begin + 2.0, 500.0, Precision::Dump);
        assert_eq!(noted(survived, Some(false), begin + 60.0), None);
        let mut undated = crash(begin + 2.0, 500.0, Precision::Unknown);
        undated.when.unix_seconds = None;
        assert_eq!(noted(undated, ended, begin + 60.0), None);
    }
}
