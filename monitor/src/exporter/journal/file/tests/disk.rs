//! Disks that are full or read-only.

use std::process::Command;

use livepatch_monitor_test_support::left_out;

use super::*;

/// A small file system, unmounted when dropped.
pub(super) struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` if this process may not mount one.
    pub(super) fn new(size: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            left_out(
                "a disk that is full or read-only",
                "it mounts one, which takes root",
            );
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let options = format!("size={size}");
        run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path]);
        Some(Self(directory))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} failed: {error}");
}

#[test]
fn a_full_disk_costs_entries_and_nothing_else() {
    let Some(disk) = Disk::new("256k") else {
        return;
    };
    let mut opened = open(disk.path());
    opened.journal_file.append(&load(1)).unwrap();
    // Uses up everything that the journal has not reserved.
    let full = (0..4096).map(|_| [7_u8; 512]).collect::<Vec<_>>().concat();
    fs::write(disk.path().join("ballast"), full).unwrap_err();
    let mut taken = 1;
    let error = loop {
        match opened.journal_file.append(&load(taken + 1)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "the disk is not full");
    };
    assert!(
        taken > 100,
        "the reserve took {taken} entries only; then: {error}"
    );
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert!(opened.journal_file.is_behind() && opened.journal_file.catch_up().is_err());
    // It was cut off with the torn frame.
    assert_eq!(opened.journal_file.reserved, 0);
    let lost = load(taken + 1);
    assert_eq!(on_disk(disk.path()).last(), Some(&load(taken)));
    fs::remove_file(disk.path().join("ballast")).unwrap();
    opened.journal_file.append(&load(taken + 2)).unwrap();
    assert!(!opened.journal_file.is_behind());
    assert!(on_disk(disk.path()).ends_with(&[lost, load(taken + 2)]));
    drop(opened);
    assert_eq!(open(disk.path()).problems, Vec::<String>::new());
}

/// A file that is due to be rewritten has a reserve, too.
#[test]
fn a_full_disk_leaves_the_longest_file_its_reserve() {
    let Some(disk) = Disk::new("4m") else {
        return;
    };
    let signal = |second| {
        let signal = Signal::Warning;
        let headline = "WARNING: ".repeat(10);
        recorded(second, Entry::Signal { signal, headline })
    };
    let mut opened = open(disk.path());
    let journal = &mut opened.journal_file;
    let longest = frame::encode(&signal(u64::MAX >> 34)).unwrap().len() as u64;
    let mut last = 0;
    while journal.length + longest <= MAX_FILE {
        last += 1;
        journal.append(&signal(last)).unwrap();
    }
    let full = vec![7_u8; 4 << 20];
    fs::write(disk.path().join("ballast"), full).unwrap_err();
    let first_beyond = last + 2;
    let error = loop {
        match journal.append(&signal(last + 1)) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        assert!(journal.length <= MAX_FILE + RESERVE);
    };
    assert!(error.to_string().contains("No space left"), "{error}");
    let beyond = journal.length.saturating_sub(MAX_FILE);
    assert!(
        beyond > RESERVE / 4 && last >= first_beyond,
        "{beyond} bytes of the reserve were used"
    );
    assert_eq!(on_disk(disk.path()).last(), Some(&signal(last)));
    fs::remove_file(disk.path().join("ballast")).unwrap();
    journal.append(&signal(last + 2)).unwrap();
    assert!(!journal.is_behind() && journal.length < MAX_FILE);
    assert!(on_disk(disk.path()).ends_with(&[signal(last), signal(last + 1), signal(last + 2)]));
}

/// Then the new file has the name, whether or not the disk knows it already.
#[test]
fn a_directory_that_cannot_be_synced_costs_no_entry() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(directory.path());
    let journal = &mut opened.journal_file;
    journal.append(&load(1)).unwrap();
    let nowhere = directory.path().join("nowhere");
    let recorder = std::mem::replace(&mut journal.directory, nowhere);
    journal.behind = true;
    for second in 2..=3 {
        let error = journal.append(&load(second)).unwrap_err();
        assert!(error.to_string().contains("cannot sync"), "{error}");
        assert!(journal.is_behind());
        let written: Vec<TimedEntry> = (1..=second).map(load).collect();
        assert_eq!(on_disk(directory.path()), written);
    }
    journal.directory = recorder;
    journal.append(&load(4)).unwrap();
    assert!(!journal.is_behind());
    assert_eq!(on_disk(directory.path()), [1, 2, 3, 4].map(load));
}

/// What is recorded while the disk is full is written when it is not, also without a further
/// entry.
#[test]
fn a_disk_that_is_full_at_the_start_is_written_later() {
    let Some(disk) = Disk::new("256k") else {
        return;
    };
    fs::write(disk.path().join("ballast"), vec![7_u8; 512 << 10]).unwrap_err();
    let mut opened = open(disk.path());
    let [problem] = opened.problems.as_slice() else {
        panic!("{:?}", opened.problems);
    };
    assert!(problem.contains("No space left"), "{problem}");
    opened.journal_file.append(&load(1)).unwrap_err();
    assert_eq!(on_disk(disk.path()), []);
    fs::remove_file(disk.path().join("ballast")).unwrap();
    opened.journal_file.catch_up().unwrap();
    opened.journal_file.append(&load(2)).unwrap();
    assert_eq!(on_disk(disk.path()), [load(1), load(2)]);
}

#[test]
fn a_read_only_directory_is_named() {
    let Some(disk) = Disk::new("256k") else {
        return;
    };
    let mut opened = open(disk.path());
    opened.journal_file.append(&load(1)).unwrap();
    drop(opened);
    let path = disk.path().to_str().unwrap();
    run(&["mount", "-o", "remount,ro", path]);
    let error = JournalFile::open(disk.path(), BOOT).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    assert!(error.to_string().contains("--state-dir"), "{error}");
    assert_eq!(on_disk(disk.path()), [load(1)]);
    let next_boot = read_only(disk.path(), "another boot").unwrap();
    assert_eq!(next_boot.earlier[0].entries, [load(1)]);
    run(&["mount", "-o", "remount,rw", path]);
    assert_eq!(open(disk.path()).entries, [load(1)]);
}
