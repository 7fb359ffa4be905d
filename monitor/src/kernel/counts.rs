//! Reads the kernel's own counters of crash signals, with which the probes' counts are compared.

use std::{collections::BTreeMap, path::Path};

use crate::bounded_read;
use livepatch_core::crash::{KernelCounter, Signal};

/// The counters that this kernel has, as far as they can be read.
#[must_use]
pub fn read(procfs: &Path, sysfs: &Path) -> BTreeMap<Signal, u64> {
    let count = |signal: Signal| {
        let file = match signal.kernel_counter()? {
            KernelCounter::Sysfs(file) => sysfs.join(file),
            KernelCounter::Procfs(file) => procfs.join(file),
        };
        let text = bounded_read::read_text(&file, bounded_read::VALUE).ok()?;
        Some((signal, text.trim().parse().ok()?))
    };
    Signal::ALL.into_iter().filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reads_those_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let (procfs, sysfs) = (root.path().join("proc"), root.path().join("sys"));
        fs::create_dir_all(procfs.join("sys/kernel")).unwrap();
        fs::create_dir_all(sysfs.join("kernel")).unwrap();
        fs::write(sysfs.join("kernel/oops_count"), "3\n").unwrap();
        fs::write(sysfs.join("kernel/warn_count"), "many\n").unwrap();
        fs::write(procfs.join("sys/kernel/hung_task_detect_count"), "1\n").unwrap();
        let counts = read(&procfs, &sysfs);
        let expected = BTreeMap::from([(Signal::Oops, 3), (Signal::HungTask, 1)]);
        assert_eq!(counts, expected);
    }
}
