use super::*;

const SOAK: Duration = Duration::from_secs(100);

const fn second(second: u64) -> BootTime {
    BootTime::from_nanos(second * 1_000_000_000)
}

const fn at(of_boot: u64) -> At {
    At {
        boot: Some(second(of_boot)),
        unix_seconds: None,
    }
}

fn started(patch: Option<&str>, direction: Direction) -> Step<'static> {
    Step::Started(Transition::new(patch.map(str::to_owned), direction))
}

const fn ended(
    patch: Option<&str>,
    direction: Option<Direction>,
    outcome: Option<Outcome>,
) -> Step<'_> {
    Step::Ended {
        patch,
        direction,
        outcome,
        took: None,
    }
}

fn life(steps: Vec<(u64, Step<'_>)>) -> Lifecycle {
    let mut life = Lifecycle::default();
    for (second, step) in steps {
        life.step(at(second), step);
    }
    life
}

fn stage(life: &Lifecycle, patch: &str) -> Option<Stage> {
    let known = life.patches.iter().find(|known| known.name == patch)?;
    Some(known.stage)
}

/// A transition that was seen to its end leaves nothing to be read from sysfs.
#[test]
fn the_end_of_a_transition_says_where_the_patch_is() {
    use Direction::{Patch, Unpatch};
    let mut life = life(vec![
        (1, Step::Listed(vec![("fix", Some(true))])),
        (10, started(Some("fix"), Unpatch)),
        (
            20,
            ended(Some("fix"), Some(Unpatch), Some(Outcome::Completed)),
        ),
    ]);
    assert_eq!(stage(&life, "fix"), Some(Stage::Disabled));
    assert_eq!(life.phase(Some(second(120)), SOAK), Phase::Soak);
    assert_eq!(life.phase(Some(second(121)), SOAK), Phase::Unpatched);
    life.step(at(130), started(Some("fix"), Patch));
    let cancelled = ended(Some("fix"), Some(Patch), Some(Outcome::Cancelled));
    life.step(at(131), cancelled);
    assert_eq!(stage(&life, "fix"), Some(Stage::Disabled));
    life.step(at(140), started(Some("fix"), Patch));
    life.step(
        at(141),
        ended(Some("fix"), Some(Patch), Some(Outcome::Forced)),
    );
    assert_eq!(life.phase(Some(second(300)), SOAK), Phase::Patched);
}

/// `enabled` as it was before the transition does not say how that ended.
#[test]
fn an_end_that_was_not_seen_takes_a_list_from_its_transition() {
    let listed = || Step::Listed(vec![("fix", Some(true))]);
    let unseen = || ended(Some("fix"), None, None);
    let mut old = life(vec![
        (1, listed()),
        (10, started(Some("fix"), Direction::Unpatch)),
        (20, unseen()),
    ]);
    assert_eq!(stage(&old, "fix"), Some(Stage::Unknown));
    assert_eq!(old.phase(Some(second(200)), SOAK), Phase::Unknown);
    old.step(at(201), listed());
    assert_eq!(old.phase(Some(second(201)), SOAK), Phase::Patched);
    let fresh = life(vec![
        (10, started(Some("fix"), Direction::Patch)),
        (11, listed()),
        (20, unseen()),
    ]);
    assert_eq!(stage(&fresh, "fix"), Some(Stage::Enabled));
}

/// Any of the patches may be the one that a nameless transition has disabled.
#[test]
fn what_a_nameless_unpatching_disabled_is_not_known() {
    let nameless = || started(None, Direction::Unpatch);
    let end = || ended(None, Some(Direction::Unpatch), Some(Outcome::Completed));
    let both = vec![("fix", Some(true)), ("other", Some(true))];
    let mut life = life(vec![(1, Step::Listed(both)), (10, nameless()), (12, end())]);
    assert_eq!(life.phase(Some(second(200)), SOAK), Phase::Unknown);
    assert_eq!(life.in_force("other"), None);
    life.step(
        at(201),
        Step::Listed(vec![("fix", Some(false)), ("other", Some(true))]),
    );
    let since = life.patches.iter().find(|it| it.name == "other").unwrap();
    assert_eq!(since.stage, Stage::Enabled);
    assert_eq!(stage(&life, "fix"), Some(Stage::Disabled));
}

/// The kernel runs one transition at a time: the start of another proves the end of the
/// one before, though not how it ended.
#[test]
fn another_transition_ends_the_one_before() {
    let mut life = life(vec![
        (1, started(Some("one"), Direction::Patch)),
        (5, started(Some("two"), Direction::Patch)),
        (
            6,
            ended(
                Some("two"),
                Some(Direction::Patch),
                Some(Outcome::Completed),
            ),
        ),
    ]);
    assert_eq!(life.transition, None);
    assert_eq!(stage(&life, "one"), Some(Stage::Unknown));
    life.step(at(7), started(Some("one"), Direction::Unpatch));
    life.step(at(8), Step::Enabling("three"));
    assert_eq!(life.transition, None);
    assert_eq!(life.phase(Some(second(8)), SOAK), Phase::Load);
}

#[test]
fn a_load_and_a_transition_of_others_leave_each_other_alone() {
    let life = life(vec![
        (1, started(Some("one"), Direction::Unpatch)),
        (5, Step::Load("two")),
        (
            6,
            ended(
                Some("one"),
                Some(Direction::Unpatch),
                Some(Outcome::Completed),
            ),
        ),
    ]);
    assert_eq!(life.loading(Some(second(7))), Some("two"));
    assert_eq!(life.phase(Some(second(7)), SOAK), Phase::Load);
}

/// Without times, or with a clock that went back, nothing that depends on a time is
/// claimed.
#[test]
fn an_unknown_age_makes_an_unknown_phase() {
    let completed = || {
        ended(
            Some("fix"),
            Some(Direction::Patch),
            Some(Outcome::Completed),
        )
    };
    let mut timeless = Lifecycle::default();
    timeless.step(At::default(), completed());
    assert_eq!(timeless.phase(None, SOAK), Phase::Unknown);
    assert_eq!(timeless.phase(Some(second(9)), SOAK), Phase::Unknown);
    let timed = life(vec![(50, completed())]);
    assert_eq!(timed.ended_before(Some(second(20))), None);
    assert_eq!(timed.phase(Some(second(20)), SOAK), Phase::Unknown);
    // Out of order by what one CPU may be behind another.
    assert_eq!(timed.phase(Some(second(49)), SOAK), Phase::Soak);
    let mut loading = Lifecycle::default();
    loading.step(At::default(), Step::Load("fix"));
    assert_eq!(loading.phase(None, SOAK), Phase::Load);
}

/// "Unpatched" takes a list of all that is loaded.
#[test]
fn nothing_is_unpatched_without_proof() {
    let mut life = life(vec![(1, Step::Load("fix")), (2, Step::Refused("fix"))]);
    assert_eq!(stage(&life, "fix"), Some(Stage::Refused));
    assert_eq!(life.phase(Some(second(3)), SOAK), Phase::Unknown);
    life.step(at(4), Step::Listed(vec![]));
    assert_eq!(life.phase(Some(second(4)), SOAK), Phase::Unpatched);
    life.step(at(5), Step::Listed(vec![("fix", None)]));
    assert_eq!(life.phase(Some(second(5)), SOAK), Phase::Unknown);
    life.step(at(6), Step::Signalled);
    assert_eq!(life.phase(Some(second(6)), SOAK), Phase::Transition);
}

#[test]
fn no_more_than_a_bounded_number_is_kept() {
    let mut life = Lifecycle::default();
    life.step(at(1), Step::Listed(vec![]));
    for number in 0..1000 {
        let name = format!("patch_{number}");
        life.step(at(2), Step::Load(&name));
    }
    assert_eq!((life.patches.len(), life.loads.len()), (256, 256));
    assert!(!life.complete);
}
