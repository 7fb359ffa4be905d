use proptest::prelude::*;

use super::*;

const NOW: f64 = 1_795_435_857.0;

fn terms() -> Terms {
    Terms {
        time: NOW,
        soak: Duration::from_secs(1800),
        since: None,
        stale_after: Duration::from_secs(120),
    }
}

fn sample(labels: &[(&str, &str)], value: f64) -> Sample {
    let mut all = vec![("job", "livepatch-monitor"), ("instance", "a:9969")];
    all.extend_from_slice(labels);
    Sample {
        labels: all
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        value,
    }
}

type Row<'a> = (Question, &'a [(&'a str, &'a str)], f64);

fn answers(rows: &[Row<'_>]) -> Answers {
    let mut answers = Answers::new();
    for (question, labels, value) in rows {
        answers
            .entry(*question)
            .or_default()
            .push(sample(labels, *value));
    }
    answers
}

/// The state of the one host.
#[track_caller]
fn state(rows: &[Row<'_>]) -> State {
    state_on(rows, &terms())
}

#[track_caller]
fn state_on(rows: &[Row<'_>], terms: &Terms) -> State {
    let mut all = answers(rows);
    // Said of every host, unless the test says otherwise.
    for (question, labels, value) in [SCRAPED, NO_CRASH, READ] {
        all.entry(question)
            .or_insert_with(|| vec![sample(labels, value)]);
    }
    let mut fleet = read(&all, terms, None);
    assert_eq!(fleet.problems, [""; 0]);
    assert_eq!(fleet.hosts.len(), 1);
    fleet.hosts.remove(0).state
}

const UP: Row<'_> = (Question::Up, &[], 1.0);
const DOWN: Row<'_> = (Question::Up, &[], 0.0);
const SCRAPED: Row<'_> = (Question::Scraped, &[], NOW - 10.0);
const NO_CRASH: Row<'_> = (Question::Crashes, &[], 0.0);
/// The monitor could read which livepatches are loaded.
const READ: Row<'_> = (Question::SysfsRead, &[], 1.0);
const GONE: Row<'_> = (Question::Gone, &[], 1.0);
const ENABLED: Row<'_> = (Question::Enabled, &[], 1.0);

#[test]
fn a_host_that_is_up() {
    assert_eq!(state(&[UP]), State::Without);
    assert_eq!(state(&[UP, (Question::Enabled, &[], 0.0)]), State::Disabled);
    assert_eq!(state(&[UP, ENABLED]), State::InForce);
    let completed = |ago: f64| (Question::PatchingComplete, &[][..], NOW - ago);
    assert_eq!(state(&[UP, ENABLED, completed(1800.0)]), State::Soaked);
    let soaking = State::Soaking { left: 1.0 };
    assert_eq!(state(&[UP, ENABLED, completed(1799.0)]), soaking);
    // Its clock is ahead of Prometheus's.
    let soaking = State::Soaking { left: 1860.0 };
    assert_eq!(state(&[UP, ENABLED, completed(-60.0)]), soaking);
}

#[test]
fn a_transition_is_stuck_only_if_the_exporter_says_so() {
    let running = (Question::Transition, &[("direction", "patch")][..], 1.0);
    let moving = State::InTransition {
        direction: "patch".to_owned(),
        stuck_tasks: 0.0,
    };
    assert_eq!(state(&[UP, ENABLED, running]), moving);
    let stuck = State::InTransition {
        direction: "patch".to_owned(),
        stuck_tasks: 3.0,
    };
    assert_eq!(
        state(&[UP, ENABLED, running, (Question::Stuck, &[], 3.0)]),
        stuck
    );
}

#[test]
fn a_host_that_does_not_answer() {
    assert_eq!(
        state(&[DOWN]),
        State::Missing(Missing::Down { blip: false })
    );
    assert_eq!(state(&[GONE]), State::Missing(Missing::Gone));
    let enabled = (Question::LastEnabled, &[][..], 1.0);
    let disabled = (Question::LastEnabled, &[][..], 0.0);
    assert_eq!(
        state(&[DOWN, enabled]),
        State::Silent {
            seen: Seen::Enabled,
            blip: false
        }
    );
    assert_eq!(
        state(&[DOWN, disabled]),
        State::Missing(Missing::Down { blip: false })
    );
    assert_eq!(state(&[GONE, enabled]), State::Missing(Missing::Gone));
    let running = (Question::LastTransition, &[("direction", "patch")][..], 1.0);
    for host in [DOWN, GONE] {
        assert_eq!(
            state(&[host, enabled, running]),
            State::Silent {
                seen: Seen::InTransition("patch".to_owned()),
                blip: false
            }
        );
    }
}

#[test]
fn a_host_with_metrics_but_without_up_is_missing() {
    assert_eq!(state(&[ENABLED]), State::Missing(Missing::Gone));
}

#[test]
fn an_old_scrape_says_nothing_but_of_a_crash() {
    let old = (Question::Scraped, &[][..], NOW - 121.0);
    let completed = (Question::PatchingComplete, &[][..], NOW - 5000.0);
    assert_eq!(
        state(&[UP, old, ENABLED, completed]),
        State::Missing(Missing::Stale {
            age: Some(121.0),
            interval: None
        })
    );
    let crash = (Question::Crashes, &[][..], 1.0);
    assert!(matches!(
        state(&[UP, old, ENABLED, crash]),
        State::Crashed(_)
    ));
}

/// A file that its writer left hours ago is scraped as always.
#[test]
fn a_textfile_that_nobody_writes_says_nothing_but_of_a_crash() {
    let completed = (Question::PatchingComplete, &[][..], NOW - 5000.0);
    let file = |age: f64| (Question::FileAge, &[][..], age);
    let on = |age| state(&[UP, SCRAPED, ENABLED, NO_CRASH, completed, file(age)]);
    for age in [0.0, 15.0, 120.0, -60.0] {
        assert_eq!(on(age), State::Soaked, "{age}");
    }
    assert_eq!(on(121.0), State::Missing(Missing::File(121.0)));
    assert_eq!(
        on(-7200.0),
        State::Missing(Missing::Clock(Clock::Off(7200.0)))
    );
    // Without the patch as well: what it has by now is unknown.
    assert_eq!(
        state(&[UP, SCRAPED, file(7200.0)]),
        State::Missing(Missing::File(7200.0))
    );
    let crash = (Question::Crashes, &[][..], 1.0);
    assert!(matches!(
        state(&[UP, SCRAPED, ENABLED, crash, file(7200.0)]),
        State::Crashed(_)
    ));
}

#[test]
fn a_clock_that_is_off_never_soaks() {
    let completed = (Question::PatchingComplete, &[][..], NOW - 5000.0);
    for (behind, expected) in [
        (60.0, State::Soaked),
        (-60.0, State::Soaked),
        (61.0, State::Missing(Missing::Clock(Clock::Off(-61.0)))),
        (-7200.0, State::Missing(Missing::Clock(Clock::Off(7200.0)))),
    ] {
        let lag = (Question::Behind, &[][..], behind);
        assert_eq!(
            state(&[UP, SCRAPED, ENABLED, NO_CRASH, completed, lag]),
            expected
        );
        assert_eq!(state(&[UP, SCRAPED, lag]), State::Without);
    }
}

#[test]
fn a_patched_host_that_does_not_count_crashes_is_not_soaked() {
    let completed = (Question::PatchingComplete, &[][..], NOW - 5000.0);
    let moving = (Question::Transition, &[("direction", "patch")][..], 1.0);
    for rows in [
        [UP, SCRAPED, ENABLED, completed],
        [UP, SCRAPED, ENABLED, moving],
    ] {
        let fleet = read(&answers(&rows), &terms(), None);
        let mute = State::Missing(Missing::NoCrashCount);
        assert_eq!(fleet.hosts[0].state, mute);
    }
    let fleet = read(&answers(&[UP, SCRAPED, READ]), &terms(), None);
    assert_eq!(fleet.hosts[0].state, State::Without);
}

/// A container, a sysfs that cannot be read, or no monitor at all behind the address.
#[test]
fn a_host_that_cannot_read_its_livepatches_is_not_without_the_patch() {
    let unread = |reported| State::Missing(Missing::Unread { reported });
    let failed = (Question::SysfsRead, &[][..], 0.0);
    assert_eq!(state(&[UP, failed]), unread(true));
    let fleet = read(&answers(&[UP, SCRAPED]), &terms(), None);
    assert_eq!(fleet.hosts[0].state, unread(false));
    // What it does export of the patch was read.
    assert_eq!(state(&[UP, ENABLED, failed]), State::InForce);
    let disabled = (Question::Enabled, &[][..], 0.0);
    assert_eq!(state(&[UP, disabled, failed]), State::Disabled);
}

#[test]
fn a_scrape_of_no_known_time_says_nothing() {
    let fleet = read(&answers(&[UP, ENABLED, NO_CRASH]), &terms(), None);
    assert_eq!(
        fleet.hosts[0].state,
        State::Missing(Missing::Stale {
            age: None,
            interval: None
        })
    );
}

#[test]
fn crashes_before_since_do_not_count() {
    let crash = (Question::Crashes, &[][..], 2.0);
    let at = |ago: f64| (Question::LastCrash, &[][..], NOW - ago);
    let crashed = |last| State::Crashed(vec![Cause::Crash { count: 2.0, last }]);
    assert_eq!(state(&[UP, crash]), crashed(None));
    assert_eq!(state(&[UP, crash, at(50.0)]), crashed(Some(NOW - 50.0)));
    let since = Terms {
        since: Some(NOW - 100.0),
        ..terms()
    };
    assert_eq!(state_on(&[UP, crash, at(101.0)], &since), State::Without);
    assert_eq!(
        state_on(&[UP, crash, at(100.0)], &since),
        crashed(Some(NOW - 100.0))
    );
    // When it was is not known: it may have been after.
    assert_eq!(state_on(&[UP, crash], &since), crashed(None));
}

#[test]
fn a_signal_that_implicates_the_patch_is_a_crash() {
    let oops = (Question::Signals, &[("signal", "oops")][..], 1.0);
    let crashed = State::Crashed(vec![Cause::Signal("oops".to_owned())]);
    assert_eq!(state(&[UP, ENABLED, oops]), crashed);
    let since = Terms {
        since: Some(NOW - 100.0),
        ..terms()
    };
    let older = (Question::LastSignal, &[("signal", "oops")][..], NOW - 101.0);
    assert_eq!(
        state_on(&[UP, ENABLED, oops, older], &since),
        State::InForce
    );
    let other = (
        Question::LastSignal,
        &[("signal", "warning")][..],
        NOW - 101.0,
    );
    assert_eq!(state_on(&[UP, ENABLED, oops, other], &since), crashed);
}

#[test]
fn a_crash_is_remembered_of_a_host_that_is_down() {
    let crash = (Question::LastCrashes, &[][..], 1.0);
    let fleet = read(&answers(&[DOWN, SCRAPED, crash]), &terms(), None);
    assert!(matches!(fleet.hosts[0].state, State::Crashed(_)));
    let signal = (Question::LastSignals, &[("signal", "oops")][..], 1.0);
    assert!(matches!(state(&[DOWN, signal]), State::Crashed(_)));
}

/// Scraped every 15 s until `ago`.
fn every_15_s(ago: f64) -> [Row<'static>; 3] {
    [
        (Question::Scraped, &[], NOW - ago),
        (Question::Scrapes, &[], 20.0 - (ago / 15.0).floor()),
        (Question::ScrapesBefore, &[], 20.0),
    ]
}

#[test]
fn two_scrape_intervals_are_stale() {
    let state_at = |ago| {
        let [one, two, three] = every_15_s(ago);
        state(&[UP, one, two, three])
    };
    assert_eq!(state_at(0.0), State::Without);
    assert_eq!(state_at(30.0), State::Without);
    let stale = |ago| {
        State::Missing(Missing::Stale {
            age: Some(ago),
            interval: Some(15.0),
        })
    };
    assert_eq!(state_at(31.0), stale(31.0));
    assert_eq!(state_at(110.0), stale(110.0));
    // From the future.
    assert_eq!(state_at(-2.0), {
        let age = Some(-2.0);
        let interval = Some(300.0 / 21.0);
        State::Missing(Missing::Stale { age, interval })
    });
    // Delivered in batches of 5 s, and a host scraped too seldom to measure it.
    let fast = [
        (Question::Scraped, &[][..], NOW - 14.0),
        (Question::Scrapes, &[][..], 60.0),
    ];
    assert_eq!(state(&[UP, fast[0], fast[1]]), State::Without);
    let slow = [
        (Question::Scraped, &[][..], NOW - 120.0),
        (Question::Scrapes, &[][..], 1.0),
    ];
    assert_eq!(state(&[UP, slow[0], slow[1]]), State::Without);
}

#[test]
fn a_host_that_may_only_have_missed_a_scrape() {
    let recently = (Question::UpRecently, &[][..], 1.0);
    let not = (Question::UpRecently, &[][..], 0.0);
    let enabled = (Question::LastEnabled, &[][..], 1.0);
    for (row, expected) in [(recently, true), (not, false)] {
        let down = State::Missing(Missing::Down { blip: expected });
        assert_eq!(state(&[DOWN, row]), down);
        let silent = State::Silent {
            seen: Seen::Enabled,
            blip: expected,
        };
        assert_eq!(state(&[DOWN, enabled, row]), silent);
    }
    // The longest of the measured times, at most --stale-after.
    let all = answers(&every_15_s(0.0)[1..]);
    assert_eq!(
        blip(&all, Duration::from_secs(180)),
        Duration::from_secs(30)
    );
    assert_eq!(blip(&all, Duration::from_secs(20)), Duration::from_secs(20));
    assert_eq!(
        blip(&answers(&[UP]), Duration::from_secs(180)),
        Duration::ZERO
    );
}

#[test]
fn a_host_whose_clock_is_wrong_has_not_soaked() {
    let completed = |ago: f64| (Question::PatchingComplete, &[][..], NOW - ago);
    let up_before = (Question::UpBefore, &[][..], 1.0);
    let with_patch = (Question::EnabledBefore, &[][..], 1.0);
    let hours = 3.0 * 3600.0;
    let behind = State::Missing(Missing::Clock(Clock::Behind(hours)));
    assert_eq!(state(&[UP, ENABLED, completed(hours), up_before]), behind);
    let disabled = (Question::EnabledBefore, &[][..], 0.0);
    assert_eq!(
        state(&[UP, ENABLED, completed(hours), up_before, disabled]),
        behind
    );
    let soaked = [UP, ENABLED, completed(hours), up_before, with_patch];
    assert_eq!(state(&soaked), State::Soaked);
    // Not scraped at that time: nothing contradicts the host.
    let was_down = (Question::UpBefore, &[][..], 0.0);
    assert_eq!(
        state(&[UP, ENABLED, completed(hours), was_down]),
        State::Soaked
    );
    let ahead = State::Missing(Missing::Clock(Clock::Ahead(hours)));
    assert_eq!(state(&[UP, ENABLED, completed(-hours)]), ahead);
}

#[test]
fn expected_hosts_that_were_never_seen() {
    let names = ["a", "a:9969", "b", "c:9969"].map(str::to_owned);
    let expected = Expected::Names(names.into());
    let fleet = read(&answers(&[UP, SCRAPED]), &terms(), Some(&expected));
    let unseen: Vec<&str> = fleet
        .hosts
        .iter()
        .filter(|fact| fact.state == State::Missing(Missing::NeverSeen))
        .map(|fact| &*fact.host.instance)
        .collect();
    assert_eq!(unseen, ["b", "c:9969"]);
    assert_eq!(fleet.hosts.len(), 3);
}

#[test]
fn what_was_a_while_ago_makes_no_host() {
    for question in [
        Question::Scrapes,
        Question::ScrapesBefore,
        Question::UpBefore,
        Question::EnabledBefore,
        Question::UpRecently,
    ] {
        let fleet = read(&answers(&[(question, &[], 1.0)]), &terms(), None);
        assert_eq!(fleet.hosts, []);
    }
}

#[test]
fn forced_is_noted() {
    let fleet = read(
        &answers(&[UP, ENABLED, (Question::Forced, &[], 1.0)]),
        &terms(),
        None,
    );
    assert!(fleet.hosts[0].forced);
}

#[test]
fn the_same_host_twice_is_a_problem() {
    for second in [(Question::Up, &[("replica", "b")][..], 1.0), DOWN] {
        let fleet = read(&answers(&[UP, second]), &terms(), None);
        assert_eq!(fleet.problems.len(), 1);
        assert!(fleet.problems[0].contains("a:9969"), "{fleet:?}");
    }
}

#[test]
fn nan_and_nameless_series_are_problems() {
    let fleet = read(
        &answers(&[UP, (Question::Crashes, &[], f64::NAN)]),
        &terms(),
        None,
    );
    assert!(fleet.problems[0].contains("NaN"), "{fleet:?}");
    let mut nameless = answers(&[UP]);
    nameless.get_mut(&Question::Up).unwrap()[0].labels.clear();
    let fleet = read(&nameless, &terms(), None);
    assert!(fleet.problems[0].contains("instance"), "{fleet:?}");
}

fn questions() -> Vec<Question> {
    [&Question::FIRST[..], &Question::SILENT[..]].concat()
}

proptest! {
    /// Whatever else is known about a host, a recorded crash makes it crashed, and one that
    /// is not up and fresh is never soaked.
    #[test]
    fn never_well_without_a_sign_of_life(
        rows in prop::collection::vec(
            (prop::sample::select(questions()), prop::sample::select(vec![0.0, 1.0, NOW, NOW - 4000.0])),
            1..12,
        )
    ) {
        let rows: Vec<Row<'_>> = rows.iter().map(|(question, value)| (*question, &[][..], *value)).collect();
        let answers = answers(&rows);
        let fleet = read(&answers, &terms(), None);
        let known = answers.keys().any(|question| !question.is_past());
        prop_assert_eq!(fleet.hosts.len(), usize::from(known));
        prop_assume!(known);
        let first = |question: Question| answers.get(&question).map(|series| series[0].value);
        let state = &fleet.hosts[0].state;
        if first(Question::Crashes).is_some_and(|count| count > 0.0)
            || first(Question::Signals).is_some()
        {
            prop_assert!(matches!(state, State::Crashed(_)));
        }
        let up = first(Question::Up).is_some_and(|up| up > 0.0);
        let fresh = first(Question::Scraped).is_some_and(|scraped| scraped > NOW - 120.0);
        if !up || !fresh {
            prop_assert!(
                matches!(state, State::Crashed(_) | State::Silent { .. } | State::Missing(_)),
                "{:?}", state
            );
        }
        if *state == State::Without {
            prop_assert!(first(Question::SysfsRead).is_some_and(|read| read > 0.0));
        }
        if *state == State::Soaked {
            prop_assert_eq!(first(Question::Crashes), Some(0.0));
        }
    }
}
