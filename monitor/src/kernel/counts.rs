//! Reads the kernel's own counters of crash signals, a cross-check of what the probes saw.

use std::{collections::BTreeMap, path::Path};

use crate::bounded_read;
use livepatch_core::crash::Signal;

/// Files below sysfs (`oops_count`, kernel/exit.c and `warn_count`, kernel/panic.c,
/// since 6.2 and stable releases before it; `softlockup_count`, `hardlockup_count`,
/// kernel/watchdog.c, and `rcu_stall_count`, kernel/rcu/tree_stall.h, since 6.16).
const BELOW_SYSFS: [(Signal, &str); 5] = [
    (Signal::Oops, "kernel/oops_count"),
    (Signal::Warning, "kernel/warn_count"),
    (Signal::SoftLockup, "kernel/softlockup_count"),
    (Signal::HardLockup, "kernel/hardlockup_count"),
    (Signal::RcuStall, "kernel/rcu_stall_count"),
];
/// kernel/hung_task.c, since 6.13.
const HUNG_TASKS: &str = "sys/kernel/hung_task_detect_count";

/// The counters that this kernel has and that can be read.
#[must_use]
pub fn read(procfs: &Path, sysfs: &Path) -> BTreeMap<Signal, u64> {
    let below_sysfs = BELOW_SYSFS.map(|(signal, file)| (signal, sysfs.join(file)));
    below_sysfs
        .into_iter()
        .chain([(Signal::HungTask, procfs.join(HUNG_TASKS))])
        .filter_map(|(signal, file)| {
            let count = bounded_read::read_text(&file, bounded_read::VALUE)
                .ok()?
                .trim()
                .parse()
                .ok()?;
            Some((signal, count))
        })
        .collect()
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
        fs::write(procfs.join(HUNG_TASKS), "1\n").unwrap();
        let counts = read(&procfs, &sysfs);
        let expected = BTreeMap::from([(Signal::Oops, 3), (Signal::HungTask, 1)]);
        assert_eq!(counts, expected);
    }
}
