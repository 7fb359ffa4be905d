//! Detects duplicate lines: once as printed by the kernel, once as written by a log daemon to the
//! same console.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::peel::Peeled;

/// Most lines between the two.
const DISTANCE: usize = 32;

#[derive(Debug)]
struct Seen {
    uptime: u64,
    text: u64,
    /// Whether it has a date or a host before it.
    logged: bool,
}

#[derive(Debug, Default)]
pub(super) struct Copies {
    seen: VecDeque<Seen>,
}

impl Copies {
    /// Whether a line is the copy of another with a different prefix.
    pub(super) fn is_one(&mut self, peeled: &Peeled<'_>) -> bool {
        let Some(uptime) = peeled.uptime.filter(|_| peeled.fragment.is_none()) else {
            return false;
        };
        let mut hasher = DefaultHasher::new();
        peeled.text.trim_end().hash(&mut hasher);
        let line = Seen {
            uptime: uptime.to_bits(),
            text: hasher.finish(),
            logged: peeled.date.is_some() || peeled.host.is_some(),
        };
        let copied = |seen: &Seen| {
            seen.uptime == line.uptime && seen.text == line.text && seen.logged != line.logged
        };
        if self.seen.iter().any(copied) {
            return true;
        }
        if self.seen.len() == DISTANCE {
            self.seen.pop_front();
        }
        self.seen.push_back(line);
        false
    }
}
