use std::{path::Path, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::exporter::journal::saved;
use livepatch_core::{
    crash::Signal,
    journal::history::History,
    journal::{
        entry::{LoadedPatch, Saved},
        testing::{any_entry, any_saved, recorded},
    },
    transition::{BootTime, Direction, Outcome},
};

mod disk;

use self::disk::Disk;

const BOOT: &str = "11111111-2222-3333-4444-555555555555";

fn load(second: u64) -> TimedEntry {
    let patch = format!("fix_{second}");
    recorded(second, Entry::Load { patch })
}

fn open(directory: &Path) -> Opened {
    JournalFile::open(directory, BOOT).unwrap()
}

#[test]
fn what_is_recorded_is_there_after_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(directory.path());
    assert_eq!((opened.entries.len(), opened.problems.len()), (0, 0));
    for second in 1..=3 {
        opened.journal_file.append(&load(second)).unwrap();
    }
    drop(opened);
    let opened = open(directory.path());
    assert_eq!(opened.entries, [load(1), load(2), load(3)]);
    assert_eq!(opened.problems, Vec::<String>::new());
}

#[test]
fn a_torn_tail_is_cut_and_the_file_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(directory.path());
    opened.journal_file.append(&load(1)).unwrap();
    let whole = opened.journal_file.length;
    opened.journal_file.append(&load(2)).unwrap();
    let path = opened.journal_file.path.clone();
    let end = opened.journal_file.length;
    drop(opened);
    let bytes = fs::read(&path).unwrap();
    for cut in whole..end {
        fs::write(&path, &bytes[..usize::try_from(cut).unwrap()]).unwrap();
        let mut opened = open(directory.path());
        assert_eq!(opened.entries, [load(1)], "cut at {cut}");
        assert_eq!(opened.problems.len(), usize::from(cut != whole));
        opened.journal_file.append(&load(3)).unwrap();
        drop(opened);
        let opened = open(directory.path());
        assert_eq!(opened.entries, [load(1), load(3)], "cut at {cut}");
        assert_eq!(opened.problems, Vec::<String>::new(), "cut at {cut}");
    }
}

#[test]
fn two_monitors_do_not_write_into_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let second = JournalFile::open(directory.path(), BOOT);
    assert!(matches!(second, Err(JournalError::Locked { .. })));
    drop(first);
    open(directory.path());
}

#[test]
fn a_copy_of_the_descriptor_does_not_hold_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    // As a process has it that another thread is about to start.
    let copy = first.journal_file._lock.0.try_clone().unwrap();
    drop(first);
    open(directory.path());
    drop(copy);
}

#[test]
fn a_newer_version_is_left_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = open(directory.path()).journal_file.path;
    let mut newer = frame::HEADER.to_vec();
    newer[8] = 7;
    newer.extend(b"what only the future knows");
    fs::write(&path, &newer).unwrap();
    let refused = JournalFile::open(directory.path(), BOOT).unwrap_err();
    assert!(refused.to_string().contains("version 7"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), newer);
}

/// What a reader sees of this boot.
fn on_disk(directory: &Path) -> Vec<TimedEntry> {
    read_only(directory, BOOT).unwrap().entries
}

#[test]
fn a_file_in_the_place_of_the_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    fs::write(&path, "").unwrap();
    let error = JournalFile::open(&path, BOOT).unwrap_err();
    assert!(error.to_string().contains("state/recorder"), "{error}");
}

/// A jump of the clock changes neither which entries are kept nor their order.
#[test]
fn the_order_is_that_of_the_entries() {
    let directory = tempfile::tempdir().unwrap();
    let mut entries = Vec::new();
    let mut opened = open(directory.path());
    for (second, unix) in [(5, 1.8e9), (3, 9.0), (9, -4.0), (4, 4e9)] {
        let mut entry = load(second);
        entry.unix_seconds = Some(unix);
        opened.journal_file.append(&entry).unwrap();
        entries.push(entry);
    }
    drop(opened);
    assert_eq!(open(directory.path()).entries, entries);
}

