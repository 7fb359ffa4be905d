//! Hosts whose root is an image: what is prepared for the next boot, or failed. Their running root
//! is never half done.
//!
//! ostree, rpm-ostree, bootc (ostree 2024.5, src/libostree/ostree-sysroot-private.h and
//! ostree-cmd-private.c): /run/ostree/staged-deployment is a deployment that becomes the next root
//! at the shutdown, and is lost in a crash; /boot/ostree/finalize-failure.stamp has the reason why
//! that failed. transactional-update (4.x, lib/Snapshot/Snapper.cpp): a snapshot in
//! /.snapshots/NUMBER, marked in its info.xml until it is complete.

use std::path::Path;

use serde::Serialize;

use crate::bounded_read;

const STAGED: &str = "run/ostree/staged-deployment";
const FAILED: &str = "boot/ostree/finalize-failure.stamp";
const SNAPSHOTS: &str = ".snapshots";
const MOUNTS: &str = "proc/self/mountinfo";
const IN_PROGRESS: &str = "transactional-update-in-progress";

/// All that is read, below the root.
pub(super) const PATHS: [&str; 3] = ["run/ostree", "boot/ostree", SNAPSHOTS];

/// Snapshots that are looked at.
const MAX_SNAPSHOTS: usize = 1024;
/// Bytes of a file that are read.
const MAX_FILE: u64 = 1 << 20;

/// The state of an image that is not the running root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Image {
    /// A deployment of ostree's waits for the next shutdown.
    Staged,
    /// A deployment could not be made the next root.
    FinalizationFailed {
        /// ostree's own words.
        reason: String,
    },
    /// A snapshot is complete, and becomes the root with the next boot if it is the default.
    NotActivated {
        /// Its number.
        snapshot: u32,
        /// That of the running root.
        running: u32,
    },
    /// A snapshot was begun and not completed. transactional-update removes it.
    Unfinished {
        /// Its number.
        snapshot: u32,
    },
}

impl Image {
    /// In a sentence.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Staged => "A deployment is staged: the next shutdown makes it the root of the \
                             next boot, a crash loses it."
                .to_owned(),
            Self::FinalizationFailed { reason } => format!(
                "A deployment could not be made the next root, and the host runs the one before \
                 it: {reason}. Free space in /boot, then update again (rpm-ostree upgrade, or \
                 bootc upgrade)."
            ),
            Self::NotActivated { snapshot, running } => format!(
                "Snapshot {snapshot} is newer than the running root, snapshot {running}: a reboot \
                 activates it if it is the default (snapper list)."
            ),
            Self::Unfinished { snapshot } => format!(
                "Snapshot {snapshot} was never completed, or is being made now: the running root \
                 is as before; transactional-update cleanup removes it."
            ),
        }
    }
}

/// What is prepared or failed.
pub(super) fn read(root: &Path) -> Vec<Image> {
    let mut images = Vec::new();
    if root.join(STAGED).is_file() {
        images.push(Image::Staged);
    }
    let failed = root.join(FAILED);
    if failed.exists() {
        let reason = bounded_read::read(&failed, MAX_FILE);
        let reason = reason.map_or_else(
            |error| format!("the reason cannot be read: {error}"),
            |bytes| String::from_utf8_lossy(&bytes).trim().to_owned(),
        );
        images.push(Image::FinalizationFailed { reason });
    }
    images.extend(snapshots(root));
    images
}

fn snapshots(root: &Path) -> Vec<Image> {
    let mounts = bounded_read::read(&root.join(MOUNTS), MAX_FILE).unwrap_or_default();
    let Some(running) = running_snapshot(&String::from_utf8_lossy(&mounts)) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(root.join(SNAPSHOTS));
    let numbers = entries.into_iter().flatten().take(MAX_SNAPSHOTS).flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut newer: Vec<u32> = numbers.filter(|number| *number > running).collect();
    newer.sort_unstable();
    let mut images = Vec::new();
    let mut complete = None;
    for snapshot in newer {
        let path = root.join(SNAPSHOTS).join(snapshot.to_string());
        let Ok(info) = bounded_read::read(&path.join("info.xml"), MAX_FILE) else {
            continue;
        };
        if is_in_progress(&String::from_utf8_lossy(&info)) {
            images.push(Image::Unfinished { snapshot });
        } else {
            complete = Some(snapshot);
        }
    }
    images.extend(complete.map(|snapshot| Image::NotActivated { snapshot, running }));
    images
}

/// The number of the snapshot that is mounted at `/`: `... /@/.snapshots/12/snapshot / ...`.
fn running_snapshot(mounts: &str) -> Option<u32> {
    let line = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let source = line.split(' ').nth(3)?;
    let (_, rest) = source.split_once("/.snapshots/")?;
    rest.strip_suffix("/snapshot")?.parse().ok()
}

/// Whether info.xml has the mark of a snapshot that is not complete: its key, with a value that
/// is not empty.
fn is_in_progress(info: &str) -> bool {
    let Some((_, rest)) = info.split_once(&format!("<key>{IN_PROGRESS}</key>")) else {
        return false;
    };
    rest.trim_start()
        .strip_prefix("<value>")
        .is_some_and(|rest| rest.starts_with("yes"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn other_hosts_have_no_images() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), MOUNTS, "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n");
        write(root.path(), ".snapshots/7/info.xml", "<snapshot/>");
        assert_eq!(read(root.path()), []);
    }

    #[test]
    fn a_deployment_is_staged_or_failed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), STAGED, "");
        assert_eq!(read(root.path()), [Image::Staged]);
        write(root.path(), FAILED, "error: No space left on device\n");
        let [Image::Staged, Image::FinalizationFailed { reason }] = &read(root.path())[..] else {
            panic!("{:?}", read(root.path()));
        };
        assert_eq!(reason, "error: No space left on device");
    }

    #[test]
    fn a_newer_snapshot_is_not_activated_or_not_complete() {
        let root = tempfile::tempdir().unwrap();
        let mounts = "31 1 0:24 /@/.snapshots/12/snapshot / ro,relatime - btrfs /dev/sda3 ro\n";
        write(root.path(), MOUNTS, mounts);
        let info = |value: &str| {
            format!(
                "<snapshot><userdata><key>{IN_PROGRESS}</key><value>{value}</value></userdata></snapshot>"
            )
        };
        write(root.path(), ".snapshots/11/info.xml", "<snapshot/>");
        write(root.path(), ".snapshots/12/info.xml", "<snapshot/>");
        assert_eq!(read(root.path()), []);
        write(root.path(), ".snapshots/13/info.xml", &info(""));
        let (snapshot, running) = (13, 12);
        let waits = Image::NotActivated { snapshot, running };
        assert_eq!(read(root.path()), std::slice::from_ref(&waits));
        write(root.path(), ".snapshots/14/info.xml", &info("yes"));
        let unfinished = Image::Unfinished { snapshot: 14 };
        assert_eq!(read(root.path()), [unfinished, waits]);
    }
}
