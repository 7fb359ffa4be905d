//! The entries of a boot that a rewritten file, and a full queue, keep.

use std::collections::VecDeque;

use livepatch_core::journal::entry::{Entry, LoadedPatch, TimedEntry};

/// Number of crash signals kept.
const KEPT_SIGNALS: usize = 64;
/// Number of ended transitions kept: one for each loaded patch.
const KEPT_ENDS: usize = 128;
/// Number of ended loads kept whose result no list of loaded patches has shown yet: without them a
/// patch that may be loaded would look absent.
const KEPT_LOADS: usize = 128;

/// The entries that a rewritten file keeps: the boot, what is loaded and since when it is in force,
/// what is still in progress, what ended last, the last signals, the last state.
#[derive(Debug, Default)]
pub(super) struct Essence {
    kept: VecDeque<TimedEntry>,
}

impl Essence {
    pub(super) fn take(&mut self, recorded: &TimedEntry) {
        self.kept
            .retain(|kept| !replaces(&recorded.entry, &kept.entry));
        if let Entry::Patches { patches } = &recorded.entry {
            self.forget_ends(patches);
            while self.forget_oldest_load() {}
        }
        self.kept.push_back(recorded.clone());
        self.limit(KEPT_SIGNALS, |entry| matches!(entry, Entry::Signal { .. }));
        self.limit(KEPT_ENDS, |entry| matches!(entry, Entry::Ended { .. }));
        let loads = self.kept.iter().filter(|kept| is_over(&kept.entry));
        if loads.count() > KEPT_LOADS {
            self.forget_oldest_load();
        }
    }

    /// The start of being in force matters while the patch is loaded; the last end matters for any
    /// patch.
    fn forget_ends(&mut self, loaded: &[LoadedPatch]) {
        let is_end = |kept: &TimedEntry| matches!(kept.entry, Entry::Ended { .. });
        let last = self.kept.iter().rposition(is_end);
        let mut at = 0;
        self.kept.retain(|kept| {
            at += 1;
            let Entry::Ended { patch, .. } = &kept.entry else {
                return true;
            };
            let lives = loaded.iter().any(|it| Some(&it.name) == patch.as_ref());
            lives || Some(at - 1) == last
        });
    }

    /// Drops the load that ended first; returns whether there was one.
    fn forget_oldest_load(&mut self) -> bool {
        let over = self.kept.iter().find_map(|kept| match &kept.entry {
            Entry::Loaded { patch } => Some(patch.clone()),
            _ => None,
        });
        let Some(over) = over else {
            return false;
        };
        self.kept.retain(|kept| match &kept.entry {
            Entry::Load { patch } | Entry::Loaded { patch } => *patch != over,
            _ => true,
        });
        true
    }

    /// Drops the oldest entries of a kind if there are more than `most`.
    fn limit(&mut self, most: usize, is_of_kind: impl Fn(&Entry) -> bool) {
        let is_of_kind = |kept: &TimedEntry| is_of_kind(&kept.entry);
        if self.kept.iter().filter(|kept| is_of_kind(kept)).count() > most
            && let Some(oldest) = self.kept.iter().position(is_of_kind)
        {
            self.kept.remove(oldest);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Removes and returns all entries, the oldest first.
    pub(super) fn drain(&mut self) -> VecDeque<TimedEntry> {
        std::mem::take(&mut self.kept)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &TimedEntry> {
        self.kept.iter()
    }
}

/// Whether a load has ended.
const fn is_over(entry: &Entry) -> bool {
    matches!(entry, Entry::Loaded { .. })
}

/// Whether the later entry makes the other one redundant.
fn replaces(new: &Entry, kept: &Entry) -> bool {
    match (new, kept) {
        (Entry::State(_), Entry::State(_)) => true,
        (Entry::Watching | Entry::Stopped, Entry::Watching | Entry::Stopped)
        | (Entry::Patches { .. }, Entry::Patches { .. })
        | (Entry::Transition { .. } | Entry::Ended { .. }, Entry::Transition { .. }) => true,
        (Entry::Ended { patch, .. }, Entry::Ended { patch: before, .. }) => {
            before.is_none() || patch == before
        }
        (
            Entry::Load { patch },
            Entry::Load { patch: before } | Entry::Loaded { patch: before },
        )
        | (Entry::Loaded { patch }, Entry::Loaded { patch: before }) => patch == before,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use livepatch_core::{journal::history::History, phase::Phase, transition::BootTime};

    use super::*;

    fn recorded(second: u64, entry: Entry) -> TimedEntry {
        TimedEntry {
            time: BootTime::from_duration(Duration::from_secs(second)),
            unix_seconds: None,
            entry,
        }
    }

    fn phase<'a>(entries: impl Iterator<Item = &'a TimedEntry>) -> Phase {
        let soak = Duration::from_secs(60);
        let mut history = History::default();
        for recorded in entries {
            history.take(recorded, soak);
        }
        history.phase(BootTime::from_duration(Duration::from_secs(10)), soak)
    }

    #[test]
    fn a_load_that_is_over_is_in_doubt_until_the_next_list() {
        let patch = || "fix".to_owned();
        let empty = || Entry::Patches {
            patches: Vec::new(),
        };
        let mut all = vec![
            recorded(1, empty()),
            recorded(2, Entry::Load { patch: patch() }),
            recorded(3, Entry::Loaded { patch: patch() }),
        ];
        for expected in [Phase::Unknown, Phase::Unpatched] {
            let mut essence = Essence::default();
            for recorded in &all {
                essence.take(recorded);
            }
            assert_eq!(phase(all.iter()), expected);
            assert_eq!(phase(essence.entries()), expected);
            all.push(recorded(4, empty()));
        }
    }
}