#[test]
fn a_file_stays_small_and_keeps_what_matters() {
    // In memory: 30,000 syncs of a real disk take minutes.
    let Some(disk) = Disk::new("8m") else { return };
    let mut opened = open(disk.path());
    let release = "6.1.0".to_owned();
    let boot_id = BOOT.to_owned();
    let boot = recorded(1, Entry::Boot { boot_id, release });
    let running = recorded(
        2,
        Entry::Transition {
            patch: Some("fix".into()),
            direction: Direction::Patch,
            start: Some(BootTime::from_nanos(2)),
        },
    );
    opened.journal_file.append(&boot).unwrap();
    opened.journal_file.append(&running).unwrap();
    for second in 3..30_000 {
        let headline = "WARNING: ".repeat(10);
        let signal = Signal::Warning;
        let entry = Entry::Signal { signal, headline };
        opened
            .journal_file
            .append(&recorded(second, entry))
            .unwrap();
        assert!(opened.journal_file.length <= MAX_FILE);
    }
    drop(opened);
    let opened = open(disk.path());
    assert_eq!(opened.entries[..2], [boot, running]);
    assert_eq!(
        opened.entries.last().unwrap().time.as_duration().as_secs(),
        29_999
    );
}

/// A patch comes into force, then another one comes and goes until the file is rewritten: it is
/// still known since when the first is in force.
#[test]
fn a_file_written_anew_knows_since_when_patches_are_in_force() {
    let loaded = |names: &[&str]| Entry::Patches {
        patches: names
            .iter()
            .map(|name| LoadedPatch {
                name: (*name).to_owned(),
                enabled: Some(true),
                srcversion: None,
                functions: Vec::new(),
            })
            .collect(),
    };
    let ended = |patch: &str, direction| Entry::Ended {
        patch: Some(patch.to_owned()),
        direction: Some(direction),
        outcome: Some(Outcome::Completed),
        took_seconds: Some(2.0),
    };
    let in_force = |entries: &[TimedEntry]| {
        let mut history = History::default();
        for recorded in entries {
            history.take(recorded, Duration::from_secs(60));
        }
        (history.life.in_force("first").cloned(), history.life)
    };
    let Some(disk) = Disk::new("8m") else { return };
    let mut opened = open(disk.path());
    let mut all = Vec::new();
    let mut second = 1;
    let mut anew = 0;
    let mut append = |all: &mut Vec<TimedEntry>, entry: Entry| {
        let recorded = recorded(second, entry);
        second += 1;
        let before = opened.journal_file.length;
        opened.journal_file.append(&recorded).unwrap();
        anew += u32::from(opened.journal_file.length < before);
        all.push(recorded);
        anew
    };
    append(&mut all, ended("first", Direction::Patch));
    append(&mut all, loaded(&["first"]));
    loop {
        append(&mut all, ended("second", Direction::Patch));
        append(&mut all, loaded(&["first", "second"]));
        append(&mut all, ended("second", Direction::Unpatch));
        if append(&mut all, loaded(&["first"])) == 2 {
            break;
        }
    }
    drop(opened);
    let entries = open(disk.path()).entries;
    assert!(entries.len() < all.len() / 2, "{} entries", entries.len());
    let known = in_force(&entries);
    assert_eq!(known, in_force(&all));
    assert_eq!(known.0.unwrap().took, Some(Duration::from_secs(2)));
}

