//! State that version 0.1.0 wrote is still read. The files in `tests/fixtures/state-0.1.0`
//! were written by that version's own code (revision 35333b3).

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use livepatch_core::{
    crash::{Implicated, Kind, Phase, Signal},
    journal::{
        entry::{Entry, TimedEntry},
        history::History,
    },
    transition::{BootTime, Direction, Outcome, Transitions},
};
use livepatch_monitor::{
    crash::store::Store,
    exporter::journal::{file::JournalFile, saved},
};

const CRASHED: &str = "11111111-2222-4333-8444-555555555555";
const PRESENT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const SOAK: std::time::Duration = std::time::Duration::from_secs(1800);

/// A copy that a test may write to.
fn state_dir() -> io::Result<tempfile::TempDir> {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/state-0.1.0");
    let copy = tempfile::tempdir()?;
    for part in ["", "recorder", "crashes"] {
        fs::create_dir_all(copy.path().join(part))?;
        for entry in fs::read_dir(recorded.join(part))? {
            let entry = entry?;
            if entry.path().is_file() {
                let copied = copy.path().join(part).join(entry.file_name());
                fs::copy(entry.path(), copied)?;
            }
        }
    }
    Ok(copy)
}

const fn second(second: u64) -> BootTime {
    BootTime::from_nanos(second * 1_000_000_000)
}

fn journal(dir: &Path) -> std::path::PathBuf {
    dir.join(format!("recorder/{PRESENT}.rec"))
}

/// The known state of a boot: the start of the transition on both clocks, its patch, direction and
/// attempts, and whether each of two patches was forced.
type Known = (
    Option<f64>,
    Option<BootTime>,
    Option<String>,
    Direction,
    Option<u32>,
    [Option<bool>; 2],
);

fn known(dir: &Path, boot_id: &str) -> Option<Known> {
    let saved = saved::read(dir, boot_id).ok()??;
    let transitions = Transitions::restore(saved.transitions);
    let active = transitions.active()?;
    Some((
        saved.start_unix_seconds,
        active.start,
        active.patch.clone(),
        active.direction,
        active.attempts,
        ["livepatch_old", "livepatch_fix"].map(|patch| transitions.forced(patch)),
    ))
}

/// What 0.1.0 wrote about the current boot.
fn recorded() -> Option<Known> {
    Some((
        Some(1_795_438_218.0),
        Some(second(130)),
        Some("livepatch_fix".to_owned()),
        Direction::Patch,
        Some(9),
        [Some(true), Some(false)],
    ))
}

/// A command reads what 0.1.0 left, and changes nothing.
#[test]
fn the_running_transition_is_read() {
    let dir = state_dir().unwrap();
    let before = fs::read(journal(dir.path())).unwrap();
    assert_eq!(known(dir.path(), PRESENT), recorded());
    assert_eq!(saved::read(dir.path(), CRASHED).unwrap(), None);
    assert_eq!(fs::read(journal(dir.path())).unwrap(), before);
    assert!(dir.path().join("transition.json").exists());
}

/// The first start takes the state over: the journal becomes one of version 2, which 0.1.0 refuses,
/// and the file of 0.1.0 is removed.
#[test]
fn the_state_is_taken_over() {
    let dir = state_dir().unwrap();
    let before = fs::read(journal(dir.path())).unwrap();
    assert_eq!(before[8..12], 1_u32.to_le_bytes());
    let opened = JournalFile::open(dir.path(), PRESENT).unwrap();
    assert_eq!(opened.problems, Vec::<String>::new());
    let entries = opened.entries.clone();
    drop(opened);
    assert!(!dir.path().join("transition.json").exists());
    let after = fs::read(journal(dir.path())).unwrap();
    assert_eq!(after[8..12], 2_u32.to_le_bytes());
    // The earlier content is unchanged, byte for byte; the state comes after it.
    assert_eq!(after[12..before.len()], before[12..]);
    assert_eq!(known(dir.path(), PRESENT), recorded());
    let again = JournalFile::open(dir.path(), PRESENT).unwrap();
    assert_eq!(again.entries, entries);
    drop(again);
    assert_eq!(fs::read(journal(dir.path())).unwrap(), after);
    // The journal of another boot is unchanged.
    let other = fs::read(dir.path().join(format!("recorder/{CRASHED}.rec"))).unwrap();
    assert_eq!(other[8..12], 1_u32.to_le_bytes());
}

