//! Waits until what was written is on stable storage.
//!
//! On a file system that has become read-only (`mount -o remount,ro` by force, sysrq `u`, or
//! `errors=remount-ro` after an error), ext4 takes a write to a file that is open into the page
//! cache, and fsync(2) returns success without writing it (`ext4_sync_file`, fs/ext4/fsync.c of
//! Linux 6.12). So success counts only if the file system is writable afterwards.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{StatVfsMountFlags, fstatvfs},
    io::Errno,
};

/// Waits for the content of a file, and for its size.
///
/// # Errors
/// Those of fdatasync(2), or the file system is read-only ([`io::ErrorKind::ReadOnlyFilesystem`]).
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()?;
    expect_writable(file.as_fd())
}

/// Waits for a file and its attributes, or for the names in a directory.
///
/// # Errors
/// As of [`sync_data`].
pub fn sync_all(file: &File) -> io::Result<()> {
    file.sync_all()?;
    expect_writable(file.as_fd())
}

fn expect_writable(file: BorrowedFd<'_>) -> io::Result<()> {
    match fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        true => Err(Errno::ROFS.into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use livepatch_monitor_test_support::left_out;

    use super::*;

    #[test]
    fn success_on_a_read_only_file_system_is_an_error() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let points = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let point = words.next()?;
            let options = words.nth(1)?;
            options.split(',').any(|it| it == "ro").then_some(point)
        });
        let mut open = points.filter_map(|point| File::open(point).ok());
        let Some(directory) = open.next() else {
            left_out("syncing on a read-only file system", "none is mounted");
            return;
        };
        let error = expect_writable(directory.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }

    #[test]
    fn success_on_a_writable_one_is_success() {
        let file = tempfile::tempfile().unwrap();
        sync_data(&file).unwrap();
        sync_all(&file).unwrap();
    }
}
