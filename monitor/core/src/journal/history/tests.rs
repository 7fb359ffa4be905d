use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    function_ref::FunctionRef,
    journal::testing::{any_entry, recorded},
    transition::{Direction, Outcome},
};

const SOAK: Duration = Duration::from_secs(100);

fn at(second: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(second))
}

fn load() -> Entry {
    Entry::Load {
        patch: "fix".into(),
    }
}

fn transition(direction: Direction) -> Entry {
    Entry::Transition {
        patch: Some("fix".into()),
        direction,
        start: Some(at(11)),
    }
}

fn ended(direction: Direction) -> Entry {
    Entry::Ended {
        patch: Some("fix".into()),
        direction: Some(direction),
        outcome: Some(Outcome::Completed),
        took_seconds: Some(9.0),
    }
}

fn patches(enabled: &[Option<bool>]) -> Entry {
    let patch = |enabled: &Option<bool>| LoadedPatch {
        name: "fix".into(),
        enabled: *enabled,
        srcversion: None,
        functions: vec![
            FunctionRef {
                object: "vmlinux".into(),
                function: "a".into(),
            },
            FunctionRef {
                object: "ext4".into(),
                function: "b".into(),
            },
        ],
    };
    Entry::Patches {
        patches: enabled.iter().map(patch).collect(),
    }
}

fn history(entries: &[(u64, Entry)]) -> History {
    let mut history = History::default();
    for (second, entry) in entries {
        history.take(&recorded(*second, entry.clone()), SOAK);
    }
    history
}

#[test]
fn a_patch_goes_through_its_phases() {
    use Direction::{Patch, Unpatch};
    let mut entries = vec![];
    let mut phase = |second: u64, entry: Option<Entry>| {
        entries.extend(entry.map(|entry| (second, entry)));
        history(&entries).phase(at(second), SOAK)
    };
    assert_eq!(phase(1, None), Phase::Unknown);
    assert_eq!(phase(2, Some(patches(&[]))), Phase::Unpatched);
    assert_eq!(phase(10, Some(load())), Phase::Load);
    assert_eq!(phase(11, Some(transition(Patch))), Phase::Load);
    let loaded = Entry::Loaded {
        patch: "fix".into(),
    };
    assert_eq!(phase(12, Some(loaded)), Phase::Transition);
    assert_eq!(phase(13, Some(patches(&[Some(true)]))), Phase::Transition);
    assert_eq!(phase(20, Some(ended(Patch))), Phase::Soak);
    assert_eq!(phase(120, None), Phase::Soak);
    assert_eq!(phase(121, None), Phase::Patched);
    assert_eq!(phase(200, Some(transition(Unpatch))), Phase::Transition);
    assert_eq!(phase(210, Some(ended(Unpatch))), Phase::Soak);
    assert_eq!(phase(211, Some(patches(&[]))), Phase::Soak);
    assert_eq!(phase(400, None), Phase::Unpatched);
    assert_eq!(phase(401, Some(patches(&[None]))), Phase::Unknown);
}

#[test]
fn a_first_attempt_that_succeeds_ends_the_load() {
    let entries = [
        (10, load()),
        (10, transition(Direction::Patch)),
        (11, ended(Direction::Patch)),
    ];
    assert_eq!(history(&entries).phase(at(11), SOAK), Phase::Soak);
}

#[test]
fn a_load_of_which_nothing_is_heard_is_over_some_time() {
    let mut entries = vec![(2, patches(&[])), (10, load())];
    let waiting = history(&entries);
    assert_eq!(waiting.loading(at(309)), Some("fix"));
    // The list is older than the load: what became of that is not known.
    assert_eq!(waiting.loading(at(311)), None);
    assert_eq!(waiting.phase(at(311), SOAK), Phase::Unknown);
    entries.push((311, patches(&[])));
    assert_eq!(history(&entries).phase(at(311), SOAK), Phase::Unpatched);
}

#[test]
fn a_signal_keeps_the_phase_it_came_in() {
    let signal = Entry::Signal {
        signal: Signal::Oops,
        headline: "BUG".into(),
    };
    let entries = [
        (10, load()),
        (11, signal.clone()),
        (12, ended(Direction::Patch)),
    ];
    let lived = history(&entries);
    assert_eq!(lived.signals[0].phase, Phase::Load);
    assert!(lived.kept_running);
    let died = history(&[(10, load()), (11, signal)]);
    assert!(!died.kept_running && !died.stopped);
}

#[test]
fn replaced_functions_are_named_with_their_module() {
    let replaced = history(&[(1, patches(&[Some(true)]))]).replaced();
    let modules: Vec<_> = replaced.iter().map(|one| one.function.module()).collect();
    assert_eq!(modules, [None, Some("ext4")]);
}