/// Wherever the first start is interrupted, the state is kept, and the next start finishes.
#[test]
fn a_first_start_that_is_cut_off_loses_nothing() {
    let done = state_dir().unwrap();
    let before = fs::read(journal(done.path())).unwrap();
    drop(JournalFile::open(done.path(), PRESENT).unwrap());
    let after = fs::read(journal(done.path())).unwrap();
    let end = before.len();
    let steps = [end, end + 1, end + 12, after.len() - 1, after.len()];
    for version in [1, 2] {
        for written in steps
            .iter()
            .filter(|end| version == 2 || **end == before.len())
        {
            let dir = state_dir().unwrap();
            let mut bytes = after[..*written].to_vec();
            bytes[8] = version;
            fs::write(journal(dir.path()), &bytes).unwrap();
            let old = fs::File::options()
                .write(true)
                .open(dir.path().join("transition.json"))
                .unwrap();
            old.set_modified(SystemTime::now() - Duration::from_secs(3600))
                .unwrap();
            assert_eq!(known(dir.path(), PRESENT), recorded());
            let opened = JournalFile::open(dir.path(), PRESENT).unwrap();
            let is_state = |recorded: &&TimedEntry| matches!(recorded.entry, Entry::State(_));
            assert_eq!(opened.entries.iter().filter(is_state).count(), 1);
            drop(opened);
            assert_eq!(known(dir.path(), PRESENT), recorded());
            assert!(!dir.path().join("transition.json").exists());
        }
    }
}

/// 0.1.0 was run again in this boot: what it wrote is newer than what the journal has.
#[test]
fn the_newer_state_counts() {
    let dir = state_dir().unwrap();
    let file = dir.path().join("transition.json");
    let text = fs::read_to_string(&file).unwrap();
    drop(JournalFile::open(dir.path(), PRESENT).unwrap());
    let changed = text.replace("\"attempts\":9", "\"attempts\":12");
    assert_ne!(changed, text);
    let attempts = || {
        let saved = saved::read(dir.path(), PRESENT).unwrap().unwrap();
        saved.transitions.active.unwrap().attempts
    };
    let hour = Duration::from_secs(3600);
    for (age, expected) in [(-1, Some(9)), (1, Some(12))] {
        fs::write(&file, &changed).unwrap();
        let now = SystemTime::now();
        let time = if age < 0 { now - hour } else { now + hour };
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
        assert_eq!(attempts(), expected);
        drop(JournalFile::open(dir.path(), PRESENT).unwrap());
        assert!(!file.exists());
        assert_eq!(attempts(), expected);
    }
}

#[test]
fn a_damaged_state_is_set_aside() {
    let dir = state_dir().unwrap();
    let file = dir.path().join("transition.json");
    let text = fs::read(&file).unwrap();
    let torn = &text[..text.len() / 2];
    fs::write(&file, torn).unwrap();
    assert!(saved::read(dir.path(), PRESENT).is_err());
    let opened = JournalFile::open(dir.path(), PRESENT).unwrap();
    let problem = &opened.problems[0];
    assert!(problem.contains("transition.json.damaged"), "{problem}");
    drop(opened);
    assert!(!file.exists());
    let aside = dir.path().join("transition.json.damaged");
    assert_eq!(fs::read(aside).unwrap(), torn);
    assert_eq!(saved::read(dir.path(), PRESENT).unwrap(), None);
}

#[test]
fn the_boots_journals_are_read() {
    let dir = state_dir().unwrap();
    let opened = JournalFile::open(dir.path(), PRESENT).unwrap();
    assert_eq!(opened.problems, Vec::<String>::new());
    let mut present = History::default();
    for entry in &opened.entries {
        present.take(entry, SOAK);
    }
    let running = present.life.transition.as_ref().unwrap();
    assert_eq!(running.patch.as_deref(), Some("livepatch_fix"));
    assert_eq!(running.start, Some(second(130)));
    assert_eq!(
        present.life.ended.as_ref().unwrap().outcome,
        Some(Outcome::Completed)
    );
    assert_eq!(
        present
            .life
            .in_force("livepatch_old")
            .unwrap()
            .took
            .unwrap()
            .as_millis(),
        3250
    );
    assert_eq!(present.signals[0].signal, Signal::Warning);
    assert!(present.stopped);

    let (earlier, errors) = opened.journal_file.earlier_boots().unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(earlier.len(), 1);
    assert_eq!(earlier[0].boot_id, CRASHED);
    assert!(!earlier[0].damaged);
    let mut crashed = History::default();
    for entry in &earlier[0].entries {
        crashed.take(entry, SOAK);
    }
    assert_eq!(crashed.signals[0].phase, Phase::Transition);
    assert!(!crashed.kept_running && !crashed.stopped);
    assert_eq!(crashed.replaced().len(), 4);
}

#[test]
fn crash_records_and_their_totals_are_read() {
    let dir = state_dir().unwrap();
    let opened = Store::open(dir.path()).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    let crashes = opened.store.crashes();
    assert_eq!(crashes.len(), 2);
    let last = crashes
        .iter()
        .find(|crash| crash.boot_id.as_deref() == Some(CRASHED))
        .unwrap();
    assert_eq!(last.record.kind, Kind::Oops);
    assert_eq!(last.record.phase, Phase::Transition);
    assert_eq!(last.record.implicated, Implicated::Yes);
    assert_eq!(last.ended_boot, Some(true));
    // Of 102 crashes 100 were kept as files; the fixture has two of them.
    let total = opened.store.totals()[&(Kind::Oops, Phase::Transition)];
    assert_eq!(total, 2 + 2);
}
