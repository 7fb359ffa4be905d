//! Opening and reading untrusted files with bounds: a pipe never blocks the reader, and no
//! file fills the memory.

use std::{
    fs::{File, FileType, OpenOptions},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::Errno,
};

/// Limit in bytes for a one-line value of procfs or sysfs.
pub const VALUE: u64 = 64 << 10;

/// Opens a file for reading without blocking: opening a pipe does not wait for a writer,
/// and reading from it does not wait for bytes.
///
/// # Errors
/// Those of the system call.
pub fn open_unwaiting(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(unwaiting());
    options.open(path)
}

/// Open options that never block.
#[must_use]
pub const fn unwaiting() -> i32 {
    OFlags::NONBLOCK.union(OFlags::CLOEXEC).bits().cast_signed()
}

/// Opens a regular file for reading.
///
/// # Errors
/// Those of the system call; the path is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = open_unwaiting(path).map_err(|error| no_device(path, error))?;
    match other_kind(file.metadata()?.file_type()) {
        None => Ok(file),
        Some((kind, what)) => Err(io::Error::new(kind, what)),
    }
}

/// Reads a whole regular file of at most `limit` bytes.
///
/// # Errors
/// Those of [`open`]; the file is larger than `limit`.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("larger than {}", size(limit)),
        ));
    }
    Ok(bytes)
}

/// Like [`read`], for UTF-8 text.
///
/// # Errors
/// Those of [`read`]; the content is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
}

/// Reads at most `limit` bytes from a pipe or another file without a length, until its
/// end or until nothing has arrived for `patience`.
///
/// # Errors
/// Those of the system call; nothing arrived for `patience`.
pub fn read_stream(path: &Path, limit: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let mut file = open_unwaiting(path).map_err(|error| no_device(path, error))?;
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let mut ready = [PollFd::new(&file, PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(0) => {
                let seconds = patience.as_secs();
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("nothing was written to it for {seconds} s"),
                ));
            }
            Ok(_) => {}
        }
        let room = limit.saturating_sub(bytes.len() as u64);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(piece.len());
        match file.read(piece.get_mut(..room).unwrap_or_default()) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The error for an open that failed: opening a socket's file fails with a system message
/// that misleads, so it is replaced.
fn no_device(path: &Path, error: io::Error) -> io::Error {
    let kind = path.metadata().map(|metadata| metadata.file_type());
    match kind.ok().and_then(other_kind) {
        Some((kind, what)) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            io::Error::new(kind, what)
        }
        _ => error,
    }
}

fn other_kind(kind: FileType) -> Option<(ErrorKind, &'static str)> {
    if kind.is_file() {
        return None;
    }
    Some(if kind.is_dir() {
        (ErrorKind::IsADirectory, "a directory, not a file")
    } else if kind.is_fifo() {
        (ErrorKind::InvalidInput, "a pipe, not a regular file")
    } else if kind.is_socket() {
        (ErrorKind::InvalidInput, "a socket, not a regular file")
    } else {
        (ErrorKind::InvalidInput, "a device, not a regular file")
    })
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests;