proptest! {
    #[test]
    fn any_entries_are_taken(entries in vec((0_u32..1000, any_entry()), 0..200)) {
        let mut history = History::default();
        for (second, entry) in entries {
            let stopped = match &entry {
                Entry::State(_) => history.stopped,
                entry => matches!(entry, Entry::Stopped),
            };
            history.take(&recorded(u64::from(second), entry), SOAK);
            prop_assert_eq!(history.stopped, stopped);
            prop_assert!(history.signals.len() <= MAX_SIGNALS);
            let _ = history.phase(at(u64::from(second)), SOAK);
        }
    }
}

/// Seconds of the boot's clock and of the world's are the same in these entries.
fn in_force(entries: &[(u64, Entry)]) -> Option<(Option<f64>, Option<Duration>)> {
    let history = history(entries);
    let known = history.life.in_force("fix")?;
    Some((known.since_unix_seconds, known.took))
}

#[test]
fn a_patch_is_in_force_from_the_end_of_its_transition() {
    use Direction::{Patch, Unpatch};
    let mut entries = vec![
        (10, load()),
        (12, transition(Patch)),
        (13, patches(&[Some(true)])),
    ];
    assert_eq!(in_force(&entries), None, "enabled, but in transition");
    entries.push((20, ended(Patch)));
    let expected = Some((
        recorded(20, load()).unix_seconds,
        Some(Duration::from_secs(9)),
    ));
    assert_eq!(in_force(&entries), expected);
    entries.push((25, patches(&[Some(true)])));
    entries.push((26, Entry::Watching));
    assert_eq!(
        in_force(&entries),
        expected,
        "what is seen again is not news"
    );
    entries.push((30, transition(Unpatch)));
    assert_eq!(in_force(&entries), None, "on its way out");
    let reversed = |direction| Entry::Ended {
        patch: Some("fix".into()),
        direction: Some(direction),
        outcome: Some(Outcome::Reversed),
        took_seconds: Some(1.0),
    };
    entries.push((31, reversed(Unpatch)));
    assert_eq!(in_force(&entries), None, "turned around is not arrived");
    entries.extend([
        (31, transition(Patch)),
        (33, ended(Patch)),
        (34, patches(&[])),
    ]);
    assert_eq!(in_force(&entries), None, "no longer loaded");
}

#[test]
fn a_patch_whose_way_was_not_seen_is_in_force_from_when_it_was_found() {
    use Direction::Patch;
    let found = vec![(40, patches(&[Some(true)]))];
    assert_eq!(
        in_force(&found),
        Some((recorded(40, load()).unix_seconds, None))
    );
    assert_eq!(in_force(&[(40, patches(&[Some(false)]))]), None);
    assert_eq!(in_force(&[(40, patches(&[None]))]), None);
    let unseen = |patch: Option<&str>| Entry::Ended {
        patch: patch.map(str::to_owned),
        direction: None,
        outcome: None,
        took_seconds: None,
    };
    // A monitor before this version recorded no length.
    let old = r#"{"note":"ended","patch":"fix","direction":"patch","outcome":"completed"}"#;
    let old: Entry = serde_json::from_str(old).unwrap();
    let unlengthy = vec![(12, transition(Patch)), (50, old)];
    assert_eq!(
        in_force(&unlengthy),
        Some((recorded(50, load()).unix_seconds, None))
    );
    let lost = vec![
        (12, transition(Patch)),
        (13, patches(&[Some(true)])),
        (50, unseen(Some("fix"))),
    ];
    assert_eq!(
        in_force(&lost),
        Some((recorded(50, load()).unix_seconds, None))
    );
    // Which patch is in transition is not known: it may be this one.
    let nameless = Entry::Transition {
        patch: None,
        direction: Patch,
        start: None,
    };
    let mut entries = vec![(12, nameless), (13, patches(&[Some(true)]))];
    assert_eq!(in_force(&entries), None);
    entries.push((60, unseen(None)));
    assert_eq!(
        in_force(&entries),
        Some((recorded(60, load()).unix_seconds, None))
    );
}

#[test]
fn a_list_is_news_as_long_as_it_settles_something() {
    let list = || recorded(30, patches(&[]));
    let mut entries = vec![(2, patches(&[]))];
    assert!(history(&entries).knows(&list()));
    entries.push((10, load()));
    assert!(history(&entries).knows(&list()), "it is still being loaded");
    let patch = "fix".into();
    entries.push((11, Entry::Loaded { patch }));
    assert!(!history(&entries).knows(&list()), "it was refused");
    entries.push((12, patches(&[])));
    assert!(history(&entries).knows(&list()));
}
