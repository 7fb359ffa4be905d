//! The sequences that real kernels produce.

mod losses;
mod snapshots;

use super::*;
use crate::patch::{Patch, PatchSet};
use crate::transition::Outcome;
use EventKind::{
    CancelTransition as Cancel, CompleteTransition as Complete, EnablePatch as Enable, FreePatch,
    InitTransition as Init, ModuleFree, ReverseTransition as Reverse, TryCompleteTransition as Try,
};
use Watching::{Probes, Snapshots};

const MS: u64 = 1_000_000;

fn at(milliseconds: u64) -> BootTime {
    BootTime::from_nanos(milliseconds * MS)
}

fn ms(milliseconds: u64) -> Option<Duration> {
    Some(Duration::from_millis(milliseconds))
}

/// An event of patch `p` as the probes deliver it.
fn event(milliseconds: u64, kind: EventKind) -> KlpEvent {
    KlpEvent {
        time: at(milliseconds),
        kind,
        patch: Some("p".to_owned()),
        target: None,
        attempt: None,
        replace: Some(false),
        object: None,
    }
}

fn to(milliseconds: u64, kind: EventKind, target: Direction) -> KlpEvent {
    KlpEvent {
        target: Some(target),
        ..event(milliseconds, kind)
    }
}

fn attempt(milliseconds: u64, target: Direction, number: u32) -> KlpEvent {
    KlpEvent {
        attempt: Some(number),
        ..to(milliseconds, Try, target)
    }
}

fn of(patch: &str, event: KlpEvent) -> KlpEvent {
    KlpEvent {
        patch: Some(patch.to_owned()),
        ..event
    }
}

fn module_free(milliseconds: u64, module: &str) -> KlpEvent {
    // What the probe reads about the patch in transition says nothing about the module.
    KlpEvent {
        object: Some(module.to_owned()),
        ..event(milliseconds, ModuleFree)
    }
}

fn patch(name: &str, enabled: bool, transition: bool) -> Patch {
    Patch {
        name: name.to_owned(),
        enabled: Some(enabled),
        transition: Some(transition),
        ..Patch::default()
    }
}

fn set(patches: impl IntoIterator<Item = Patch>) -> PatchSet {
    PatchSet {
        supported: true,
        patches: patches.into_iter().collect(),
    }
}

fn run(machine: &mut Transitions, events: impl IntoIterator<Item = KlpEvent>) -> Vec<Effect> {
    events
        .into_iter()
        .flat_map(|event| machine.event(&event))
        .collect()
}

fn p() -> Option<String> {
    Some("p".to_owned())
}

fn started(direction: Direction, start: Option<u64>) -> Effect {
    Effect::Started {
        patch: p(),
        direction,
        start: start.map(at),
    }
}

fn reversed(direction: Direction, start: Option<u64>) -> Effect {
    Effect::Reversed {
        patch: p(),
        direction,
        start: start.map(at),
    }
}

fn ended(direction: Direction, outcome: Outcome, duration: Option<Duration>) -> Effect {
    Effect::Ended {
        patch: p(),
        direction,
        outcome,
        duration,
    }
}

fn unseen(direction: Direction) -> Effect {
    Effect::EndUnseen {
        patch: p(),
        direction: Some(direction),
    }
}

fn load_failed(cancelled: bool) -> Effect {
    Effect::LoadFailed {
        patch: p(),
        cancelled,
    }
}

use Direction::{Patch as To, Unpatch as Back};
use Outcome::{Cancelled, Completed, Forced, Reversed};

