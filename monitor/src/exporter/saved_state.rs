//! Keeps what must be known again after a restart of the monitor in the same boot.

use std::{path::Path, path::PathBuf, sync::Mutex};

use livepatch_core::transition::SavedState;
use tracing::warn;

use super::lock;
use crate::state::{self, Saved, StateError};

/// The state of this boot, on disk.
#[derive(Debug)]
pub(super) struct StateFile {
    directory: PathBuf,
    /// `None` where nothing is saved: the boot has no id, or the file was written by
    /// another program, and is not overwritten.
    boot_id: Option<String>,
    writing: Mutex<()>,
}

impl StateFile {
    /// Reads what an earlier process of this boot saved, and what went wrong with that.
    pub(super) fn open(
        directory: &Path,
        boot_id: Option<&str>,
    ) -> (Self, Result<Option<Saved>, StateError>) {
        let saved = boot_id.map_or(Ok(None), |boot_id| state::load(directory, boot_id));
        let is_foreign = matches!(&saved, Err(StateError::Content { .. }));
        let file = Self {
            directory: directory.to_owned(),
            boot_id: boot_id.filter(|_| !is_foreign).map(str::to_owned),
            writing: Mutex::default(),
        };
        (file, saved)
    }

    /// Saves nothing from now on.
    pub(super) fn read_only(&mut self) {
        self.boot_id = None;
    }

    /// Saves what `current` returns: the state, and when the running transition started,
    /// in seconds since 1970.
    pub(super) fn save(&self, current: impl FnOnce() -> (SavedState, Option<f64>)) {
        let Some(boot_id) = self.boot_id.clone() else {
            return;
        };
        // Asked for in here, so that an older state does not replace a newer one.
        let _writing = lock(&self.writing);
        let (transitions, start) = current();
        if let Err(error) = state::store(&self.directory, &Saved::new(boot_id, start, transitions))
        {
            warn!("{error}");
        }
    }
}
