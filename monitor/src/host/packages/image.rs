//! Hosts whose root is an image: what is prepared for the next boot, or failed. Their running root
//! is never half done.
//!
//! ostree, rpm-ostree, bootc (ostree 2024.5, src/libostree/ostree-sysroot-private.h and
//! ostree-cmd-private.c): /run/ostree/staged-deployment is a deployment that becomes the next root
//! at the shutdown, and is lost in a crash; /boot/ostree/finalize-failure.stamp has the reason why
//! that failed. transactional-update (4.x, lib/Snapshot/Snapper.cpp): a snapshot in
//! /.snapshots/NUMBER, marked in its info.xml until it is complete.

use std::{io::ErrorKind, path::Path};

use serde::Serialize;

use super::inside;
use crate::bounded_read;

const STAGED: &str = "run/ostree/staged-deployment";
const FAILED: &str = "boot/ostree/finalize-failure.stamp";
const SNAPSHOTS: &str = ".snapshots";
/// Of the first process: a container that sees the host's procfs has mounts of its own.
const MOUNTS: &str = "1/mountinfo";
/// The tool that makes snapshots to be booted (transactional-update 4.x).
const TRANSACTIONAL: [&str; 2] = [
    "usr/sbin/transactional-update",
    "usr/bin/transactional-update",
];
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
pub(super) fn read(root: &Path, procfs: &Path, problems: &mut Vec<String>) -> Vec<Image> {
    let mut images = Vec::new();
    if root.join(STAGED).is_file() {
        images.push(Image::Staged);
    }
    let failed = root.join(FAILED);
    if let Err(problem) = inside(root, &failed) {
        problems.push(problem);
    } else if failed.exists() {
        let reason = bounded_read::read(&failed, MAX_FILE);
        let reason = reason.map_or_else(
            |error| format!("the reason cannot be read: {error}"),
            |bytes| String::from_utf8_lossy(&bytes).trim().to_owned(),
        );
        images.push(Image::FinalizationFailed { reason });
    }
    images.extend(snapshots(root, procfs, problems));
    images
}

fn snapshots(root: &Path, procfs: &Path, problems: &mut Vec<String>) -> Vec<Image> {
    let folder = root.join(SNAPSHOTS);
    let not_known = |path: &Path, error: &dyn std::fmt::Display| {
        format!(
            "cannot read {}: {error}; whether a snapshot waits for a reboot is not known",
            path.display()
        )
    };
    if !folder.is_dir() {
        return Vec::new();
    }
    if let Err(problem) = inside(root, &folder) {
        problems.push(problem);
        return Vec::new();
    }
    let mounts = procfs.join(MOUNTS);
    let mounts = match bounded_read::read(&mounts, MAX_FILE) {
        Ok(mounts) => mounts,
        Err(error) => {
            problems.push(not_known(&mounts, &error));
            return Vec::new();
        }
    };
    let Some(running) = running_snapshot(&String::from_utf8_lossy(&mounts)) else {
        return Vec::new();
    };
    // snapper makes snapshots on ordinary hosts too, where none is to be booted.
    let has_tool = TRANSACTIONAL.iter().any(|tool| root.join(tool).exists());
    if !has_tool && !running.read_only {
        return Vec::new();
    }
    let running = running.number;
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(not_known(&folder, &error));
            return Vec::new();
        }
    };
    let numbers = entries.take(MAX_SNAPSHOTS).flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut newer: Vec<u32> = numbers.filter(|number| *number > running).collect();
    newer.sort_unstable();
    let mut images = Vec::new();
    let mut complete = None;
    for snapshot in newer {
        let path = folder.join(snapshot.to_string()).join("info.xml");
        let info = match bounded_read::read(&path, MAX_FILE) {
            Ok(info) => String::from_utf8_lossy(&info).into_owned(),
            // snapper writes it first, and removes it last.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                problems.push(not_known(&path, &error));
                continue;
            }
        };
        if is_in_progress(&info) {
            images.push(Image::Unfinished { snapshot });
        } else if !is_for_comparison(&info) {
            complete = Some(snapshot);
        }
    }
    images.extend(complete.map(|snapshot| Image::NotActivated { snapshot, running }));
    images
}

