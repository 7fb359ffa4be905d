use proptest::{collection::vec, prelude::*};

use super::*;
use crate::journal::{
    entry::Entry,
    testing::{any_entry, recorded},
};

/// A file with these entries, and where each frame ends.
fn file(entries: &[TimedEntry]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = HEADER.to_vec();
    let mut ends = vec![bytes.len()];
    for recorded in entries {
        bytes.extend(encode(recorded).unwrap());
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn three() -> Vec<TimedEntry> {
    let load = |second| {
        let patch = format!("fix_{second}");
        recorded(second, Entry::Load { patch })
    };
    (1..=3).map(load).collect()
}

#[test]
fn a_write_torn_anywhere_costs_itself_only() {
    let entries = three();
    let (bytes, ends) = file(&entries);
    for cut in 0..=bytes.len() {
        let decoded = decode(&bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(
            decoded.entries,
            entries[..whole.saturating_sub(1)],
            "cut at {cut}"
        );
        assert_eq!(decoded.good + decoded.torn, cut);
        assert_eq!(decoded.damaged, 0);
    }
}

#[test]
fn a_flipped_bit_costs_its_entry_only() {
    let entries = three();
    let (bytes, ends) = file(&entries);
    for at in ends[1]..ends[2] {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let decoded = decode(&bytes).unwrap();
            let others = [entries[0].clone(), entries[2].clone()];
            assert_eq!(decoded.entries, others, "bit {bit} of byte {at}");
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

/// 0.1.0 knows version 1 and refuses what is above.
#[test]
fn version_1_is_read_and_version_2_is_written() {
    let (mut bytes, _) = file(&three());
    assert_eq!(decode(&bytes).unwrap().version, Some(2));
    assert_eq!(bytes[8..12], 2_u32.to_le_bytes());
    bytes[8] = 1;
    let decoded = decode(&bytes).unwrap();
    assert_eq!((decoded.version, decoded.entries), (Some(1), three()));
}

#[test]
fn an_entry_that_is_too_long_is_refused() {
    let patch = "x".repeat(MAX_CONTENT);
    let long = encode(&recorded(1, Entry::Load { patch }));
    assert!(matches!(long, Err(FrameError::Long(_))), "{long:?}");
}

proptest! {
    #[test]
    fn entries_come_back_as_they_were(entries in vec((any::<u32>(), any_entry()), 0..12)) {
        let entries: Vec<TimedEntry> = entries
            .into_iter()
            .map(|(second, entry)| recorded(u64::from(second), entry))
            .collect();
        let (bytes, _) = file(&entries);
        let decoded = decode(&bytes).unwrap();
        prop_assert_eq!(decoded.entries, entries);
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
