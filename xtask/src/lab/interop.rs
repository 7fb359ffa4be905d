//! The machine for interoperation: a disk with Debian's kpatch, bpftrace and others, and scenarios
//! that run them beside the monitor on the same kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use livepatch_monitor_tests::protocol::Message;

use crate::{
    host::{packages, paths, process},
    lab::{
        kernels,
        machine::Prepared,
        reboot_vm,
        vm::{CrashMemory, Machine, Persistent},
    },
};

/// Debian's stable release, whose own kernel is 6.12.
const SUITE: &str = "trixie";

/// The packages that the scenarios use, and what those need: kpatch is a script.
const PACKAGES: &[&str] = &[
    "kpatch",
    "bpftrace",
    "bash",
    "binutils",
    "bsdextrautils",
    "coreutils",
    "dash",
    "grep",
    "kmod",
    "mawk",
    "sed",
    "util-linux",
];

const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];

/// Size of the disk in bytes; the file is sparse.
const DISK: u64 = 1 << 30;

/// In MiB: bpftrace is a compiler.
const MEMORY: u32 = 2048;
const SILENCE: Duration = Duration::from_secs(240);
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Runs the scenarios of a comma-separated list, or `all`.
pub(crate) fn run(
    prepared: &Prepared,
    run: &str,
    on_message: impl FnMut(Message) -> Result<()>,
) -> Result<()> {
    let machine = Machine {
        kernel: &prepared.kernel.image,
        initramfs: &prepared.initramfs,
        mode: "interop",
        run,
        command_line: &[],
        memory: MEMORY,
        counted: false,
        forwards: &[],
        persistent: Some(Persistent {
            disk: disk(&prepared.folder)?,
            memory: CrashMemory::None,
        }),
        console: prepared.folder.join("interop.log"),
        silence: SILENCE,
        limit: LIMIT,
    };
    machine.run(on_message)
}

/// A copy of the disk for this run, because the guest writes to it.
fn disk(folder: &Path) -> Result<PathBuf> {
    let tree = tree()?;
    let path = folder.join("interop.disk");
    reboot_vm::make(&path, DISK)?;
    process::run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-O", "^has_journal", "-d"])
            .arg(&tree)
            .arg(&path),
    )?;
    Ok(path)
}

/// The tree with the programs. They are unpacked, not installed, so no maintainer script runs here.
fn tree() -> Result<PathBuf> {
    let folder = paths::cache()?.join("interop");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let _lock = kernels::lock(&folder)?;
    let tree = folder.join("tree");
    // Written last; contains the packages from which the tree was made.
    let stamp = folder.join("packages");
    let packages = format!("{SUITE}: {}", PACKAGES.join(","));
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == packages) {
        return Ok(tree);
    }
    let what = format!(
        "fetch kpatch, bpftrace and what they need of Debian {SUITE} into {}",
        folder.display()
    );
    process::step(&what, || fetch(&tree, &folder.join("fetch.log")))?;
    fs::write(&stamp, packages).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(tree)
}

fn fetch(tree: &Path, log: &Path) -> Result<()> {
    paths::empty(tree)?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--variant=extract"])
        .args(["--architectures=amd64", "--components=main"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    for pattern in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    command.arg(SUITE).arg(tree);
    command.arg(format!("deb {} {SUITE} main", packages::mirror()?));
    process::run_logged(&mut command, log)?;
    // Normally created by a maintainer script.
    let awk = tree.join("usr/bin/awk");
    std::os::unix::fs::symlink("mawk", &awk)
        .with_context(|| format!("cannot make {}", awk.display()))
}
