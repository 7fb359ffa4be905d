//! State that must survive a restart of the monitor within one boot: one small file in
//! the state directory, replaced atomically.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    bounded_read,
    replace_file::{self, How},
    state_dir,
};
use livepatch_core::transition::SavedState;

const FILE: &str = "transition.json";
const VERSION: u32 = 1;
/// Most bytes read of the file; the monitor writes a few KiB.
const MAX_FILE: u64 = 16 << 20;

/// The content of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// The boot it belongs to (/proc/sys/kernel/random/boot_id).
    pub boot_id: String,
    /// Start of the running transition in seconds since the Unix epoch.
    pub start_unix_seconds: Option<f64>,
    /// The state machine.
    pub transitions: SavedState,
}

impl Saved {
    /// The state of this boot, ready to be written.
    #[must_use]
    pub fn new(boot_id: String, start_unix_seconds: Option<f64>, transitions: SavedState) -> Self {
        Self {
            version: VERSION,
            boot_id,
            start_unix_seconds,
            transitions,
        }
    }
}

/// The state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file or its directory cannot be accessed.
    #[error(
        "{path}: {source}; after a restart during a transition its start will be unknown (see --state-dir)"
    )]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file was not written by this version of the monitor.
    #[error(
        "{path}: {reason}; the file is not used and not changed; remove it to start without state"
    )]
    Content {
        /// Path of the file or directory.
        path: PathBuf,
        /// What is wrong with the content.
        reason: String,
    },
}

/// Reads the state that the last process of this boot wrote; `None` if there is none or
/// it belongs to another boot.
///
/// # Errors
/// The file exists but cannot be read or parsed.
pub fn load(directory: &Path, boot_id: &str) -> Result<Option<Saved>, StateError> {
    let path = directory.join(FILE);
    let text = match bounded_read::read_text(&path, MAX_FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::FileTooLarge
            ) =>
        {
            let reason = error.to_string();
            return Err(StateError::Content { path, reason });
        }
        Err(source) => return Err(StateError::Io { path, source }),
    };
    let saved: Saved = match serde_json::from_str(&text) {
        Ok(saved) => saved,
        Err(error) => {
            return Err(StateError::Content {
                path,
                reason: error.to_string(),
            });
        }
    };
    if saved.version != VERSION {
        let reason = format!("format version {} instead of {VERSION}", saved.version);
        return Err(StateError::Content { path, reason });
    }
    Ok((saved.boot_id == boot_id).then_some(saved))
}

/// Writes the state atomically: a reader sees the old or the new one, never a mixture.
///
/// # Errors
/// The directory cannot be created or written.
pub fn store(directory: &Path, saved: &Saved) -> Result<(), StateError> {
    let path = directory.join(FILE);
    let text = serde_json::to_string(saved).map_err(|error| StateError::Content {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    // Not synced: the state is useful within this boot only, and a disk that hangs must not
    // delay the handling of kernel events.
    let how = How {
        mode: 0o600,
        durable: false,
    };
    state_dir::make(directory)
        .and_then(|()| replace_file::replace(&path, text.as_bytes(), how))
        .map_err(|source| StateError::Io { path, source })
}
