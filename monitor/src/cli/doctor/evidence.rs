//! What evidence a crash would leave: pstore and how full it is, kdump, the state directory.

use std::{fs, path::Path};

use super::{super::Paths, value};
use crate::host::crash_capture;
use livepatch_core::{
    crash::capture::Source,
    doctor::{Check, Status},
};

/// Free bytes below which EFI's variables are nearly full: a dump has up to some hundred
/// KiB, in records of 1 KiB.
const LITTLE: u64 = 64 << 10;
/// Dumps left in pstore from which a firmware's store may be nearly full.
const MANY: usize = 20;

pub(super) fn checks(paths: &Paths) -> Vec<Check> {
    let mut checks: Vec<Check> = crash_capture::read(&paths.procfs, &paths.sysfs)
        .into_iter()
        // These two have separate, more detailed checks.
        .filter(|(source, _)| !matches!(source, Source::RebootOnPanic | Source::Kdump))
        .map(|(source, ready)| match ready {
            true => Check::ok(
                source.name(),
                format!("{} is ready for a crash", source.name()),
            ),
            false => Check::new(
                source.name(),
                Status::Warning,
                not_ready(source),
                source.remedy(),
            ),
        })
        .collect();
    checks.push(pstore_space(&paths.sysfs, &paths.pstore));
    checks.push(kdump(&paths.sysfs));
    checks.push(state_dir(&paths.state_dir));
    checks
}

/// What is wrong if a source is not ready.
fn not_ready(source: Source) -> String {
    match source {
        Source::Watchdog => {
            "no watchdog is running: a machine that hangs will not reset itself".to_owned()
        }
        source => format!("{} is not ready for a crash", source.name()),
    }
}

/// A store in the firmware refuses new dumps when it is full. ramoops overwrites its oldest.
fn pstore_space(sysfs: &Path, pstore: &Path) -> Check {
    const CHECK: &str = "pstore_space";
    const REMEDY: &str = "let systemd-pstore archive them (systemctl enable systemd-pstore), or \
                          copy and delete the files";
    let entries = match fs::read_dir(pstore) {
        Ok(entries) => entries,
        Err(error) => {
            return Check::new(
                CHECK,
                Status::Unknown,
                format!("cannot read {}: {error}", pstore.display()),
                "mount pstore: mount -t pstore pstore /sys/fs/pstore; run as root",
            );
        }
    };
    let dumps = entries.flatten().count();
    let efi = sysfs.join("firmware/efi/efivars");
    let backend = value(&sysfs.join("module/pstore/parameters/backend")).unwrap_or_default();
    let free = (backend.starts_with("efi"))
        .then(|| free_bytes(&efi))
        .flatten();
    match free {
        Some(free) if free < LITTLE => Check::new(
            CHECK,
            Status::Warning,
            format!("the firmware's variables have {free} bytes left: the next dump may not fit"),
            REMEDY,
        ),
        _ if dumps >= MANY && backend != "ramoops" => Check::new(
            CHECK,
            Status::Warning,
            format!(
                "{dumps} records are left in pstore: the store may be full and accept no new dump"
            ),
            REMEDY,
        ),
        _ => Check::ok(CHECK, format!("{dumps} records are left in pstore")),
    }
}

/// `None` if the file system does not report it (efivarfs before 6.5).
fn free_bytes(directory: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Memory for a crash kernel must be reserved at the boot, and the kernel loaded into it
/// (/sys/kernel/kexec_crash_size, kexec_crash_loaded; kernel/ksysfs.c and, from 6.17 on,
/// kernel/kexec_core.c).
fn kdump(sysfs: &Path) -> Check {
    const CHECK: &str = "kdump";
    let number = |name: &str| {
        let path = ["kernel", "kernel/kexec"].map(|directory| sysfs.join(directory).join(name));
        let text = path.iter().find_map(|path| value(path).ok())?;
        text.parse::<u64>().ok()
    };
    let size = number("kexec_crash_size").or_else(|| number("crash_size"));
    let loaded = number("kexec_crash_loaded").or_else(|| number("crash_loaded"));
    match (size, loaded) {
        (_, Some(1)) => Check::ok(CHECK, "memory is reserved and a crash kernel is loaded"),
        (Some(0), _) => Check::new(
            CHECK,
            Status::Warning,
            "no memory is reserved for a crash kernel",
            "add crashkernel=256M to the kernel's command line and reboot; install kdump-tools or \
             kexec-tools",
        ),
        (Some(size), Some(_)) => Check::new(
            CHECK,
            Status::Warning,
            format!(
                "{} MiB are reserved for a crash kernel, but none is loaded: nothing will be dumped",
                size >> 20
            ),
            "systemctl restart kdump (kdump-tools on Debian), and read its output",
        ),
        _ => Check::new(
            CHECK,
            Status::Unknown,
            "cannot determine whether a crash kernel is loaded: the kernel has no \
             /sys/kernel/kexec_crash_loaded",
            "boot a kernel with CONFIG_CRASH_DUMP=y, or check --path.sysfs",
        ),
    }
}

fn state_dir(directory: &Path) -> Check {
    const CHECK: &str = "state_dir";
    match rustix::fs::statvfs(directory) {
        Ok(stat) if stat.f_bavail == 0 || (stat.f_files > 0 && stat.f_favail == 0) => Check::new(
            CHECK,
            Status::Warning,
            format!(
                "the file system of {} is full: no journal is kept",
                directory.display()
            ),
            "make room",
        ),
        Ok(_) => Check::ok(
            CHECK,
            format!("{} is there and has room", directory.display()),
        ),
        Err(error) => Check::new(
            CHECK,
            Status::Warning,
            format!(
                "{}: {error}: only the kernel's own dumps would survive a crash",
                directory.display()
            ),
            "start livepatch-monitor serve, or give its --state-dir",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, content: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn reserved_and_loaded_are_two_things() {
        let root = tempfile::tempdir().unwrap();
        let kdump = |size: &str, loaded: &str| {
            write(root.path(), "kernel/kexec_crash_size", size);
            write(root.path(), "kernel/kexec_crash_loaded", loaded);
            kdump(root.path())
        };
        assert_eq!(kdump("268435456\n", "1\n").status, Status::Ok);
        let reserved = kdump("268435456\n", "0\n");
        assert_eq!(reserved.status, Status::Warning);
        assert!(
            reserved.what.contains("256 MiB are reserved"),
            "{reserved:?}"
        );
        assert!(kdump("0\n", "0\n").what.contains("no memory is reserved"));
        assert_eq!(kdump("?\n", "?\n").status, Status::Unknown);
    }

    #[test]
    fn a_firmware_with_many_records_may_be_full() {
        let root = tempfile::tempdir().unwrap();
        let pstore = root.path().join("pstore");
        assert_eq!(pstore_space(root.path(), &pstore).status, Status::Unknown);
        fs::create_dir_all(&pstore).unwrap();
        let backend = |name: &str| {
            write(root.path(), "module/pstore/parameters/backend", name);
            pstore_space(root.path(), &pstore)
        };
        assert_eq!(backend("erst\n").status, Status::Ok);
        for number in 0..MANY {
            fs::write(pstore.join(format!("dmesg-erst-{number}")), "x").unwrap();
        }
        assert_eq!(backend("erst\n").status, Status::Warning);
        assert_eq!(backend("ramoops\n").status, Status::Ok);
    }
}
