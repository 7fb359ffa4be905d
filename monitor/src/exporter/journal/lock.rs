//! The lock that allows only one monitor to write the journal.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::error::{JournalError, io_error};

/// Keeps other monitors out until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(pub(super) File);

impl Lock {
    /// Takes the lock of a directory, without waiting for it.
    ///
    /// # Errors
    /// Another monitor has it, or it cannot be taken.
    pub(super) fn take(directory: &Path) -> Result<Self, JournalError> {
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(crate::bounded_read::unwaiting())
            .open(&path)
            .map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(JournalError::Locked { path }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is being started has a copy of the
        // descriptor, and with it the lock, until its exec (flock(2)).
        let _ = self.0.unlock();
    }
}
