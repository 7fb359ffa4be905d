//! Errors of reading and writing the journal.

use std::{
    io,
    path::{Path, PathBuf},
};

use livepatch_core::journal::frame::FrameError;

/// Why the journal or the recorded state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file or directory cannot be used.
    #[error(
        "journal: cannot {action} {}: {source}; what is not recorded will be unknown after a crash (see --state-dir)",
        path.display()
    )]
    Io {
        /// What was attempted, as the verb after "cannot".
        action: &'static str,
        /// The file or directory that it was tried on.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// Another monitor uses the state directory.
    #[error(
        "journal: another monitor holds {}; this one records nothing, stop one of them or give it another --state-dir",
        path.display()
    )]
    Locked {
        /// The lock file that the other monitor holds.
        path: PathBuf,
    },
    /// The content is not what this program writes, or a later version wrote it.
    #[error(
        "journal: {}: {source}; the file is not used and not changed, move it away",
        path.display()
    )]
    Content {
        /// The journal file that is not used.
        path: PathBuf,
        /// What is wrong with its content.
        source: FrameError,
    },
    /// The state that version 0.1.0 left is damaged.
    #[error(
        "{}: {reason}; the transition state from before this start is unknown",
        path.display()
    )]
    State {
        /// `transition.json` of the state directory.
        path: PathBuf,
        /// What is wrong with its content.
        reason: String,
    },
    /// A file is of a format that this program does not know.
    #[error(
        "{}: format version {found} instead of {known}; the file is not used and not changed; remove it to start without state",
        path.display()
    )]
    Version {
        /// The file that is not used.
        path: PathBuf,
        /// The version that it names.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
}

pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Io {
        action,
        path: path.clone(),
        source,
    }
}
