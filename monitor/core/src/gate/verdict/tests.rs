use proptest::prelude::*;

use super::{reasons::share, *};
use crate::gate::hosts::{Cause, Fact, Host, Missing, Seen};

const LIMITS: Limits = Limits {
    max_crashed: 0,
    max_stuck_ratio: 0.02,
    min_hosts: 1,
    max_missing: 0,
    next: None,
    max_risk: None,
};

const ASKED: Asked<'_> = Asked {
    patch: "fix",
    hosts: r#"job="livepatch-monitor""#,
    warnings: &[],
    known_patches: &[],
    expected: None,
};

fn fleet(states: &[State]) -> Fleet {
    let hosts = states.iter().enumerate().map(|(number, state)| Fact {
        host: Host {
            instance: format!("h{number}:9969"),
            job: "livepatch-monitor".to_owned(),
        },
        state: state.clone(),
        forced: false,
    });
    Fleet {
        hosts: hosts.collect(),
        problems: Vec::new(),
    }
}

fn decided(states: &[State]) -> Decision {
    decide(&fleet(states), &LIMITS, &ASKED)
}

fn kinds(reasons: &[Reason]) -> Vec<Kind> {
    reasons.iter().map(|reason| reason.kind).collect()
}

fn crashed() -> State {
    State::Crashed(vec![Cause::Crash {
        count: 1.0,
        last: Some(1_795_435_857.9),
    }])
}

fn transition(stuck_tasks: f64) -> State {
    State::InTransition {
        direction: "patch".to_owned(),
        stuck_tasks,
    }
}

#[test]
fn all_well() {
    let decision = decided(&[State::Soaked, State::Without, State::Disabled]);
    assert_eq!(decision.verdict, Verdict::GoOn);
    assert!(decision.reasons.is_empty() && decision.notices.is_empty());
    assert_eq!(decision.counts.to_do, 2);
    assert_eq!(decision.risk, Risk::new(1, 0, 2, None, None));
}

#[test]
fn a_crash_holds_and_wins_over_what_is_not_known() {
    let decision = decided(&[State::Missing(Missing::Down { blip: false }), crashed()]);
    assert_eq!(decision.verdict, Verdict::Hold);
    let all = [Kind::Failed, Kind::Missing, Kind::TooFewSoaked];
    assert_eq!(kinds(&decision.reasons), all);
    let named = &decision.reasons[0].hosts;
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].host.instance, "h1:9969");
    assert!(named[0].detail.contains("2026-11-23T"), "{named:?}");
}

#[test]
fn a_silent_host_counts_as_failed() {
    for seen in [Seen::Enabled, Seen::InTransition("patch".to_owned())] {
        let decision = decided(&[State::Soaked, State::Silent { seen, blip: false }]);
        assert_eq!(decision.verdict, Verdict::Hold);
        assert_eq!(kinds(&decision.reasons), [Kind::Failed]);
        assert_eq!(decision.risk, Risk::new(2, 1, 0, None, None));
    }
}

#[test]
fn failures_that_are_allowed_are_named_all_the_same() {
    let limits = Limits {
        max_crashed: 1,
        ..LIMITS
    };
    let decision = decide(&fleet(&[State::Soaked, crashed()]), &limits, &ASKED);
    assert_eq!(decision.verdict, Verdict::GoOn);
    assert_eq!(kinds(&decision.notices), [Kind::Failed]);
}

#[test]
fn the_stuck_ratio_is_of_hosts_with_the_patch() {
    let mut states = vec![State::Soaked; 49];
    states.extend(vec![State::Without; 1000]);
    states.push(transition(2.0));
    let decision = decided(&states);
    assert_eq!(decision.verdict, Verdict::GoOn, "{:?}", decision.reasons);
    assert_eq!(kinds(&decision.notices), [Kind::Stuck]);
    states.pop();
    states[0] = transition(1.0);
    let decision = decided(&states);
    assert_eq!(decision.verdict, Verdict::Hold);
    assert_eq!(kinds(&decision.reasons), [Kind::Stuck]);
    assert_eq!(decision.reasons[0].hosts.len(), 1);
}

#[test]
fn a_transition_that_is_not_stuck_is_waited_for() {
    let decision = decided(&[transition(0.0)]);
    assert_eq!(decision.verdict, Verdict::CannotTell);
    assert_eq!(kinds(&decision.reasons), [Kind::TooFewSoaked]);
    assert!(decision.may_pass(false));
}

