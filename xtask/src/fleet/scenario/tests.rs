use proptest::prelude::*;

use super::*;

fn plan(hosts: usize) -> Plan {
    Plan {
        hosts,
        seed: 1,
        interval: 15.0,
        stuck_ratio: 0.01,
    }
}

#[test]
fn a_host_is_patched_crashes_and_comes_back() {
    let mut timeline = Timeline::default();
    timeline.add(10.0, Event::Patch { takes: 5.0 }).unwrap();
    timeline.add(20.0, Event::Crash).unwrap();
    timeline.add(30.0, Event::Reboot).unwrap();
    assert_eq!(timeline.at(9.9), Condition::Unpatched);
    assert_eq!(timeline.at(12.0), Condition::Transition { began: 10.0 });
    assert_eq!(
        timeline.at(16.0),
        Condition::Patched {
            began: 10.0,
            completed: 15.0
        }
    );
    let during = Phase::Soak;
    assert_eq!(
        timeline.at(29.0),
        Condition::Down {
            since: 20.0,
            during
        }
    );
    assert_eq!(timeline.at(31.0), Condition::Crashed { at: 20.0, during });
    assert!(timeline.monitor_start(29.0) < 0.0);
    assert_eq!(timeline.monitor_start(31.0).to_bits(), 30.0_f64.to_bits());
}

#[test]
fn a_transition_is_stuck_from_an_age_on_until_it_finishes() {
    let mut timeline = Timeline::default();
    let takes = f64::INFINITY;
    timeline.add(0.0, Event::Patch { takes }).unwrap();
    assert!(!timeline.at(14.0).is_stuck(14.0));
    assert!(timeline.at(15.0).is_stuck(15.0));
    timeline.add(40.0, Event::Finish).unwrap();
    assert_eq!(
        timeline.at(40.0),
        Condition::Patched {
            began: 0.0,
            completed: 40.0
        }
    );
}

#[test]
fn what_cannot_happen_is_refused_in_words() {
    let mut timeline = Timeline::default();
    let refused =
        |timeline: &mut Timeline, at, event| timeline.add(at, event).unwrap_err().to_string();
    assert!(refused(&mut timeline, 1.0, Event::Crash).contains("unpatched"));
    timeline.add(2.0, Event::Patch { takes: 3.0 }).unwrap();
    assert!(refused(&mut timeline, 3.0, Event::Patch { takes: 3.0 }).contains("in transition"));
    assert!(refused(&mut timeline, 9.0, Event::Finish).contains("patched"));
    assert!(refused(&mut timeline, 5.0 + SOAK, Event::Crash).contains("soak only"));
    timeline.add(9.0, Event::Crash).unwrap();
    assert!(refused(&mut timeline, 9.0, Event::Patch { takes: 3.0 }).contains("down"));
    assert!(refused(&mut timeline, 8.0, Event::Reboot).contains("later"));
}

#[test]
fn the_rollout_has_what_is_measured() {
    let plan = plan(1_000);
    let scenario = plan.scenario();
    let at = |now: f64| {
        let mut counts = [0; 5];
        for timeline in &scenario.timelines {
            let index = match timeline.at(now) {
                Condition::Unpatched => 0,
                Condition::Transition { .. } => 1,
                Condition::Patched { .. } => 2,
                Condition::Down { .. } => 3,
                Condition::Crashed { .. } => 4,
            };
            counts[index] += 1;
        }
        counts
    };
    let [unpatched, _, patched, down, crashed] = at(0.0);
    assert!(patched > 100 && unpatched >= 880, "{patched} {unpatched}");
    assert_eq!((down, crashed), (0, 0));
    assert_eq!(at(scenario.first_crash.1)[3], 1);
    assert_eq!(at(scenario.second_crash.1)[3], 2);
    assert_eq!(at(scenario.first_reboot)[3..], [1, 1]);
    // The rollout stops at the second crash: no host starts after it.
    let begun = |[unpatched, ..]: [usize; 5]| 1_000 - unpatched;
    assert_eq!(begun(at(scenario.second_crash.1)), begun(at(scenario.end)));
    assert!(begun(at(scenario.end)) > 400);
}

#[test]
fn those_that_crash_are_seen_in_transition_for_two_scrapes() {
    for hosts in [Plan::MIN_HOSTS, 200, 14_000] {
        let plan = plan(hosts);
        let scenario = plan.scenario();
        assert_ne!(scenario.first_crash.0, scenario.second_crash.0);
        for (host, crash) in [scenario.first_crash, scenario.second_crash] {
            let before = crash - 2.0 * plan.interval;
            let condition = scenario.timelines[host].at(before);
            assert!(
                matches!(condition, Condition::Transition { .. }),
                "{condition:?}"
            );
            assert_eq!(scenario.waves[host], 2);
        }
    }
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0.0..3_000.0).prop_map(|takes| Event::Patch { takes }),
        Just(Event::Finish),
        Just(Event::Crash),
        Just(Event::Reboot),
    ]
}

proptest! {
    /// Whatever events are tried, a timeline stays consistent, and an added event does not change
    /// the past.
    #[test]
    fn lives_make_sense(tries in proptest::collection::vec((0.0..900.0, events()), 0..30)) {
        let mut timeline = Timeline::default();
        let mut now = 0.0;
        for (wait, event) in tries {
            now += wait + 0.001;
            let before = timeline.at(now - 0.0005);
            let condition = timeline.at(now);
            let accepted = timeline.add(now, event).is_ok();
            prop_assert_eq!(timeline.at(now - 0.0005), before);
            prop_assert_eq!(accepted, timeline.at(now) != condition || event == Event::Reboot);
            match timeline.at(now) {
                Condition::Patched { began, completed } => {
                    prop_assert!(began <= completed && completed <= now);
                }
                Condition::Down { since, .. } => {
                    prop_assert!(since <= now);
                    let patch = timeline.clone().add(now, Event::Patch { takes: 1.0 });
                    prop_assert!(patch.is_err());
                }
                Condition::Crashed { at, .. } => prop_assert!(at < now),
                Condition::Transition { began } => prop_assert!(began <= now),
                Condition::Unpatched => {}
            }
        }
    }

    #[test]
    fn a_rollout_repeats_with_its_seed(seed in any::<u64>(), hosts in Plan::MIN_HOSTS..300) {
        let plan = Plan { seed, ..plan(hosts) };
        let (one, other) = (plan.scenario(), plan.scenario());
        prop_assert_eq!(&one.waves, &other.waves);
        prop_assert_eq!(one.first_crash.0, other.first_crash.0);
        let victims = [one.first_crash.0, one.second_crash.0];
        for (host, timeline) in one.timelines.iter().enumerate() {
            prop_assert_eq!(timeline.at(100.0), other.timelines[host].at(100.0));
            let down = matches!(timeline.at(one.second_crash.1), Condition::Down { .. });
            prop_assert_eq!(down, victims.contains(&host));
        }
    }
}
