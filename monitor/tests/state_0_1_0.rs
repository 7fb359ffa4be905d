//! State that version 0.1.0 wrote is still read. The files in `tests/fixtures/state-0.1.0`
//! were written by that version's own code (revision 35333b3).

use std::{fs, io, path::Path};

use livepatch_core::{
    crash::{Implicated, Kind, Phase, Signal},
    journal::history::History,
    transition::{BootTime, Direction, Outcome, Transitions},
};
use livepatch_monitor::{crash::store::Store, exporter::journal::file::Recorder, state};

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

#[test]
fn the_running_transition_is_restored() {
    let dir = state_dir().unwrap();
    let saved = state::load(dir.path(), PRESENT).unwrap().unwrap();
    assert_eq!(saved.start_unix_seconds, Some(1_795_438_218.0));
    let transitions = Transitions::restore(saved.transitions);
    let active = transitions.active().unwrap();
    assert_eq!(active.patch.as_deref(), Some("livepatch_fix"));
    assert_eq!(active.direction, Direction::Patch);
    assert_eq!(
        (active.start, active.attempts),
        (Some(second(130)), Some(9))
    );
    assert_eq!(transitions.forced("livepatch_old"), Some(true));
    assert_eq!(transitions.forced("livepatch_fix"), Some(false));
    assert!(state::load(dir.path(), CRASHED).unwrap().is_none());
}

#[test]
fn the_boots_journals_are_read() {
    let dir = state_dir().unwrap();
    let opened = Recorder::open(dir.path(), PRESENT).unwrap();
    assert_eq!(opened.problem, None);
    let mut present = History::default();
    for entry in &opened.notes {
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

    let (earlier, errors) = opened.recorder.earlier_boots().unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(earlier.len(), 1);
    assert_eq!(earlier[0].boot_id, CRASHED);
    assert!(!earlier[0].damaged);
    let mut crashed = History::default();
    for entry in &earlier[0].notes {
        crashed.take(entry, SOAK);
    }
    assert_eq!(crashed.signals[0].phase, Phase::Transition);
    assert!(!crashed.lived_on && !crashed.stopped);
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
