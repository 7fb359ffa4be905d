//! Which evidence the next crash would leave, according to the kernel's settings.

use std::{fs, path::Path};

use livepatch_core::crash::capture::Source;

use crate::{bounded_read, kernel::pstore::backend};

/// Whether each source except the journal is ready; a source is left out if the kernel does not
/// show it. `/sys/module/pstore/parameters/backend` (fs/pstore/platform.c),
/// `/sys/kernel/kexec_crash_loaded` (kernel/ksysfs.c), `/sys/class/watchdog/*/state`
/// (drivers/watchdog/watchdog_dev.c), `/proc/sys/kernel/panic` (kernel/panic.c); the same from 5.10
/// to 7.2.
#[must_use]
pub fn read(procfs: &Path, sysfs: &Path) -> Vec<(Source, bool)> {
    let text = |path: &Path| {
        let text = bounded_read::read_text(path, bounded_read::VALUE).ok()?;
        Some(text.trim().to_owned())
    };
    let mut ready = Vec::new();
    if sysfs.join("module").is_dir() {
        ready.push((Source::Pstore, backend(sysfs).is_some()));
    }
    if sysfs.join("kernel").is_dir() {
        let loaded = text(&sysfs.join("kernel/kexec_crash_loaded"));
        ready.push((Source::Kdump, loaded.as_deref() == Some("1")));
        let watchdogs = fs::read_dir(sysfs.join("class/watchdog")).into_iter();
        let mut states = watchdogs
            .flatten()
            .flatten()
            .filter_map(|entry| text(&entry.path().join("state")));
        ready.push((Source::Watchdog, states.any(|state| state == "active")));
    }
    if let Some(seconds) = text(&procfs.join("sys/kernel/panic")) {
        ready.push((Source::RebootOnPanic, seconds != "0"));
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_read() {
        let root = tempfile::tempdir().unwrap();
        let (procfs, sysfs) = (root.path().join("proc"), root.path().join("sys"));
        assert_eq!(read(&procfs, &sysfs), []);
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(&sysfs.join("module/pstore/parameters/backend"), "(null)\n");
        write(&sysfs.join("kernel/kexec_crash_loaded"), "0\n");
        write(&procfs.join("sys/kernel/panic"), "0\n");
        let none = [
            Source::Pstore,
            Source::Kdump,
            Source::Watchdog,
            Source::RebootOnPanic,
        ];
        assert_eq!(read(&procfs, &sysfs), none.map(|source| (source, false)));
        write(&sysfs.join("module/pstore/parameters/backend"), "erst\n");
        write(&sysfs.join("kernel/kexec_crash_loaded"), "1\n");
        write(&sysfs.join("class/watchdog/watchdog0/state"), "inactive\n");
        write(&sysfs.join("class/watchdog/watchdog1/state"), "active\n");
        write(&procfs.join("sys/kernel/panic"), "-1\n");
        assert_eq!(read(&procfs, &sysfs), none.map(|source| (source, true)));
    }
}
