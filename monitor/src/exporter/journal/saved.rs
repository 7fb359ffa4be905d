//! The state that a monitor of this boot saved last, for readers without the lock: the commands,
//! and a second monitor.

use std::path::Path;

use super::{
    error::JournalError,
    file::{path_of, read_entries},
    old_state,
};
use livepatch_core::journal::entry::{Entry, Saved};

/// Reads the state from the journal, or from the file in which version 0.1.0 kept it. Takes no lock
/// and changes nothing; an entry that is being written is not seen yet.
///
/// # Errors
/// Neither can be read.
pub fn read(state_dir: &Path, boot_id: &str) -> Result<Option<Saved>, JournalError> {
    let entries = read_entries(&path_of(&state_dir.join("recorder"), boot_id)).map(|it| it.entries);
    let old = old_state::read(state_dir);
    let known = entries.as_deref().unwrap_or_default();
    if let Ok(Some(old)) = &old
        && let Some(saved) = old.newer_than(known, boot_id)
    {
        return Ok(Some(saved.clone()));
    }
    let last = known
        .iter()
        .rev()
        .find_map(|recorded| match &recorded.entry {
            Entry::State(saved) => Some(saved.clone()),
            _ => None,
        });
    match last {
        Some(saved) => Ok(Some(saved)),
        None => entries.and(old).map(|_| None),
    }
}
