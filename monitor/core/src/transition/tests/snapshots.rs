//! Snapshots beside events, instead of them, and after a restart.

use super::*;

#[test]
fn refused_without_the_module_free_probe() {
    let mut machine = Transitions::new();
    run(&mut machine, [event(500, Enable)]);
    assert!(
        machine.observe(at(1000), &set([]), Probes).is_empty(),
        "may still come"
    );
    assert_eq!(
        machine.observe(at(2600), &set([]), Probes),
        [load_failed(false)]
    );
    assert!(machine.observe(at(9000), &set([]), Probes).is_empty());
    // A start that was lost, but whose patch is there, is not a failure.
    run(&mut machine, [event(10_000, Enable)]);
    assert!(
        machine
            .observe(at(13_000), &set([patch("p", true, false)]), Probes)
            .is_empty()
    );
    assert!(machine.observe(at(16_000), &set([]), Probes).is_empty());
    assert_eq!(machine.totals().load_failures, 1);
}

/// The first attempt's event is read after the snapshot that showed the transition, and after the
/// log gave its start.
#[test]
fn an_event_from_before_the_adoption_leaves_the_start_alone() {
    let mut machine = Transitions::new();
    machine.observe(at(5000), &set([patch("p", true, true)]), Probes);
    assert!(machine.started_at("p", at(1000)));
    // A busy machine reads it seconds late.
    run(&mut machine, [attempt(1200, To, 1), attempt(4990, To, 3)]);
    assert_eq!(machine.active().unwrap().start, Some(at(1000)));
    let effects = run(&mut machine, [attempt(6000, To, 4), to(7000, Complete, To)]);
    assert_eq!(effects, [ended(To, Completed, ms(6000))]);
}

#[test]
fn restart_in_mid_transition() {
    let mut machine = Transitions::new();
    run(
        &mut machine,
        [to(100, Init, To), attempt(101, To, 0), attempt(1000, To, 1)],
    );
    let saved: SavedState =
        serde_json::from_str(&serde_json::to_string(&machine.save()).unwrap()).unwrap();
    assert_eq!(saved, machine.save());

    // It still runs: the same start.
    let mut next = Transitions::restore(saved.clone());
    assert!(
        next.observe(at(5000), &set([patch("p", true, true)]), Probes)
            .is_empty()
    );
    assert_eq!(next.active().unwrap().start, Some(at(100)));
    let effects = run(&mut next, [attempt(6000, To, 17), to(6001, Complete, To)]);
    assert_eq!(effects, [ended(To, Completed, ms(5901))]);
    // What happened between the two processes is neither's to count.
    assert_eq!(
        next.totals(),
        Totals {
            attempts: 1,
            ..Totals::default()
        }
    );
    assert_eq!(next.forced("p"), Some(false));

    // It has ended meanwhile, or another runs, or its way back.
    let mut next = Transitions::restore(saved.clone());
    let effects = next.observe(at(5000), &set([patch("p", true, false)]), Probes);
    assert_eq!(effects, [unseen(To)]);
    assert_eq!(next.forced("p"), None, "it may have been forced unseen");
    let mut next = Transitions::restore(saved.clone());
    let effects = next.observe(at(5000), &set([patch("p", false, true)]), Probes);
    assert_eq!(effects, [unseen(To), started(Back, None)]);
    let mut next = Transitions::restore(saved.clone());
    let effects = run(&mut next, [attempt(5000, Back, 20)]);
    assert_eq!(effects, [unseen(To), started(Back, None)]);
    // The number of attempts shows that it is another one.
    let mut next = Transitions::restore(saved);
    let effects = run(&mut next, [attempt(5000, To, 1)]);
    assert_eq!(effects, [unseen(To), started(To, None)]);
}

#[test]
fn found_under_way() {
    let mut machine = Transitions::new();
    let effects = machine.observe(at(5000), &set([patch("p", true, true)]), Probes);
    assert_eq!(effects, [started(To, None)]);
    assert!(!machine.started_at("q", at(1000)));
    assert!(machine.started_at("p", at(1000)));
    assert!(!machine.started_at("p", at(2000)), "known by now");
    // The signals before were not this process's to see.
    run(&mut machine, [attempt(5500, To, 40)]);
    assert_eq!(
        machine.totals(),
        Totals {
            attempts: 1,
            ..Totals::default()
        }
    );
    assert_eq!(machine.active().unwrap().signals(), Some(2));
    let effects = run(&mut machine, [to(6000, Complete, To)]);
    assert_eq!(effects, [ended(To, Completed, ms(5000))]);
    assert_eq!(machine.forced("p"), None);
}

