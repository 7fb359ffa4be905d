use std::{fs, slice};

use livepatch_core::{
    in_force::Why,
    journal::{entry::Entry, history::History, testing::recorded},
    patch::{Function, Object, VMLINUX},
};

use super::*;

/// A host with these files; its collector has the lists open.
fn host(modules: Option<&str>, enabled: &str) -> (tempfile::TempDir, FunctionsInForce) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    for (file, text) in [
        ("tracing/enabled_functions", enabled),
        ("debug/kprobes/list", ""),
        ("debug/error_injection/list", ""),
    ] {
        let file = path.join("kernel").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    if let Some(modules) = modules {
        fs::write(path.join("modules"), modules).unwrap();
    }
    let collector = FunctionsInForce::new(path.to_owned(), path);
    (root, collector)
}

fn patch(name: &str, function: &str, transition: bool) -> Patch {
    let function = Function {
        name: function.to_owned(),
        sympos: 1,
    };
    Patch {
        name: name.to_owned(),
        enabled: Some(true),
        transition: Some(transition),
        objects: vec![Object {
            name: VMLINUX.to_owned(),
            patched: Some(true),
            functions: vec![function],
        }],
        ..Patch::default()
    }
}

/// What a scrape at this second shows of each patch: `None` if its function is in force.
fn scrape(
    collector: &FunctionsInForce,
    second: u64,
    history: History,
    patches: &[Patch],
) -> Vec<Option<Why>> {
    let mut values = All::default();
    values.patches.set = Some(Arc::new(PatchSet {
        supported: true,
        patches: patches.to_vec(),
    }));
    let moment = Moment {
        now: BootTime::from_duration(Duration::from_secs(second)),
        history: Arc::new(history),
        ..Moment::default()
    };
    collector.collect(&moment, &mut values);
    let objects = values.in_force.objects.into_iter();
    objects
        .map(|one| one.others.first().map(|other| other.why.clone()))
        .collect()
}

fn unknown(why: &Option<Why>, reason: &str) {
    assert!(
        matches!(why, Some(Why::Unknown(text)) if text.contains(reason)),
        "{why:?}"
    );
}

const ONE: &str = "fix 1 1 - Live 0x0\n";

#[test]
fn a_patch_that_came_since_is_not_judged_by_the_last_reading() {
    let (root, collector) = host(Some(ONE), "f (1) R I\n");
    let fix = patch("fix", "f", false);
    let seen = scrape(&collector, 1, History::default(), slice::from_ref(&fix));
    assert_eq!(seen, [None]);
    let modules = "next 1 1 - Live 0x0\nlate 1 1 - Live 0x0\nfix 1 1 - Live 0x0\n";
    fs::write(root.path().join("modules"), modules).unwrap();
    let lines = "f (1) R I\ng (1) R I\n";
    fs::write(root.path().join("kernel/tracing/enabled_functions"), lines).unwrap();
    // `late` has come into force between two scrapes, and another one moves.
    let patches = [fix, patch("late", "g", false), patch("next", "h", true)];
    let seen = scrape(&collector, 2, History::default(), &patches);
    assert_eq!((&seen[0], &seen[2]), (&None, &Some(Why::InTransition)));
    unknown(&seen[1], "next is in transition");
    // Another build of the same name is another patch.
    let rebuilt = Patch {
        srcversion: Some("2".to_owned()),
        ..patches[0].clone()
    };
    let seen = scrape(
        &collector,
        3,
        History::default(),
        &[rebuilt, patches[2].clone()],
    );
    unknown(&seen[0], "next is in transition");
    // Once nothing moves, all are read.
    let at_rest = [
        patches[0].clone(),
        patches[1].clone(),
        patch("next", "g", false),
    ];
    let seen = scrape(&collector, 4, History::default(), &at_rest);
    let replaced = Some(Why::Replaced("next".to_owned()));
    assert_eq!(seen, [None, replaced, None]);
}

#[test]
fn a_reading_that_cannot_be_repeated_ends() {
    let (_root, collector) = host(Some(ONE), "f (1) R I\n");
    let fix = patch("fix", "f", false);
    scrape(&collector, 1000, History::default(), slice::from_ref(&fix));
    let patches = [fix, patch("next", "h", true)];
    let last = 1000 + LONGEST.as_secs() - 1;
    let seen = scrape(&collector, last, History::default(), &patches);
    assert_eq!(seen, [None, Some(Why::InTransition)]);
    // The clock of a boot does not go back: such a reading is not believed either.
    for second in [last + 1, 999] {
        let seen = scrape(&collector, second, History::default(), &patches);
        unknown(&seen[0], "next is in transition");
    }
}

#[test]
fn nothing_is_read_while_a_module_is_being_loaded() {
    let fix = patch("fix", "f", false);
    let loading = || {
        let mut history = History::default();
        let patch = "next".to_owned();
        history.take(
            &recorded(1, Entry::Load { patch }),
            Duration::from_secs(600),
        );
        history
    };
    let other = "nft 1 1 - Loading 0x0\nfix 1 1 - Live 0x0\n";
    for (modules, history, reason) in [
        (Some(ONE), loading(), "next is being loaded"),
        (Some(other), History::default(), "a module is being loaded"),
        (None, History::default(), "cannot read"),
    ] {
        let (root, collector) = host(modules, "f (1) R I\n");
        let seen = scrape(&collector, 2, history, slice::from_ref(&fix));
        unknown(&seen[0], reason);
        fs::write(root.path().join("modules"), ONE).unwrap();
        let seen = scrape(&collector, 3, History::default(), slice::from_ref(&fix));
        assert_eq!(seen, [None], "{reason}");
    }
}