/// Whether a snapshot is one that snapper makes around a change or by the clock, to compare with
/// and to go back to (snapper 0.10, snapper/Snapshot.cc: `type`, `cleanup`).
fn is_for_comparison(info: &str) -> bool {
    let info: String = info.split_whitespace().collect();
    let marks = [
        "<type>pre</type>",
        "<type>post</type>",
        "<cleanup>timeline</cleanup>",
    ];
    marks.iter().any(|mark| info.contains(mark))
}

/// The snapshot that is mounted at `/`.
struct Running {
    number: u32,
    read_only: bool,
}

/// It is in a line `... /@/.snapshots/12/snapshot / ro,relatime ...`.
fn running_snapshot(mounts: &str) -> Option<Running> {
    let line = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let mut fields = line.split(' ').skip(3);
    let (_, rest) = fields.next()?.split_once("/.snapshots/")?;
    let options = fields.nth(1)?;
    Some(Running {
        number: rest.strip_suffix("/snapshot")?.parse().ok()?,
        read_only: options.split(',').any(|option| option == "ro"),
    })
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

    fn images(root: &Path) -> Vec<Image> {
        let mut problems = Vec::new();
        let images = read(root, &root.join("proc"), &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        images
    }

    fn mount(root: &Path, options: &str) {
        let line =
            format!("31 1 0:24 /@/.snapshots/12/snapshot / {options} - btrfs /dev/sda3 ro\n");
        write(root, "proc/1/mountinfo", &line);
    }

    #[test]
    fn other_hosts_have_no_images() {
        let root = tempfile::tempdir().unwrap();
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
        write(root.path(), "proc/1/mountinfo", mounts);
        write(root.path(), ".snapshots/7/info.xml", "<snapshot/>");
        assert_eq!(images(root.path()), []);
    }

    #[test]
    fn snapshots_of_an_ordinary_host_are_none_to_be_booted() {
        let root = tempfile::tempdir().unwrap();
        mount(root.path(), "rw,relatime");
        let write = |number: u32, text: &str| {
            write(root.path(), &format!(".snapshots/{number}/info.xml"), text);
        };
        write(13, "<snapshot><type>single</type></snapshot>");
        assert_eq!(images(root.path()), []);
        // With transactional-update, those around a change and by the clock are none either.
        self::write(root.path(), TRANSACTIONAL[0], "");
        write(14, "<snapshot>\n <type>pre</type>\n</snapshot>");
        write(15, "<snapshot>\n <type>post</type>\n</snapshot>");
        write(16, "<snapshot>\n <cleanup>timeline</cleanup>\n</snapshot>");
        let (snapshot, running) = (13, 12);
        assert_eq!(
            images(root.path()),
            [Image::NotActivated { snapshot, running }]
        );
    }

    #[test]
    fn what_cannot_be_read_is_a_problem() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(SNAPSHOTS)).unwrap();
        let mut problems = Vec::new();
        assert_eq!(
            read(root.path(), &root.path().join("proc"), &mut problems),
            []
        );
        assert!(problems[0].contains("mountinfo"), "{problems:?}");
    }

    #[test]
    fn a_deployment_is_staged_or_failed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), STAGED, "");
        assert_eq!(images(root.path()), [Image::Staged]);
        write(root.path(), FAILED, "error: No space left on device\n");
        let [Image::Staged, Image::FinalizationFailed { reason }] = &images(root.path())[..] else {
            panic!("{:?}", images(root.path()));
        };
        assert_eq!(reason, "error: No space left on device");
    }

    #[test]
    fn a_newer_snapshot_is_not_activated_or_not_complete() {
        let root = tempfile::tempdir().unwrap();
        mount(root.path(), "ro,relatime");
        let info = |value: &str| {
            format!(
                "<snapshot><userdata><key>{IN_PROGRESS}</key><value>{value}</value></userdata></snapshot>"
            )
        };
        write(root.path(), ".snapshots/11/info.xml", "<snapshot/>");
        write(root.path(), ".snapshots/12/info.xml", "<snapshot/>");
        assert_eq!(images(root.path()), []);
        write(root.path(), ".snapshots/13/info.xml", &info(""));
        let (snapshot, running) = (13, 12);
        let waits = Image::NotActivated { snapshot, running };
        assert_eq!(images(root.path()), std::slice::from_ref(&waits));
        write(root.path(), ".snapshots/14/info.xml", &info("yes"));
        let unfinished = Image::Unfinished { snapshot: 14 };
        assert_eq!(images(root.path()), [unfinished, waits]);
    }
}
