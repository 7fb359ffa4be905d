//! Waits until written data is on stable storage.
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
/// Like [`sync_data`].
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
    use std::{path::Path, process::Command};

    use livepatch_monitor_test_support::left_out;

    use super::*;

    /// A read-only file system, unmounted when dropped.
    struct ReadOnly(tempfile::TempDir);

    impl ReadOnly {
        fn mount() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "ro", "tmpfs"]);
            let status = mount.arg(directory.path()).status().unwrap();
            assert!(status.success(), "{mount:?}");
            Self(directory)
        }

        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    impl Drop for ReadOnly {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.path()).status();
        }
    }

    #[test]
    fn success_on_a_read_only_file_system_is_an_error() {
        if !rustix::process::geteuid().is_root() {
            left_out(
                "syncing on a read-only file system",
                "the test mounts one, which takes root",
            );
            return;
        }
        let mounted = ReadOnly::mount();
        let directory = File::open(mounted.path()).unwrap();
        // What the kernel reports about it.
        directory.sync_data().unwrap();
        directory.sync_all().unwrap();
        for sync in [sync_data, sync_all] {
            let error = sync(&directory).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
    }

    #[test]
    fn success_on_a_writable_one_is_success() {
        let file = tempfile::tempfile().unwrap();
        sync_data(&file).unwrap();
        sync_all(&file).unwrap();
    }
}