#[test]
fn earlier_boots_come_in_order_and_the_oldest_go() {
    let directory = tempfile::tempdir().unwrap();
    for boot in 0..KEPT_BOOTS + 3 {
        let mut opened = JournalFile::open(directory.path(), &format!("boot-{boot:02}")).unwrap();
        opened.journal_file.append(&load(boot as u64)).unwrap();
        // Files of one moment would have no order.
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 + boot as u64);
        opened.journal_file.file.set_modified(time).unwrap();
    }
    let opened = open(directory.path());
    opened.journal_file.prune().unwrap();
    let (boots, problems) = opened.journal_file.earlier_boots().unwrap();
    assert!(problems.is_empty());
    let ids: Vec<_> = boots.iter().map(|boot| boot.boot_id.as_str()).collect();
    let expected: Vec<_> = (3..KEPT_BOOTS + 3)
        .map(|boot| format!("boot-{boot:02}"))
        .collect();
    assert_eq!(ids, expected);
    assert_eq!(boots[0].entries, [load(3)]);
}

#[test]
fn what_is_not_a_journal_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("recorder/{BOOT}.rec"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for (number, name) in [(1, "damaged"), (2, "damaged.1")] {
        let text = format!("#!/bin/sh {number}\n");
        fs::write(&path, &text).unwrap();
        let mut opened = open(directory.path());
        assert!(opened.problems[0].contains(name), "{:?}", opened.problems);
        opened.journal_file.append(&load(number)).unwrap();
        drop(opened);
        assert_eq!(open(directory.path()).entries, [load(number)]);
        let aside = path.with_extension(format!("rec.{name}"));
        assert_eq!(fs::read_to_string(aside).unwrap(), text);
    }
}

/// A journal of a later program is that program's: nothing is touched.
#[test]
fn a_newer_journal_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(directory.path());
    opened.journal_file.append(&load(1)).unwrap();
    let path = opened.journal_file.path.clone();
    drop(opened);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 3;
    fs::write(&path, &bytes).unwrap();
    let error = JournalFile::open(directory.path(), BOOT).unwrap_err();
    assert!(error.to_string().contains("version 3"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn the_state_outlives_a_file_written_anew() {
    let Some(disk) = Disk::new("8m") else { return };
    let mut opened = open(disk.path());
    let saved = |second| Saved {
        start_unix_seconds: Some(f64::from(second)),
        ..Saved::default()
    };
    let mut anew = 0;
    for second in 0..20_000_u32 {
        let entry = Entry::State(saved(second));
        let before = opened.journal_file.length;
        opened
            .journal_file
            .append(&recorded(second.into(), entry))
            .unwrap();
        anew += u32::from(opened.journal_file.length < before);
    }
    assert!(anew > 0);
    drop(opened);
    let read = saved::read(disk.path(), BOOT).unwrap();
    assert_eq!(read, Some(saved(19_999)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Who reads without the lock sees the last state that is whole, wherever the file ends
    /// at that moment; and so does the next monitor, which then continues.
    #[test]
    fn the_state_is_the_last_one_that_is_whole(
        entries in vec(prop_oneof![any_entry(), any_saved().prop_map(Entry::State)], 1..6),
        cuts in vec(any::<prop::sample::Index>(), 8),
    ) {
        let mut bytes = frame::HEADER.to_vec();
        let mut ends = Vec::new();
        for (entry, second) in entries.iter().zip(1..) {
            bytes.extend(frame::encode(&recorded(second, entry.clone())).unwrap());
            ends.push(bytes.len());
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(format!("recorder/{BOOT}.rec"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for cut in cuts {
            let cut = cut.index(bytes.len() + 1);
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let expected = entries[..whole].iter().rev().find_map(|entry| match entry {
                Entry::State(saved) => Some(saved.clone()),
                _ => None,
            });
            prop_assert_eq!(saved::read(directory.path(), BOOT).unwrap(), expected.clone());
            prop_assert_eq!(&fs::read(&path).unwrap(), &bytes[..cut]);
            let mut opened = open(directory.path());
            opened.journal_file.append(&load(99)).unwrap();
            drop(opened);
            prop_assert_eq!(saved::read(directory.path(), BOOT).unwrap(), expected);
        }
    }
}
