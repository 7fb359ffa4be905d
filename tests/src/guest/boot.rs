//! The first and last actions of PID 1: mounting file systems, powering off.

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot},
};

/// File system type and mount point, in order.
const FILE_SYSTEMS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("debugfs", "/sys/kernel/debug"),
    ("securityfs", "/sys/kernel/security"),
];

/// Mounts the file systems that a distribution's init would mount.
pub(crate) fn mount_file_systems() -> Result<()> {
    for (kind, point) in FILE_SYSTEMS {
        mount(*kind, *point, *kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} on {point}"))?;
    }
    Ok(())
}

pub(crate) fn power_off() -> ! {
    end(RebootCommand::PowerOff)
}

pub(crate) fn restart() -> ! {
    end(RebootCommand::Restart)
}

fn end(how: RebootCommand) -> ! {
    rustix::fs::sync();
    if let Err(error) = reboot(how) {
        eprintln!("guest: cannot go down: {error}");
    }
    // PID 1 must not return; the host gives up on a machine that stays silent.
    loop {
        std::thread::park();
    }
}
