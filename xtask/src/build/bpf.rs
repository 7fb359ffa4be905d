//! Building the BPF programs into one ELF file.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{
    build::toolchain::{self, Toolchain},
    host::{paths, process},
};

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";
const BINARY: &str = "livepatch-monitor-bpf";

/// Builds the programs; returns the ELF file's path.
pub(crate) fn build() -> Result<PathBuf> {
    let toolchain = Toolchain::choose()?;
    let linker = toolchain::linker_folder(toolchain)?;
    // Apart from the workspace's: another compiler would rebuild everything.
    let target = paths::target()?.join("bpf-build");
    let mut folders = vec![linker];
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    let mut command = toolchain.cargo();
    command
        .current_dir(paths::root()?)
        .args(["build", "--quiet", "-Z", "build-std=core"])
        .args(["--package", "livepatch-monitor-ebpf", "--bin", BINARY])
        .args(["--features", "programs"])
        .args(["--target", TARGET, "--profile", PROFILE])
        .arg("--target-dir")
        .arg(&target)
        .env("PATH", std::env::join_paths(folders).context("PATH")?)
        .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf");
    process::run(&mut command)?;
    let binary = target.join(TARGET).join(PROFILE).join(BINARY);
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}
