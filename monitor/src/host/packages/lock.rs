//! Whether a package manager is at work now: asked of the kernel, never by age.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::process::{Flock, FlockType, fcntl_getlk};

use crate::{
    bounded_read,
    kernel::{clock, procfs::start_time},
};

/// A process started no later than this after its lock file was written; ticks and the boot's
/// date are rounded.
const SLACK_SECONDS: f64 = 2.0;

/// Whether the open file is still the one at this path.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
    file.metadata().ok().map(place) == fs::metadata(path).ok().map(place)
}

/// Whether another process holds an fcntl lock on the file. It is asked for, never taken.
///
/// # Errors
/// The kernel, or a network file system, does not say.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    let wanted = Flock::from(FlockType::WriteLock);
    Ok(fcntl_getlk(file, &wanted)?.is_some())
}

/// Whether the file at this path is locked; a file that is not there is not.
pub(super) fn is_path_locked(path: &Path) -> Result<bool, String> {
    match bounded_read::open(path) {
        Ok(file) => is_locked(&file)
            .map_err(|error| format!("cannot ask for locks on {}: {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Whether a lock file is that of a live process: it is locked, or names a process that was there
/// when it was written, by the procfs. A later process may have the same number.
pub(super) fn is_of_live_process(procfs: &Path, path: &Path) -> Result<bool, String> {
    if is_path_locked(path)? {
        return Ok(true);
    }
    let text = match bounded_read::read_text(path, bounded_read::VALUE) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let Ok(process) = text.trim().parse::<u32>() else {
        return Ok(false);
    };
    if !procfs.join(process.to_string()).exists() {
        return Ok(false);
    }
    // Where its start is not known, it counts as the one that wrote the file.
    let Some(started) = start_time(procfs, process).and_then(clock::unix_seconds) else {
        return Ok(true);
    };
    let written = fs::metadata(path).map(|metadata| metadata.mtime());
    let written = written.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(u32::try_from(written).is_ok_and(|written| started <= f64::from(written) + SLACK_SECONDS))
}