#[test]
fn enable_at_once() {
    let mut machine = Transitions::new();
    let effects = run(
        &mut machine,
        [
            event(10, Enable),
            to(12, Init, To),
            attempt(15, To, 0),
            to(16, Complete, To),
        ],
    );
    assert_eq!(
        effects,
        [started(To, Some(12)), ended(To, Completed, ms(4))]
    );
    assert_eq!(
        machine.totals(),
        Totals {
            attempts: 1,
            ..Totals::default()
        }
    );
    assert_eq!(machine.forced("p"), Some(false));
    assert_eq!(machine.forced("other"), None);
    // sysfs still shows it while the callbacks run; after that the patch is not in transition.
    assert!(
        machine
            .observe(at(20), &set([patch("p", true, true)]), Probes)
            .is_empty()
    );
    assert!(
        machine
            .observe(at(9000), &set([patch("p", true, false)]), Probes)
            .is_empty()
    );
    assert_eq!(machine.totals().load_failures, 0);
}

#[test]
fn stall_with_signals() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To)]);
    let mut signalled = Vec::new();
    for number in 0..=46 {
        for effect in machine.event(&attempt(1000 * u64::from(number), To, number)) {
            signalled.push((number, effect));
        }
    }
    // At the end of attempts 15, 30 and 45, and so known when the next begins.
    let expected = [(16, 1), (31, 2), (46, 3)]
        .map(|(number, rounds)| (number, Effect::Signalled { patch: p(), rounds }));
    assert_eq!(signalled, expected);
    assert_eq!(machine.totals().signals, 3);
    let active = machine.active().unwrap();
    assert_eq!((active.attempts, active.signals()), (Some(47), Some(3)));
    assert_eq!(active.age(at(50_000)), ms(50_000));
    assert_eq!(machine.totals().attempts, 47);
}

#[test]
fn an_attempt_that_completes_sends_no_signal() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To)]);
    run(
        &mut machine,
        (0..=15).map(|n| attempt(1000 * u64::from(n), To, n)),
    );
    let effects = run(&mut machine, [to(15_000, Complete, To)]);
    assert_eq!(effects, [ended(To, Completed, ms(15_000))]);
    assert_eq!(machine.totals().signals, 0);
}

#[test]
fn reverse() {
    let mut machine = Transitions::new();
    run(
        &mut machine,
        [to(0, Init, To), attempt(0, To, 0), attempt(1000, To, 1)],
    );
    let reverse = KlpEvent {
        attempt: Some(2),
        ..to(1500, Reverse, To)
    };
    assert_eq!(
        run(&mut machine, [reverse]),
        [ended(To, Reversed, ms(1500)), reversed(Back, Some(1500))]
    );
    assert_eq!(machine.active().unwrap().attempts, Some(0));
    let effects = run(
        &mut machine,
        [
            attempt(2000, Back, 0),
            to(2100, Complete, Back),
            event(2110, FreePatch),
        ],
    );
    assert_eq!(effects, [ended(Back, Completed, ms(600))]);
    assert_eq!(
        machine.totals(),
        Totals {
            attempts: 3,
            reversals: 1,
            ..Totals::default()
        }
    );
    assert_eq!(machine.forced("p"), None, "freed");
}

#[test]
fn the_last_attempt_before_a_reversal_has_signalled() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To)]);
    run(
        &mut machine,
        (0..=15).map(|n| attempt(1000 * u64::from(n), To, n)),
    );
    run(
        &mut machine,
        [KlpEvent {
            attempt: Some(16),
            ..to(15_500, Reverse, To)
        }],
    );
    assert_eq!(machine.totals().signals, 1);
}

#[test]
fn force() {
    let mut machine = Transitions::new();
    let force = KlpEvent {
        attempt: Some(1),
        ..to(500, EventKind::ForceTransition, To)
    };
    let effects = run(
        &mut machine,
        [
            to(0, Init, To),
            attempt(0, To, 0),
            force,
            attempt(1000, To, 1),
            to(1001, Complete, To),
        ],
    );
    assert_eq!(
        effects,
        [
            started(To, Some(0)),
            Effect::Forced { patch: p() },
            ended(To, Forced, ms(1001))
        ]
    );
    assert_eq!(machine.totals().forces, 1);
    assert_eq!(machine.forced("p"), Some(true));
    // It stays so as long as the patch is loaded.
    machine.observe(at(60_000), &set([patch("p", true, false)]), Probes);
    assert_eq!(machine.forced("p"), Some(true));
    assert_eq!(Transitions::restore(machine.save()).forced("p"), Some(true));
    machine.observe(at(61_000), &set([]), Probes);
    assert_eq!(machine.forced("p"), None);
}

