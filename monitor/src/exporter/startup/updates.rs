//! Was the crash in the middle of an update? The first start after a crash finds out, while the
//! histories still have it.

use std::{path::Path, time::Duration};

use livepatch_core::{
    boots::Boot,
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
/// Two readings of clocks for one moment may differ by this.
const SLACK_SECONDS: f64 = 60.0;

/// Stores with each crash that ended a boot the run of a package manager that had not ended then.
/// `boots` are the earlier boots of the journal, oldest first. Returns what could not be read or
/// stored.
pub(super) fn note(store: &mut Store, rootfs: &Path, procfs: &Path, boots: &[Boot]) -> Vec<String> {
    let moments: Vec<(String, Crash)> = store
        .crashes()
        .iter()
        .rev()
        .take(CRASHES)
        .filter(|crash| crash.ended_boot == Some(true) && crash.update.is_none())
        .filter_map(|crash| Some((crash.id.clone(), moment(crash, boots)?)))
        .collect();
    let Some(first) = moments
        .iter()
        .map(|(_, crash)| crash.earliest)
        .min_by(f64::total_cmp)
    else {
        return Vec::new();
    };
    let (half_done, _) = Packages::new(rootfs, procfs).read();
    let (runs, mut problems) = runs_since(rootfs, whole(first), &half_done);
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

/// When runs of the boot that a crash ended may have begun; `None` where its dates do not say
/// that.
fn moment(crash: &HostCrash, boots: &[Boot]) -> Option<Crash> {
    let when = &crash.record.when;
    let at = when.unix_seconds.filter(|_| when.is_utc())?;
    let began = at - when.uptime_seconds?;
    let boot_id = crash.boot_id.as_ref();
    let of_crash = |boot: &Boot| boot_id.is_some() && boot.history.boot_id.as_ref() == boot_id;
    let index = boots.iter().position(of_crash);
    let latest = match when.precision {
        // Of a boot that ended without a word only the last entry of its journal is known, and
        // that it had ended when the next one began.
        Precision::After => {
            let next = boots.get(index?)?.next_began?;
            (next >= at).then_some(next)?
        }
        _ => at,
    };
    let before = index.and_then(|index| boots.get(index.checked_sub(1)?));
    let with_slack = began - SLACK_SECONDS;
    let earliest = match before.map(|before| &before.history) {
        None => with_slack,
        // The slack must not reach into the boot before.
        Some(before) if before.stopped => before
            .last_unix_seconds
            .map_or(began, |last| last.max(with_slack).min(began)),
        Some(_) => began,
    };
    Some(Crash {
        // Histories have whole seconds.
        earliest: earliest.floor(),
        latest,
    })
}

/// A number of whole seconds; 0 before 1970.
fn whole(seconds: f64) -> i64 {
    let span = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    i64::try_from(span.as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use livepatch_core::{
        crash::{CrashRecord, Kind, When},
        journal::history::History,
    };

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

    fn boot(id: &str, next_began: f64) -> Boot {
        Boot {
            history: History {
                boot_id: Some(id.to_owned()),
                ..History::default()
            },
            entries: Vec::new(),
            next_began: Some(next_began),
        }
    }

    /// What is stored with a crash of the boot "boot".
    fn noted(record: CrashRecord, ended_boot: Option<bool>, boots: &[Boot]) -> Option<UpdateRun> {
        let (root, _) = host();
        let state = tempfile::tempdir().unwrap();
        let mut store = Store::open(state.path()).unwrap().store;
        store.put(record, Some("boot"), ended_boot).unwrap();
        assert_eq!(
            note(&mut store, root.path(), Path::new("/proc"), boots),
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
            &[boot("boot", begin + 60.0)],
        );
        let run = run.unwrap();
        assert_eq!((run.manager.as_str(), run.end_unix_seconds), ("dnf", None));
        assert!(run.command.unwrap().ends_with("upgrade"));
        assert_eq!(run.packages, ["lp-a.noarch", "lp-b.noarch", "lp-c.noarch"]);
    }

    #[test]
    fn a_boot_that_ended_without_a_word_ended_before_the_next_one() {
        let (_, begin) = host();
        let last_word = || crash(begin - 20.0, 500.0, Precision::After);
        let next = |began| boot("boot", begin + began);
        let found = |boots: &[Boot]| noted(last_word(), Some(true), boots).is_some();
        assert!(found(&[next(60.0)]));
        // The upgrade began in the boot after the crash, or in a later one.
        assert!(!found(&[next(-5.0)]));
        assert!(!found(&[next(-5.0), boot("later", begin + 60.0)]));
        // Nothing says when the next boot began.
        assert!(!found(&[boot("other", begin + 60.0)]));
    }

    #[test]
    fn a_run_of_the_boot_before_is_not_this_one_s() {
        let (_, begin) = host();
        // The boot began 20 s after the upgrade.
        let found = |boots: &[Boot]| {
            let record = crash(begin + 30.0, 10.0, Precision::Dump);
            noted(record, Some(true), boots).is_some()
        };
        let this = || boot("boot", begin + 60.0);
        // Clocks differ by less.
        assert!(found(&[this()]));
        let mut before = boot("before", begin + 20.0);
        assert!(!found(&[before.clone(), this()]));
        before.history.stopped = true;
        before.history.last_unix_seconds = Some(begin + 5.0);
        assert!(!found(&[before.clone(), this()]));
        before.history.last_unix_seconds = Some(begin - 600.0);
        assert!(found(&[before, this()]));
    }

    #[test]
    fn other_crashes_name_none() {
        let (_, begin) = host();
        let ended = Some(true);
        let boots = |next| [boot("boot", begin + next)];
        // Before the update; in a later boot; one that the machine survived; one without a date.
        let before = crash(begin - 20.0, 500.0, Precision::Dump);
        assert_eq!(noted(before, ended, &boots(60.0)), None);
        let later = crash(begin + 1000.0, 500.0, Precision::Dump);
        assert_eq!(noted(later, ended, &boots(2000.0)), None);
        let survived = crash(begin + 2.0, 500.0, Precision::Dump);
        assert_eq!(noted(survived, Some(false), &boots(60.0)), None);
        let mut undated = crash(begin + 2.0, 500.0, Precision::Unknown);
        undated.when.unix_seconds = None;
        assert_eq!(noted(undated, ended, &boots(60.0)), None);
    }
}
