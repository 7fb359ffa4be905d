//! Why something is not recorded or not read.

use std::{
    io,
    path::{Path, PathBuf},
};

use livepatch_core::journal::frame::FrameError;

/// Why something is not recorded or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    /// The file or directory cannot be used.
    #[error(
        "flight recorder: cannot {action} {}: {source}; what is not recorded is not known after a crash (see --state-dir)",
        path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another monitor records there.
    #[error(
        "flight recorder: another monitor holds {}; this one records nothing, stop one of them or give it another --state-dir",
        path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The content is not what this program writes, or is of a later one.
    #[error(
        "flight recorder: {}: {source}; it is left alone and not used, move it away",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FrameError,
    },
    /// The state that version 0.1.0 left is damaged.
    #[error(
        "{}: {reason}; the state of transitions before this start is not known",
        path.display()
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file is of a format that this program does not know.
    #[error(
        "{}: format version {found} instead of {known}; the file is not used and not changed; remove it to start without state",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
}

pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> RecorderError + use<> {
    let path = path.to_owned();
    move |source| RecorderError::Io {
        action,
        path: path.clone(),
        source,
    }
}
