use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    crash::Signal,
    livepatch::{Direction, Outcome, transition::BootTime},
    recorder::note::{LoadedPatch, Note, ReplacedFunction},
};

pub(crate) fn noted(second: u64, note: Note) -> Noted {
    Noted {
        time: BootTime::from_nanos(second * 1_000_000_000),
        unix_seconds: Some(1.8e9),
        note,
    }
}

/// A file with these notes, and where each frame ends.
fn file(notes: &[Noted]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = HEADER.to_vec();
    let mut ends = vec![bytes.len()];
    for noted in notes {
        bytes.extend(encode(noted).unwrap());
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn three() -> Vec<Noted> {
    let load = |second| {
        let patch = format!("fix_{second}");
        noted(second, Note::Load { patch })
    };
    (1..=3).map(load).collect()
}

#[test]
fn a_write_torn_anywhere_costs_itself_only() {
    let notes = three();
    let (bytes, ends) = file(&notes);
    for cut in 0..=bytes.len() {
        let decoded = decode(&bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(
            decoded.notes,
            notes[..whole.saturating_sub(1)],
            "cut at {cut}"
        );
        assert_eq!(decoded.good + decoded.torn, cut);
        assert_eq!(decoded.damaged, 0);
    }
}

#[test]
fn a_flipped_bit_costs_its_note_only() {
    let notes = three();
    let (bytes, ends) = file(&notes);
    for at in ends[1]..ends[2] {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let decoded = decode(&bytes).unwrap();
            let others = [notes[0].clone(), notes[2].clone()];
            assert_eq!(decoded.notes, others, "bit {bit} of byte {at}");
            assert_eq!((decoded.damaged, decoded.torn), (1, 0));
        }
    }
}

#[test]
fn strangers_and_newer_versions_are_refused() {
    assert_eq!(decode(b"#!/bin/sh\nexit 0\n"), Err(FrameError::Foreign));
    let mut newer = HEADER;
    newer[8] = 9;
    assert_eq!(decode(&newer), Err(FrameError::Newer(9)));
    assert_eq!(decode(b"").unwrap(), Decoded::default());
}

#[test]
fn a_note_that_is_too_long_is_refused() {
    let patch = "x".repeat(MAX_CONTENT);
    let long = encode(&noted(1, Note::Load { patch }));
    assert!(matches!(long, Err(FrameError::Long(_))), "{long:?}");
}

fn name() -> impl Strategy<Value = String> {
    "[ -~\u{e9}\u{0}\n]{0,60}"
}

pub(crate) fn any_note() -> impl Strategy<Value = Note> {
    let direction = prop_oneof![Just(Direction::Patch), Just(Direction::Unpatch)];
    let outcome = prop::option::of(prop::sample::select(Outcome::ALL.to_vec()));
    let start = prop::option::of(any::<u64>().prop_map(BootTime::from_nanos));
    let functions = vec(
        (name(), name()).prop_map(|(object, function)| ReplacedFunction { object, function }),
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
        (name(), name()).prop_map(|(boot_id, release)| Note::Boot { boot_id, release }),
        Just(Note::Watching),
        Just(Note::Stopped),
        vec(patch, 0..3).prop_map(|patches| Note::Patches { patches }),
        name().prop_map(|patch| Note::Load { patch }),
        name().prop_map(|patch| Note::Loaded { patch }),
        (prop::option::of(name()), direction.clone(), start).prop_map(
            |(patch, direction, start)| Note::Transition {
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
            .prop_map(|(patch, direction, outcome, eighths)| Note::Ended {
                patch,
                direction,
                outcome,
                took_seconds: eighths.map(|eighths| f64::from(eighths) / 8.0),
            }),
        (prop::sample::select(Signal::ALL.to_vec()), name())
            .prop_map(|(signal, headline)| Note::Signal { signal, headline }),
    ]
}

proptest! {
    #[test]
    fn notes_come_back_as_they_were(notes in vec((any::<u32>(), any_note()), 0..12)) {
        let notes: Vec<Noted> = notes
            .into_iter()
            .map(|(second, note)| noted(u64::from(second), note))
            .collect();
        let (bytes, _) = file(&notes);
        let decoded = decode(&bytes).unwrap();
        prop_assert_eq!(decoded.notes, notes);
        prop_assert_eq!((decoded.damaged, decoded.torn, decoded.good), (0, 0, bytes.len()));
    }

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..600), behind in any::<bool>()) {
        let bytes = if behind { [HEADER.to_vec(), bytes].concat() } else { bytes };
        if let Ok(decoded) = decode(&bytes) {
            prop_assert_eq!(decoded.good + decoded.torn, bytes.len());
        }
    }
}