#[test]
fn soaking_says_how_long_yet() {
    let soaking = |left| State::Soaking { left };
    let limits = Limits {
        min_hosts: 3,
        ..LIMITS
    };
    let states = [soaking(250.1), State::Soaked, soaking(30.0), soaking(999.0)];
    let decision = decide(&fleet(&states), &limits, &ASKED);
    assert_eq!(decision.verdict, Verdict::CannotTell);
    assert_eq!(decision.next_soaked_in_seconds, Some(30.0));
    assert_eq!(decision.enough_soaked_in_seconds, Some(250.1));
    let text = &decision.reasons[0].text;
    assert!(text.contains("enough in 4m 11s"), "{text}");
    assert!(decision.may_pass(false));
    let limits = Limits {
        min_hosts: 5,
        ..LIMITS
    };
    let decision = decide(&fleet(&states), &limits, &ASKED);
    let text = &decision.reasons[0].text;
    assert!(text.contains("the next in 30s"), "{text}");
    // Only four are in progress; others may not have been scraped yet.
    assert!(decision.may_pass(true) && !decision.may_pass(false));
}

#[test]
fn missing_hosts_are_not_waited_for() {
    let decision = decided(&[State::Soaked, State::Missing(Missing::NoCrashCount)]);
    assert_eq!(decision.verdict, Verdict::CannotTell);
    assert!(!decision.may_pass(true));
    let limits = Limits {
        max_missing: 1,
        ..LIMITS
    };
    let states = [State::Soaked, State::Missing(Missing::Gone)];
    let decision = decide(&fleet(&states), &limits, &ASKED);
    assert_eq!(decision.verdict, Verdict::GoOn);
    assert_eq!(kinds(&decision.notices), [Kind::Missing]);
}

#[test]
fn a_blip_is_waited_for_until_every_host_is_scraped_again() {
    let stale = State::Missing(Missing::Stale {
        age: Some(40.0),
        interval: Some(15.0),
    });
    let silent = |blip| State::Silent {
        seen: Seen::Enabled,
        blip,
    };
    let down = |blip| State::Missing(Missing::Down { blip });
    for (state, verdict) in [
        (stale, Verdict::CannotTell),
        (down(true), Verdict::CannotTell),
        (silent(true), Verdict::Hold),
    ] {
        let decision = decided(&[State::Soaked, state.clone()]);
        assert_eq!(decision.verdict, verdict);
        assert!(decision.may_pass(true) && !decision.may_pass(false));
        for lasting in [crashed(), silent(false), down(false)] {
            let decision = decided(&[State::Soaked, state.clone(), lasting]);
            assert!(!decision.may_pass(true), "{decision:?}");
        }
    }
}

#[test]
fn a_number_of_expected_hosts() {
    let expected = Expected::Count(5);
    let asked = Asked {
        expected: Some(&expected),
        ..ASKED
    };
    let decision = |hosts: usize, max_missing| {
        let limits = Limits {
            max_missing,
            ..LIMITS
        };
        decide(&fleet(&vec![State::Soaked; hosts]), &limits, &asked)
    };
    assert_eq!(decision(5, 0).verdict, Verdict::GoOn);
    let missing = decision(3, 0);
    assert_eq!(missing.verdict, Verdict::CannotTell);
    assert_eq!(kinds(&missing.reasons), [Kind::Missing]);
    let text = &missing.reasons[0].text;
    assert!(text.contains("knows 3 hosts of the 5 expected"), "{text}");
    assert_eq!(decision(3, 1).verdict, Verdict::CannotTell);
    assert_eq!(decision(3, 2).verdict, Verdict::GoOn);
    assert_eq!(kinds(&decision(3, 2).notices), [Kind::Missing]);
}

#[test]
fn the_risk_of_the_next_hosts_holds() {
    let decision = |soaked: usize, soaking: usize, next, limit: &str| {
        let limits = Limits {
            next,
            max_risk: Some(limit.parse().unwrap()),
            ..LIMITS
        };
        let mut states = vec![State::Soaked; soaked];
        states.extend(vec![State::Soaking { left: 5.0 }; soaking]);
        states.extend(vec![State::Without; 10]);
        decide(&fleet(&states), &limits, &ASKED)
    };
    let hold = decision(1, 0, None, "1%");
    assert_eq!(hold.verdict, Verdict::Hold);
    assert_eq!(kinds(&hold.reasons), [Kind::Risk]);
    let text = &hold.reasons[0].text;
    let expected = "up to 10 of the next 10 hosts fail; 1 % allowed (--max-risk): 298 more must";
    assert!(text.contains(expected), "{text}");
    assert!(!hold.may_pass(true));
    // Those in progress are enough.
    assert!(decision(1, 298, None, "1%").may_pass(false));
    assert!(!decision(1, 297, None, "1%").may_pass(true));
    assert_eq!(decision(299, 0, None, "1%").verdict, Verdict::GoOn);
    // Lose at most three: one good host allows for three more.
    assert_eq!(decision(1, 0, Some(3), "3").verdict, Verdict::GoOn);
    assert_eq!(decision(1, 0, Some(4), "3").verdict, Verdict::Hold);
}

