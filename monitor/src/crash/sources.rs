//! The places where dumps are, and the names that dumps have.

use std::path::{Path, PathBuf};

use super::{
    kdump_config::Targets,
    look::{Candidate, Limits, Look},
};

/// Places where crashes leave something. A missing one is not an error.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The kernel's persistent store, /sys/fs/pstore.
    pub pstore: PathBuf,
    /// Where systemd-pstore moves its files, /var/lib/systemd/pstore.
    pub systemd_pstore: PathBuf,
    /// Where kdump puts its logs, /var/crash.
    pub kdump: PathBuf,
    /// sysfs, for the settings of pstore.
    pub sysfs: PathBuf,
    /// The root of the host's file system, for kdump's configuration.
    pub rootfs: PathBuf,
    /// The user whose files are trusted: root, except in tests.
    pub owner: u32,
    /// Limits of one search.
    pub limits: Limits,
}

impl Sources {
    /// The directories that are searched for kdump's dumps.
    fn kdump(&self, targets: &Targets) -> Vec<PathBuf> {
        let mut directories = vec![self.kdump.clone()];
        for path in &targets.local {
            let path = self.rootfs.join(path.strip_prefix("/").unwrap_or(path));
            let known = |known: &PathBuf| *known == path || same_place(known, &path);
            if !directories.iter().any(known) {
                directories.push(path);
            }
        }
        directories
    }

    /// Finds what looks like a dump and is not trusted, without reading anything.
    #[must_use]
    pub fn untrusted(&self) -> Look {
        let mut look = Look::new(self.owner, self.limits);
        self.find(&mut look, &Targets::read(&self.rootfs));
        look
    }

    pub(super) fn find(
        &self,
        look: &mut Look,
        targets: &Targets,
    ) -> (Vec<Candidate>, Vec<Candidate>) {
        let mut pstore = look.find(&self.pstore, is_of_pstore);
        pstore.extend(look.find(&self.systemd_pstore, is_of_pstore));
        let kdump = self.kdump(targets);
        let kdump = kdump.iter().flat_map(|path| look.find(path, is_of_kdump));
        let kdump = kdump.collect();
        (pstore, kdump)
    }
}

fn same_place(one: &Path, other: &Path) -> bool {
    let places = one.canonicalize().ok().zip(other.canonicalize().ok());
    places.is_some_and(|(one, other)| one == other)
}

/// Whether a file is a kernel log in pstore. What pstore keeps of `/dev/pmsg0` is written by
/// programs.
fn is_of_pstore(name: &str) -> bool {
    name.starts_with("dmesg-") || name.starts_with("console-") || name == "dmesg.txt"
}

/// Whether a file is kdump's log: `dmesg.DATE` (Debian), `vmcore-dmesg.txt`,
/// `vmcore-dmesg-incomplete.txt` (RHEL, Amazon), `dmesg.txt`, `dmesg` (SUSE).
pub(super) fn is_log(name: &str) -> bool {
    name == "dmesg" || name.starts_with("dmesg.") || name.starts_with("vmcore-dmesg")
}

/// Whether a file is that log or the image next to it, which is as large as the memory and not
/// text; or apport's report on a kernel crash (Ubuntu).
fn is_of_kdump(name: &str) -> bool {
    is_log(name) || is_image(name) || is_report(name)
}

pub(super) fn is_image(name: &str) -> bool {
    name.starts_with("vmcore") && !is_log(name) || name.starts_with("dump.")
}

pub(super) fn is_report(name: &str) -> bool {
    name.starts_with("linux-image-") && name.ends_with(".crash")
}
