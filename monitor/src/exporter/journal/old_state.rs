//! The transition state that version 0.1.0 kept in `STATE-DIR/transition.json`, a file next to the
//! journal. It is read, and never written.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize;

use super::error::{JournalError, io_error};
use crate::bounded_read;
use livepatch_core::{
    journal::entry::{Entry, Saved, TimedEntry},
    transition::SavedState,
};

const FILE: &str = "transition.json";
/// The file's new version, while it was being written.
const UNFINISHED: &str = "transition.json.new";
const VERSION: u32 = 1;
/// Most bytes read of the file; version 0.1.0 wrote a few KiB.
const MAX_FILE: u64 = 16 << 20;

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "version")]
    _version: u32,
    boot_id: String,
    start_unix_seconds: Option<f64>,
    transitions: SavedState,
}

/// Content of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct OldState {
    boot_id: String,
    saved: Saved,
    /// When it was written, in seconds since 1970.
    written: Option<f64>,
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Reads the file; `None` if there is none.
///
/// # Errors
/// It cannot be read, it contains something else ([`JournalError::State`]), or it is of another
/// version.
pub fn read(state_dir: &Path) -> Result<Option<OldState>, JournalError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let path = path_in(state_dir);
    let text = match bounded_read::read_text(&path, MAX_FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::FileTooLarge
            ) =>
        {
            let reason = error.to_string();
            return Err(JournalError::State { path, reason });
        }
        Err(source) => return Err(io_error("read", &path)(source)),
    };
    if let Ok(Version { version: found }) = serde_json::from_str(&text)
        && found != VERSION
    {
        let known = VERSION;
        return Err(JournalError::Version { path, found, known });
    }
    let content: Content = match serde_json::from_str(&text) {
        Ok(content) => content,
        Err(error) => {
            let reason = error.to_string();
            return Err(JournalError::State { path, reason });
        }
    };
    let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
    let since = modified
        .ok()
        .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    Ok(Some(OldState {
        boot_id: content.boot_id,
        saved: Saved {
            start_unix_seconds: content.start_unix_seconds,
            transitions: content.transitions,
        },
        written: since.map(|since| since.as_secs_f64()),
    }))
}

impl OldState {
    /// The state, if it is of this boot and the boot's journal has none that is as recent. The
    /// journal may have an older one if version 0.1.0 was run again in between.
    #[must_use]
    pub fn newer_than(&self, entries: &[TimedEntry], boot_id: &str) -> Option<&Saved> {
        let is_state = |recorded: &&TimedEntry| matches!(recorded.entry, Entry::State(_));
        let is_newer = match entries.iter().rfind(is_state) {
            None => true,
            Some(recorded) => {
                let times = self.written.zip(recorded.unix_seconds);
                times.is_some_and(|(file, journal)| file > journal)
            }
        };
        (self.boot_id == boot_id && is_newer).then_some(&self.saved)
    }

    pub(super) fn remove(state_dir: &Path) -> Result<(), JournalError> {
        for file in [FILE, UNFINISHED] {
            let path = state_dir.join(file);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
