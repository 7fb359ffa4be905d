//! How lost or partly read events are handled.

use super::*;

#[test]
fn lost_attempts_show_in_the_number() {
    let mut machine = Transitions::new();
    run(
        &mut machine,
        [to(0, Init, To), attempt(0, To, 0), attempt(34_000, To, 32)],
    );
    assert_eq!(
        machine.totals(),
        Totals {
            attempts: 33,
            signals: 2,
            ..Totals::default()
        }
    );
    // A number that is impossible in the elapsed time is ignored.
    run(&mut machine, [attempt(35_000, To, 4_000_000_000)]);
    assert_eq!(
        machine.totals(),
        Totals {
            attempts: 34,
            signals: 2,
            ..Totals::default()
        }
    );
}

#[test]
fn lost_events() {
    // The end of one and the start of the next.
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To)]);
    let effects = run(&mut machine, [of("q", attempt(5000, To, 3))]);
    let q = Some("q".to_owned());
    assert_eq!(
        effects,
        [
            unseen(To),
            Effect::Started {
                patch: q.clone(),
                direction: To,
                start: None
            }
        ]
    );
    // The end of that, and a start.
    let effects = run(&mut machine, [to(6000, Init, To)]);
    assert_eq!(
        effects,
        [
            Effect::EndUnseen {
                patch: q,
                direction: Some(To)
            },
            started(To, Some(6000))
        ]
    );
    // The reversal.
    run(&mut machine, [attempt(6000, To, 0)]);
    let effects = run(&mut machine, [attempt(9000, Back, 1)]);
    assert_eq!(effects, [ended(To, Reversed, None), reversed(Back, None)]);
    // The end, but not the freeing after it.
    assert_eq!(run(&mut machine, [event(9100, FreePatch)]), [unseen(Back)]);
    // The start and all attempts.
    assert_eq!(run(&mut machine, [to(9900, Complete, To)]), [unseen(To)]);
    assert_eq!(machine.totals().reversals, 1);
    // A cancel: no attempt was made, yet it ends in the other direction.
    let effects = run(
        &mut machine,
        [to(20_000, Init, To), to(20_010, Complete, Back)],
    );
    assert_eq!(
        effects,
        [
            started(To, Some(20_000)),
            load_failed(true),
            ended(To, Cancelled, ms(10))
        ]
    );
}

#[test]
fn names_and_directions_may_be_unknown() {
    let nameless = |event| KlpEvent {
        patch: None,
        ..event
    };
    let mut machine = Transitions::new();
    run(
        &mut machine,
        [nameless(to(0, Init, To)), nameless(event(1, Try))],
    );
    assert_eq!(machine.active().unwrap().attempts, Some(1));
    run(
        &mut machine,
        [nameless(event(500, EventKind::ForceTransition))],
    );
    assert_eq!(machine.forced("p"), None);
    assert!(
        machine
            .observe(at(600), &set([patch("p", true, true)]), Probes)
            .is_empty()
    );
    assert_eq!(machine.active().unwrap().patch, p());
    assert_eq!(machine.forced("p"), Some(true));
    let effects = run(&mut machine, [nameless(event(1000, Complete))]);
    assert_eq!(effects, [ended(To, Forced, ms(1000))]);
    // An attempt about which nothing is known does not imply a transition.
    assert_eq!(run(&mut machine, [nameless(event(9000, Try))]), []);
    assert_eq!(machine.totals().attempts, 2);
}

#[test]
fn time_that_runs_backwards_gives_no_duration() {
    for times in [[1000, 500, 2000], [1000, 1100, 900]] {
        let [begin, first, end] = times;
        let mut machine = Transitions::new();
        let effects = run(
            &mut machine,
            [
                to(begin, Init, To),
                attempt(first, To, 0),
                to(end, Complete, To),
            ],
        );
        assert_eq!(
            effects.last(),
            Some(&ended(To, Completed, None)),
            "{times:?}"
        );
    }
}

#[test]
fn a_nameless_attempt_answers_no_request() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To), attempt(1, To, 0)]);
    let nameless = KlpEvent {
        patch: None,
        ..attempt(1000, To, 1)
    };
    let effects = run(
        &mut machine,
        [
            of("q", event(900, Enable)),
            nameless,
            module_free(1100, "q"),
        ],
    );
    assert_eq!(
        effects,
        [Effect::LoadFailed {
            patch: Some("q".to_owned()),
            cancelled: false
        }]
    );
}

#[test]
fn a_cancel_can_only_end_in_one_way() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To), to(10, Cancel, To)]);
    // Its end and the start of the next were lost.
    let effects = run(&mut machine, [attempt(5000, To, 0)]);
    assert_eq!(effects, [ended(To, Cancelled, None), started(To, None)]);
    assert_eq!(machine.totals().load_failures, 1);
}

#[test]
fn a_start_soon_after_a_lost_end() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To), attempt(1, To, 0)]);
    let effects = run(&mut machine, [to(500, Init, Back)]);
    assert_eq!(effects, [unseen(To), started(Back, Some(500))]);
}

#[test]
fn when_nearly_all_is_lost_nothing_is_made_up() {
    // An end in the other direction is a cancel only if it comes soon.
    let mut machine = Transitions::new();
    let effects = run(&mut machine, [to(0, Init, To), to(39_000, Complete, Back)]);
    assert_eq!(effects, [started(To, Some(0)), unseen(To), unseen(Back)]);
    assert_eq!(machine.totals(), Totals::default());
    // A cancel after an attempt is that of another transition.
    run(&mut machine, [to(50_000, Init, To), attempt(50_001, To, 0)]);
    let effects = run(&mut machine, [to(60_000, Cancel, To)]);
    assert_eq!(effects, [unseen(To), started(To, None), load_failed(true)]);
}
