//! What a file that is written anew keeps of a boot's notes.

use std::collections::VecDeque;

use livepatch_core::journal::entry::{Entry, LoadedPatch, TimedEntry};

/// Crash signals that a file written anew keeps.
const KEPT_SIGNALS: usize = 64;
/// Ended transitions that it keeps: one of each patch that is loaded.
const KEPT_ENDS: usize = 128;

/// The notes that a file written anew keeps: the boot, what is loaded and since when it
/// is in force, what goes on, what ended last, the last signals, the last state.
#[derive(Debug, Default)]
pub(super) struct Essence {
    kept: VecDeque<TimedEntry>,
}

impl Essence {
    pub(super) fn take(&mut self, noted: &TimedEntry) {
        self.kept.retain(|kept| !replaces(&noted.note, &kept.note));
        match &noted.note {
            Entry::Loaded { .. } => return,
            Entry::Patches { patches } => self.forget_ends(patches),
            _ => {}
        }
        self.kept.push_back(noted.clone());
        self.limit(KEPT_SIGNALS, |note| matches!(note, Entry::Signal { .. }));
        self.limit(KEPT_ENDS, |note| matches!(note, Entry::Ended { .. }));
    }

    /// Since when a patch is in force matters while it is loaded; the last end does
    /// whatever it was of.
    fn forget_ends(&mut self, loaded: &[LoadedPatch]) {
        let is_end = |kept: &TimedEntry| matches!(kept.note, Entry::Ended { .. });
        let last = self.kept.iter().rposition(is_end);
        let mut at = 0;
        self.kept.retain(|kept| {
            at += 1;
            let Entry::Ended { patch, .. } = &kept.note else {
                return true;
            };
            let lives = loaded.iter().any(|it| Some(&it.name) == patch.as_ref());
            lives || Some(at - 1) == last
        });
    }

    /// Drops the oldest of more than `most` notes of a kind.
    fn limit(&mut self, most: usize, is_of_kind: impl Fn(&Entry) -> bool) {
        let is_of_kind = |kept: &TimedEntry| is_of_kind(&kept.note);
        if self.kept.iter().filter(|kept| is_of_kind(kept)).count() > most
            && let Some(oldest) = self.kept.iter().position(is_of_kind)
        {
            self.kept.remove(oldest);
        }
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = &TimedEntry> {
        self.kept.iter()
    }
}

/// Whether the one note is all that matters of the two.
fn replaces(new: &Entry, kept: &Entry) -> bool {
    match (new, kept) {
        (Entry::State(_), Entry::State(_)) => true,
        (Entry::Watching | Entry::Stopped, Entry::Watching | Entry::Stopped)
        | (Entry::Patches { .. }, Entry::Patches { .. })
        | (Entry::Transition { .. } | Entry::Ended { .. }, Entry::Transition { .. }) => true,
        (Entry::Ended { patch, .. }, Entry::Ended { patch: before, .. }) => {
            before.is_none() || patch == before
        }
        (Entry::Load { patch } | Entry::Loaded { patch }, Entry::Load { patch: before }) => {
            patch == before
        }
        _ => false,
    }
}