#[test]
fn a_snapshot_overtakes_the_start() {
    let mut machine = Transitions::new();
    machine.observe(at(0), &set([]), Probes);
    // Callbacks run: `enabled` is not set yet.
    let effects = machine.observe(at(1005), &set([patch("p", false, true)]), Probes);
    assert_eq!(effects, [started(To, None)]);
    let effects = run(
        &mut machine,
        [
            event(999, Enable),
            to(1000, Init, To),
            attempt(1100, To, 0),
            to(1101, Complete, To),
        ],
    );
    assert_eq!(effects, [ended(To, Completed, ms(101))]);
    assert_eq!(machine.forced("p"), Some(false));
}

#[test]
fn a_start_soon_after_an_end_is_shown_at_once() {
    let rest = set([patch("p", true, false)]);
    let back = set([patch("p", false, true)]);
    let mut machine = Transitions::new();
    run(&mut machine, [to(1000, Init, To), to(2000, Complete, To)]);
    // Until it is shown at rest it may be the end of the first one.
    assert!(machine.observe(at(2100), &back, Probes).is_empty());
    machine.observe(at(2500), &rest, Probes);
    let effects = machine.observe(at(3000), &back, Probes);
    assert_eq!(effects, [started(Back, None)]);
    // The event comes with the second attempt.
    run(
        &mut machine,
        [
            to(2900, Init, Back),
            attempt(2901, Back, 0),
            attempt(3950, Back, 1),
        ],
    );
    let effects = run(&mut machine, [to(3960, Complete, Back)]);
    assert_eq!(effects, [ended(Back, Completed, ms(1060))]);
    // A look from before the end proves nothing.
    machine.observe(at(3900), &set([patch("p", false, false)]), Probes);
    assert!(machine.observe(at(4000), &back, Probes).is_empty());
}

#[test]
fn a_snapshot_does_not_close_what_events_may_still_end() {
    let rest = set([patch("p", true, false)]);
    let mut machine = Transitions::new();
    run(&mut machine, [to(1000, Init, To)]);
    // Older than the start; then newer than an end whose event is on its way.
    assert!(machine.observe(at(999), &set([]), Probes).is_empty());
    assert!(machine.observe(at(3000), &rest, Probes).is_empty());
    let effects = run(&mut machine, [to(2999, Complete, To)]);
    assert_eq!(effects, [ended(To, Completed, ms(1999))]);
    // An end that was lost.
    run(&mut machine, [to(10_000, Init, Back)]);
    assert!(machine.observe(at(11_000), &set([]), Probes).is_empty());
    assert_eq!(
        machine.observe(at(13_000), &set([]), Probes),
        [unseen(Back)]
    );
}

#[test]
fn snapshots_alone() {
    let mut machine = Transitions::new();
    let mut look = |time, patches: &[Patch]| {
        machine.observe(at(time), &set(patches.iter().cloned()), Snapshots)
    };
    assert_eq!(look(0, &[]), []);
    assert_eq!(
        look(1000, &[patch("p", true, true)]),
        [started(To, Some(1000))]
    );
    assert_eq!(look(2000, &[patch("p", true, true)]), []);
    assert_eq!(
        look(3000, &[patch("p", false, true)]),
        [ended(To, Reversed, ms(2000)), reversed(Back, Some(3000))]
    );
    assert_eq!(look(4000, &[]), [ended(Back, Completed, ms(1000))]);
    // The whole transition between two snapshots.
    assert_eq!(
        look(5000, &[patch("p", true, false)]),
        [started(To, None), ended(To, Completed, None)]
    );
    assert_eq!(
        look(6000, &[]),
        [started(Back, None), ended(Back, Completed, None)]
    );
    assert_eq!(look(7000, &[]), []);
    // Seen before `enabled` was set, which is not a reversal.
    assert_eq!(
        look(8000, &[patch("p", false, true)]),
        [started(To, Some(8000))]
    );
    assert_eq!(look(9000, &[patch("p", true, true)]), []);
    // The machine slept: when it ended is not known.
    assert_eq!(
        look(90_000, &[patch("p", true, false)]),
        [ended(To, Completed, None)]
    );
    // Replaced between two looks: no transition of its own.
    let q = Some("q".to_owned());
    let effects = look(91_000, &[patch("q", true, false)]);
    assert!(effects.iter().all(|effect| matches!(
        effect,
        Effect::Started { patch, .. } | Effect::Ended { patch, .. } if *patch == q
    )));
    assert_eq!(
        machine.totals(),
        Totals {
            reversals: 1,
            ..Totals::default()
        }
    );
    assert_eq!(machine.forced("p"), None);
}

