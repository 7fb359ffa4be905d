//! Reads the kernel's own counters of crash signals, with which the probes' counts are compared.

use std::{collections::BTreeMap, io::ErrorKind, path::Path};

use crate::bounded_read;
use livepatch_core::crash::{KernelCounter, Signal};

/// The counters that this kernel has; `None` for one that cannot be read.
#[must_use]
pub fn read(procfs: &Path, sysfs: &Path) -> BTreeMap<Signal, Option<u64>> {
    let count = |signal: Signal| {
        let file = match signal.kernel_counter()? {
            KernelCounter::Sysfs(file) => sysfs.join(file),
            KernelCounter::Procfs(file) => procfs.join(file),
        };
        match bounded_read::read_text(&file, bounded_read::VALUE) {
            Ok(text) => Some((signal, text.trim().parse().ok())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(_) => Some((signal, None)),
        }
    };
    Signal::ALL.into_iter().filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_that_cannot_be_read_is_not_one_that_is_absent() {
        let root = tempfile::tempdir().unwrap();
        let (procfs, sysfs) = (root.path().join("proc"), root.path().join("sys"));
        fs::create_dir_all(procfs.join("sys/kernel")).unwrap();
        fs::create_dir_all(sysfs.join("kernel")).unwrap();
        fs::write(sysfs.join("kernel/oops_count"), "3\n").unwrap();
        fs::write(sysfs.join("kernel/warn_count"), "many\n").unwrap();
        fs::create_dir(procfs.join("sys/kernel/hung_task_detect_count")).unwrap();
        let counts = read(&procfs, &sysfs);
        let expected = BTreeMap::from([
            (Signal::Oops, Some(3)),
            (Signal::Warning, None),
            (Signal::HungTask, None),
        ]);
        assert_eq!(counts, expected);
    }
}
