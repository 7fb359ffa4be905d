//! Interoperation with other programs, which the host provides on a disk: they run on the same
//! kernel, on the same functions, or between the monitor and both.

mod bpftrace;
mod container;
mod hidden;
mod kpatch;
mod lockdown;
mod program;

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};

use crate::{guest::Guest, runner, scenarios::Scenario};

/// All, in the order of a full run.
const ALL: &[Scenario] = &[
    Scenario {
        name: "kpatch_drives",
        run: kpatch::kpatch_drives,
    },
    Scenario {
        name: "bpftrace_traces_too",
        run: bpftrace::bpftrace_traces_too,
    },
    Scenario {
        name: "addresses_are_hidden",
        run: hidden::addresses_are_hidden,
    },
    Scenario {
        name: "inside_a_container",
        run: container::inside_a_container,
    },
    Scenario {
        name: "locked_down",
        run: lockdown::locked_down,
    },
];

const DISK: &str = "/dev/vda";
const DEBIAN: &str = "/debian";

/// Where a Debian program expects files, and where they are on the disk.
const LINKS: &[(&str, &str)] = &[
    ("/usr", "/debian/usr"),
    ("/lib", "/debian/usr/lib"),
    ("/lib64", "/debian/usr/lib64"),
    ("/bin/bash", "/debian/usr/bin/bash"),
    ("/bin/sh", "/debian/usr/bin/dash"),
];

/// Runs the scenarios of a comma-separated list, or `all`.
pub(crate) fn run(guest: &mut Guest, names: &str) -> Result<()> {
    fs::create_dir_all(DEBIAN).with_context(|| format!("cannot make {DEBIAN}"))?;
    mount(DISK, DEBIAN, "ext4", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount {DISK}"))?;
    for (link, target) in LINKS {
        if !Path::new(link).exists() {
            symlink(target, link).with_context(|| format!("cannot make {link}"))?;
        }
    }
    runner::run(guest, ALL, names)
}

#[cfg(test)]
mod tests {
    use livepatch_monitor_tests::protocol::INTEROP_SCENARIOS;

    use super::*;

    #[test]
    fn the_host_knows_them_all() {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, INTEROP_SCENARIOS);
    }
}
