//! Builds the programs that run in the VM. They are static, so that they need no libraries there.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    build::{bpf, toolchain},
    host::{paths, process},
};

/// The target of the programs.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The programs that were built.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The monitor with its BPF programs inside.
    pub(crate) monitor: PathBuf,
    /// PID 1 of the VM.
    pub(crate) guest: PathBuf,
}

/// Builds the monitor with its BPF programs, then the guest.
pub(crate) fn build_all() -> Result<Programs> {
    let monitor = build_monitor()?;
    let guest = process::step("build the guest of the scenarios", || {
        build("livepatch-monitor-tests", "guest")
    })?;
    for path in [&monitor, &guest] {
        eprintln!("    {}", path.display());
    }
    Ok(Programs { monitor, guest })
}

/// Builds the monitor with the BPF programs of the tree. These are built first if their sources
/// have changed.
pub(crate) fn build_monitor() -> Result<PathBuf> {
    bpf::refresh_if_old()?;
    process::step("build the static monitor", || {
        build("livepatch-monitor", "livepatch-monitor")
    })
}

fn build(package: &str, binary: &str) -> Result<PathBuf> {
    let mut command = Command::new(toolchain::env_cargo());
    toolchain::forget_build_flags(&mut command);
    command
        .current_dir(paths::root()?)
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(["--package", package, "--bin", binary])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::run(&mut command)?;
    let path = paths::target()?.join(TARGET).join("release").join(binary);
    check_static(&path)?;
    Ok(path)
}

/// Fails if the program is not static: in the VM it would die without a message.
fn check_static(path: &Path) -> Result<()> {
    let listing = process::output(Command::new("ldd").arg(path)).unwrap_or_default();
    if listing.contains("=>") {
        bail!(
            "{} is linked dynamically:\n{}\nremove what overrides `+crt-static`",
            path.display(),
            listing.trim_end()
        );
    }
    Ok(())
}