#[test]
fn nobody_there() {
    let decision = decided(&[]);
    assert_eq!(decision.verdict, Verdict::CannotTell);
    assert_eq!(kinds(&decision.reasons), [Kind::NoHosts]);
    assert!(!decision.may_pass(true));
}

#[test]
fn an_unknown_patch_is_answered_with_similar_names() {
    let known = ["other", "fix_1", "fix_2"].map(str::to_owned);
    let asked = Asked {
        patch: "fix-1",
        known_patches: &known,
        ..ASKED
    };
    let decision = decide(&fleet(&[State::Without]), &LIMITS, &asked);
    assert_eq!(decision.verdict, Verdict::CannotTell);
    let reason = &decision.reasons[0];
    assert_eq!(reason.kind, Kind::UnknownPatch);
    let names = r#""fix_1", "fix_2", "other""#;
    assert!(reason.text.ends_with(names), "{}", reason.text);
    assert!(decision.may_pass(true) && !decision.may_pass(false));
}

#[test]
fn partial_and_bad_answers_are_never_go_on() {
    let warnings = ["store 2 timed out".to_owned()];
    let asked = Asked {
        warnings: &warnings,
        ..ASKED
    };
    let decision = decide(&fleet(&[State::Soaked]), &LIMITS, &asked);
    assert_eq!(decision.verdict, Verdict::CannotTell);
    assert_eq!(kinds(&decision.reasons), [Kind::Partial]);
    let mut broken = fleet(&[State::Soaked]);
    broken.problems.push("NaN".to_owned());
    let decision = decide(&broken, &LIMITS, &ASKED);
    assert_eq!(decision.verdict, Verdict::CannotTell);
    assert_eq!(kinds(&decision.reasons), [Kind::BadData]);
}

#[test]
fn forced_is_a_notice() {
    let mut forced = fleet(&[State::Soaked]);
    forced.hosts[0].forced = true;
    let decision = decide(&forced, &LIMITS, &ASKED);
    assert_eq!(decision.verdict, Verdict::GoOn);
    assert_eq!(kinds(&decision.notices), [Kind::Forced]);
}

#[test]
fn dates_out_of_range_are_none() {
    for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e300, 253_402_300_800.0] {
        assert_eq!(date(seconds), None);
    }
    assert_eq!(date(0.5).as_deref(), Some("1970-01-01T00:00:00Z"));
}

fn any_state() -> impl Strategy<Value = State> {
    prop::sample::select(vec![
        crashed(),
        State::Silent {
            seen: Seen::Enabled,
            blip: false,
        },
        State::Missing(Missing::Down { blip: false }),
        transition(0.0),
        transition(1.0),
        State::Soaked,
        State::Soaking { left: 5.0 },
        State::InForce,
        State::Disabled,
        State::Without,
    ])
}

proptest! {
    #[test]
    fn go_on_only_within_every_limit(
        states in prop::collection::vec(any_state(), 0..30),
        max_crashed in 0..3_usize,
        max_stuck_ratio in 0.0..1.0_f64,
        min_hosts in 1..5_usize,
        max_missing in 0..3_usize,
    ) {
        let limits = Limits { max_crashed, max_stuck_ratio, min_hosts, max_missing, next: None, max_risk: None };
        let decision = decide(&fleet(&states), &limits, &ASKED);
        let counts = decision.counts;
        let with_patch = counts.soaked + counts.soaking + counts.in_force + counts.in_transition;
        let failed = counts.crashed + counts.silent > max_crashed
            || share(counts.stuck, with_patch) > max_stuck_ratio;
        let unknown = counts.missing > max_missing || counts.soaked < min_hosts;
        let expected = match (failed, unknown) {
            (true, _) => Verdict::Hold,
            (false, true) => Verdict::CannotTell,
            (false, false) => Verdict::GoOn,
        };
        prop_assert_eq!(decision.verdict, expected);
        prop_assert_eq!(decision.reasons.is_empty(), expected == Verdict::GoOn);
        let all = with_patch + counts.crashed + counts.silent + counts.missing + counts.to_do;
        prop_assert_eq!(all, states.len());
    }
}
