//! Journal entries for the tests of this package and of the monitor.

use proptest::{collection::vec, prelude::*};

use super::entry::{Entry, LoadedPatch, Saved, TimedEntry};
use crate::function_ref::FunctionRef;
use crate::{
    crash::Signal,
    transition::{BootTime, Direction, Outcome, SavedState, Transition},
};

/// The entry at this second of the boot.
#[must_use]
pub fn recorded(second: u64, entry: Entry) -> TimedEntry {
    TimedEntry {
        time: BootTime::from_nanos(second * 1_000_000_000),
        unix_seconds: Some(1.8e9),
        entry,
    }
}

fn name() -> impl Strategy<Value = String> {
    "[ -~\u{e9}\u{0}\n]{0,60}"
}

/// Any state that outlives a restart.
pub fn any_saved() -> impl Strategy<Value = Saved> {
    let time = || any::<u64>().prop_map(BootTime::from_nanos);
    let times = || prop::collection::btree_map(name(), time(), 0..4);
    let running = (
        prop::option::of(name()),
        prop::sample::select(Direction::ALL.to_vec()),
        prop::option::of(time()),
        prop::option::of(any::<u32>()),
        any::<(bool, bool)>(),
    );
    let running = running.prop_map(|(patch, direction, start, attempts, flags)| Transition {
        start,
        attempts,
        forced: flags.0,
        cancelling: flags.1,
        ..Transition::new(patch, direction)
    });
    let eighths = prop::option::of(any::<u32>());
    (eighths, prop::option::of(running), times(), times()).prop_map(
        |(eighths, active, forced, watched)| Saved {
            start_unix_seconds: eighths.map(|eighths| f64::from(eighths) / 8.0),
            transitions: SavedState {
                active,
                forced,
                watched,
            },
        },
    )
}

/// Any entry at all.
pub fn any_entry() -> impl Strategy<Value = Entry> {
    let direction = prop_oneof![Just(Direction::Patch), Just(Direction::Unpatch)];
    let outcome = prop::option::of(prop::sample::select(Outcome::ALL.to_vec()));
    let start = prop::option::of(any::<u64>().prop_map(BootTime::from_nanos));
    let functions = vec(
        (name(), name()).prop_map(|(object, function)| FunctionRef { object, function }),
        0..4,
    );
    let patch = (name(), prop::option::of(any::<bool>()), functions).prop_map(
        |(name, enabled, functions)| LoadedPatch {
            name,
            enabled,
            srcversion: None,
            functions,
        },
    );
    prop_oneof![
        (name(), name()).prop_map(|(boot_id, release)| Entry::Boot { boot_id, release }),
        Just(Entry::Watching),
        Just(Entry::Stopped),
        vec(patch, 0..3).prop_map(|patches| Entry::Patches { patches }),
        name().prop_map(|patch| Entry::Load { patch }),
        name().prop_map(|patch| Entry::Loaded { patch }),
        (prop::option::of(name()), direction.clone(), start).prop_map(
            |(patch, direction, start)| Entry::Transition {
                patch,
                direction,
                start
            }
        ),
        (
            prop::option::of(name()),
            prop::option::of(direction),
            outcome,
            prop::option::of(0_u32..100_000)
        )
            .prop_map(|(patch, direction, outcome, eighths)| Entry::Ended {
                patch,
                direction,
                outcome,
                took_seconds: eighths.map(|eighths| f64::from(eighths) / 8.0),
            }),
        (prop::sample::select(Signal::ALL.to_vec()), name())
            .prop_map(|(signal, headline)| Entry::Signal { signal, headline }),
        any_saved().prop_map(Entry::State),
    ]
}
