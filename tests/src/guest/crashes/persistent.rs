//! What survives a reboot: the disk, and the kernel log in pstore.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};

use crate::{files, guest::Guest, modules};

const DISK: &str = "/dev/vda";
const PSTORE: &str = "/sys/fs/pstore";

/// The parameters of ramoops: the memory that the host has reserved, and records that are large
/// enough for a whole log, because ramoops stores no second part.
const RAMOOPS: &str = "mem_address=0x20000000 mem_size=0x200000 record_size=0x20000";

/// Mounts the disk on /var/lib.
pub(crate) fn mount_disk() -> Result<()> {
    fs::create_dir_all("/var/lib").context("cannot make /var/lib")?;
    mount(DISK, "/var/lib", "ext4", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount {DISK}"))
}

/// Mounts pstore with the backend `memory`.
pub(crate) fn open(memory: &str) -> Result<()> {
    mount("pstore", PSTORE, "pstore", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount {PSTORE}"))?;
    if memory == "ramoops" {
        modules::load_kernel_module("reed_solomon", "")?;
        modules::load_kernel_module("ramoops", RAMOOPS)?;
    }
    Ok(())
}

/// The names of the records.
fn records() -> Result<Vec<String>> {
    let entries = fs::read_dir(PSTORE).with_context(|| format!("cannot read {PSTORE}"))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Sends the records to the host: they show what the monitor should have found.
pub(super) fn send(guest: &Guest, scenario: &str) -> Result<()> {
    for name in records()? {
        let text = files::read(&format!("{PSTORE}/{name}"))?;
        guest.file(&format!("crash/{scenario}/{name}"), &text)?;
    }
    Ok(())
}

/// The addresses without a name in the records' traces, each once.
pub(super) fn unnamed_addresses() -> Result<BTreeSet<String>> {
    let mut unnamed = BTreeSet::new();
    for name in records()? {
        let text = files::read(&format!("{PSTORE}/{name}"))?;
        let frames = text.lines().filter_map(|line| line.rsplit_once("] "));
        let addresses = frames
            .map(|(_, frame)| frame.trim().trim_start_matches("? "))
            .filter(|frame| frame.starts_with("0xffffffff") && !frame.contains(' '));
        unnamed.extend(addresses.map(str::to_owned));
    }
    Ok(unnamed)
}

/// Removes the records, as an operator does.
pub(super) fn clear() -> Result<()> {
    for name in records()? {
        let path = format!("{PSTORE}/{name}");
        fs::remove_file(&path).with_context(|| format!("cannot remove {path}"))?;
    }
    Ok(())
}

pub(super) fn boot_id() -> Result<String> {
    let id = files::read("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}