#[test]
fn cancel_counts_once() {
    let mut machine = Transitions::new();
    let effects = run(
        &mut machine,
        [
            event(0, Enable),
            to(10, Init, To),
            to(30, Cancel, To),
            // klp_cancel_transition has set the target by now.
            to(31, Complete, Back),
            module_free(40, "p"),
        ],
    );
    assert_eq!(
        effects,
        [
            started(To, Some(10)),
            load_failed(true),
            ended(To, Cancelled, ms(21))
        ]
    );
    assert_eq!(
        machine.totals(),
        Totals {
            load_failures: 1,
            ..Totals::default()
        }
    );
    assert!(machine.observe(at(9000), &set([]), Probes).is_empty());
}

#[test]
fn disable() {
    let mut machine = Transitions::new();
    let effects = run(
        &mut machine,
        [
            to(0, Init, Back),
            attempt(1, Back, 0),
            attempt(1000, Back, 1),
            to(1001, Complete, Back),
            event(1002, FreePatch),
            module_free(5000, "p"),
        ],
    );
    assert_eq!(
        effects,
        [started(Back, Some(0)), ended(Back, Completed, ms(1001))]
    );
    assert_eq!(
        machine.totals(),
        Totals {
            attempts: 2,
            ..Totals::default()
        }
    );
}

#[test]
fn replace() {
    let mut machine = Transitions::new();
    run(
        &mut machine,
        [to(0, Init, To), attempt(1, To, 0), to(2, Complete, To)],
    );
    let replacing = |event| {
        of(
            "q",
            KlpEvent {
                replace: Some(true),
                ..event
            },
        )
    };
    run(
        &mut machine,
        [
            replacing(event(100, Enable)),
            replacing(to(101, Init, To)),
            replacing(attempt(102, To, 0)),
            replacing(to(103, Complete, To)),
            event(104, FreePatch),
        ],
    );
    assert_eq!(
        (machine.forced("p"), machine.forced("q")),
        (None, Some(false))
    );
    assert_eq!(machine.active(), None);
    assert_eq!(
        machine.totals(),
        Totals {
            attempts: 2,
            ..Totals::default()
        }
    );
}

#[test]
fn refused_while_another_runs() {
    let mut machine = Transitions::new();
    run(&mut machine, [to(0, Init, To), attempt(1, To, 0)]);
    let effects = run(
        &mut machine,
        [of("q", event(500, Enable)), module_free(510, "q")],
    );
    let failed = Effect::LoadFailed {
        patch: Some("q".to_owned()),
        cancelled: false,
    };
    assert_eq!(effects, std::slice::from_ref(&failed));
    // Tried again: the first time failed, whether or not its end was seen.
    assert_eq!(run(&mut machine, [of("q", event(1500, Enable))]), []);
    assert_eq!(run(&mut machine, [of("q", event(2500, Enable))]), [failed]);
    assert_eq!(machine.totals().load_failures, 2);
    assert_eq!(machine.active().unwrap().patch, p());
    // Any other module may come and go.
    assert_eq!(run(&mut machine, [module_free(3000, "nf_tables")]), []);
}

#[test]
fn the_next_signals_are_those_of_the_kernel() {
    // 15 attempts have failed before the attempt that signals (klp_signals_cnt).
    for (attempts, next) in [(0, 16), (1, 16), (15, 16), (16, 31), (30, 31), (31, 46)] {
        assert_eq!(next_signals(attempts), next, "{attempts}");
        assert!(rounds(next) > rounds(attempts), "{attempts}");
    }
    assert_eq!(next_signals(u32::MAX), u32::MAX);
}