#[test]
fn snapshots_alone_say_no_more_than_they_show() {
    let mut machine = Transitions::new();
    let mut look = |time, patches: &[Patch]| {
        machine.observe(at(time), &set(patches.iter().cloned()), Snapshots)
    };
    // Under way at the first look.
    assert_eq!(look(0, &[patch("p", true, true)]), [started(To, None)]);
    // Gone: reversed, or completed and disabled; not known which.
    assert_eq!(look(1000, &[]), [unseen(To)]);
    // The last look was long ago: begun at any time since.
    assert_eq!(look(60_000, &[patch("q", true, true)]).len(), 1);
    assert_eq!(look(61_000, &[patch("q", true, true)]), []);
    assert_eq!(
        look(62_000, &[patch("q", true, false)]),
        [Effect::Ended {
            patch: Some("q".to_owned()),
            direction: To,
            outcome: Completed,
            duration: None
        }]
    );
    let unreadable = PatchSet {
        supported: false,
        ..set([patch("p", true, true)])
    };
    assert!(machine.observe(at(2000), &unreadable, Snapshots).is_empty());
    assert_eq!(machine.active(), None);
}

#[test]
fn callbacks_before_the_first_attempt_may_take_long() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, Back)]);
    for second in 1..10 {
        let set = set([patch("p", true, true)]);
        assert!(machine.observe(at(1000 * second), &set, Probes).is_empty());
    }
    // Once there was an attempt, `enabled` means what it says.
    run(
        &mut machine,
        [KlpEvent {
            target: None,
            ..attempt(10_000, Back, 0)
        }],
    );
    let flipped = set([patch("p", true, true)]);
    assert!(machine.observe(at(11_000), &flipped, Probes).is_empty());
    // Attempts that do not show the direction do not change that.
    let blind = KlpEvent {
        target: None,
        ..attempt(12_000, Back, 1)
    };
    assert_eq!(run(&mut machine, [blind]), []);
    let effects = machine.observe(at(13_000), &flipped, Probes);
    assert_eq!(effects, [ended(Back, Reversed, None), reversed(To, None)]);
}

#[test]
fn an_old_snapshot_forgets_nothing() {
    let mut machine = Transitions::new();
    run(
        &mut machine,
        [
            to(1000, Init, To),
            attempt(1001, To, 0),
            to(1002, Complete, To),
        ],
    );
    machine.observe(at(999), &set([]), Probes);
    assert_eq!(machine.forced("p"), Some(false));
}

/// On a busy host the events are read seconds after the snapshots that show what they report.
#[test]
fn a_turn_whose_event_is_read_late_is_counted_once() {
    let mut transitions = Transitions::new();
    transitions.event(&to(0, Init, Direction::Patch));
    transitions.event(&attempt(10, Direction::Patch, 0));
    for time in [5000, 7100] {
        transitions.observe(at(time), &set([patch("p", false, true)]), Probes);
    }
    assert_eq!(transitions.totals().reversals, 1);
    transitions.event(&attempt(1010, Direction::Patch, 1));
    transitions.event(&to(1500, Reverse, Direction::Patch));
    transitions.event(&attempt(2500, Direction::Unpatch, 0));
    transitions.observe(at(7200), &set([patch("p", false, true)]), Probes);
    assert_eq!(transitions.totals().reversals, 1);
    assert_eq!(transitions.totals().attempts, 3);
    let active = transitions.active().unwrap();
    assert_eq!(active.direction, Direction::Unpatch);
    assert_eq!(active.start, Some(at(1500)));
    // The next one is another.
    transitions.event(&to(8000, Reverse, Direction::Unpatch));
    assert_eq!(transitions.totals().reversals, 2);
}

/// `enabled` is read a while after the snapshot has begun.
#[test]
fn a_turn_during_the_first_snapshot_that_shows_it_is_counted_once() {
    let mut transitions = Transitions::new();
    transitions.event(&to(0, Init, Direction::Patch));
    transitions.event(&attempt(10, Direction::Patch, 0));
    for time in [5000, 7100] {
        transitions.observe(at(time), &set([patch("p", false, true)]), Probes);
    }
    transitions.event(&to(5003, Reverse, Direction::Patch));
    transitions.event(&attempt(5004, Direction::Unpatch, 0));
    assert_eq!(transitions.totals().reversals, 1);
    let active = transitions.active().unwrap();
    assert_eq!(active.direction, Direction::Unpatch);
    assert_eq!(active.start, Some(at(5003)));
}
