//! A machine that crashes, reboots and continues: one QEMU process per boot, with the same disk and
//! the same persistent memory for pstore.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use livepatch_monitor_tests::protocol::{Message, command_line};

use crate::{
    host::process,
    lab::{
        initramfs::{Extras, RAMOOPS_MODULES, REBOOT_MODULES},
        machine::Prepared,
        vm::{CrashMemory, End, Machine, Persistent},
    },
};

/// The pstore backends that a guest can have.
pub(crate) const MEMORIES: [&str; 3] = [MAIN_MEMORY, "ramoops", "none"];

/// The backend with which every scenario runs.
pub(crate) const MAIN_MEMORY: &str = "erst";

/// The scenario that runs with every backend.
pub(crate) const OF_EACH_MEMORY: &str = "sysrq_in_transition";

/// Memory of the guest in MiB.
pub(crate) const MEMORY: u32 = 768;
const DISK: u64 = 48 << 20;
/// The size of the image on that disk for the scenario in which a disk fails.
const FAILING_DISK: u64 = 4 << 20;
const ERST: u64 = 1 << 20;

/// The kernel parameter that reserves memory for ramoops; the guest reads the address from it too.
/// No shell interprets the `$`.
const RAMOOPS_RESERVED: &str = "memmap=2M$0x20000000";

/// A guest that waits for the lockup detector is silent for a while.
const SILENCE: Duration = Duration::from_secs(150);
const BOOT_LIMIT: Duration = Duration::from_secs(10 * 60);
/// More boots than this mean that it repeats itself.
const MOST_BOOTS: u32 = 120;

pub(crate) const CUTS: u32 = 5;
pub(crate) const CUTS_WHEN_THOROUGH: u32 = 20;

/// What its file system contains in addition.
pub(crate) fn extras() -> Extras<'static> {
    Extras {
        modules: REBOOT_MODULES,
        modules_on_demand: RAMOOPS_MODULES,
        ..Extras::default()
    }
}

/// Boots the machine until its guest is done.
pub(crate) fn run(
    prepared: &Prepared,
    memory: &str,
    run: &str,
    thorough: bool,
    mut on_message: impl FnMut(Message) -> Result<()>,
) -> Result<()> {
    let persistent = persistent(&prepared.folder, memory, memory)?;
    let cuts = if thorough { CUTS_WHEN_THOROUGH } else { CUTS };
    let cuts = format!("{}={cuts}", command_line::CUTS);
    let kept = format!("{}={memory}", command_line::MEMORY);
    let mut words = vec![cuts.as_str(), kept.as_str()];
    if memory != "erst" {
        words.push("erst_disable");
    }
    match memory {
        "ramoops" => words.push(RAMOOPS_RESERVED),
        // With a second CPU, the monitor may or may not get to the disk before that CPU
        // is stopped.
        "none" => words.push("maxcpus=1"),
        _ => {}
    }
    for boot in 1..=MOST_BOOTS {
        let machine = Machine {
            kernel: &prepared.kernel.image,
            initramfs: &prepared.initramfs,
            mode: "crash",
            run,
            command_line: &words,
            memory: MEMORY,
            counted: false,
            forwards: &[],
            persistent: Some(persistent.clone()),
            console: prepared.folder.join(format!("{memory}-{boot}.log")),
            silence: SILENCE,
            limit: BOOT_LIMIT,
        };
        if machine.boot(&mut on_message)? == End::Done {
            return Ok(());
        }
    }
    bail!("the guest was not done after {MOST_BOOTS} boots")
}

/// Creates a disk that holds nothing but the image of the failing disk, and an empty memory of this
/// kind, in the files `NAME.…` of a folder.
pub(crate) fn persistent(folder: &Path, name: &str, memory: &str) -> Result<Persistent> {
    Ok(Persistent {
        disk: disk(folder, name)?,
        memory: crash_memory(folder, name, memory)?,
    })
}

fn disk(folder: &Path, name: &str) -> Result<PathBuf> {
    let content = folder.join(format!("{name}.content"));
    fs::create_dir_all(&content).with_context(|| format!("cannot make {}", content.display()))?;
    let image = content.join("failing.img");
    make(&image, FAILING_DISK)?;
    // Without a journal and with `errors=continue` it can be written again once its disk works again.
    process::run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-O", "^has_journal", "-e", "continue"])
            .arg(&image),
    )?;
    let path = folder.join(format!("{name}.disk"));
    make(&path, DISK)?;
    process::run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .args([&content, &path]),
    )?;
    Ok(path)
}

fn crash_memory(folder: &Path, name: &str, memory: &str) -> Result<CrashMemory> {
    let path = folder.join(format!("{name}.memory"));
    Ok(match memory {
        "erst" => {
            make(&path, ERST)?;
            CrashMemory::Erst(path)
        }
        "ramoops" => {
            make(&path, u64::from(MEMORY) << 20)?;
            CrashMemory::Ramoops(path)
        }
        _ => CrashMemory::None,
    })
}

/// Creates an empty sparse file of this size.
pub(crate) fn make(path: &Path, size: u64) -> Result<()> {
    if path.exists() {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    File::create(path)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("cannot make {}", path.display()))
}
