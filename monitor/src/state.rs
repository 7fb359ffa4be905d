//! What must be known again after a restart of the monitor in the same boot:
//! one small file in the state directory, replaced whole.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::bounded_read;
use livepatch_core::transition::SavedState;

const FILE: &str = "transition.json";
const VERSION: u32 = 1;
/// Bytes read of the file; what is written has some KiB.
const MAX_FILE: u64 = 16 << 20;

/// The file's content.
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
    /// For this boot.
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

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file or its directory cannot be accessed.
    #[error(
        "{path}: {source}; a restart in mid-transition will not know its start (see --state-dir)"
    )]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not ours.
    #[error("{path}: {reason}; it is left alone and not used, remove it to start afresh")]
    Content {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads what the last process of this boot left; `None` if there is nothing or
/// it is of another boot.
///
/// # Errors
/// The file is there but cannot be read or understood.
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
        let reason = format!("version {} instead of {VERSION}", saved.version);
        return Err(StateError::Content { path, reason });
    }
    Ok((saved.boot_id == boot_id).then_some(saved))
}

/// Writes the state so that a reader sees the old or the new one, never a mixture.
///
/// # Errors
/// The directory cannot be made or written.
pub fn store(directory: &Path, saved: &Saved) -> Result<(), StateError> {
    let path = directory.join(FILE);
    let fresh = directory.join(format!("{FILE}.new"));
    let text = serde_json::to_string(saved).map_err(|error| StateError::Content {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    fs::create_dir_all(directory)
        .and_then(|()| {
            let mut file = fs::File::create(&fresh)?;
            // Not synced: it is of use to this boot only, and a disk that hangs
            // must not hold up the kernel's events.
            file.write_all(text.as_bytes())?;
            fs::rename(&fresh, &path)
        })
        .map_err(|source| StateError::Io { path, source })
}
