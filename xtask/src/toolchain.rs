//! The compiler and the linker of the BPF programs.
//!
//! They are built for a target without a prebuilt `core`, so the compiler must
//! come with the source of its library: rustup's nightly with `rust-src`, or the
//! pair of compiler and source that Debian ships for building browsers.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{process, setup};

/// The compiler, its library's source, and cargo of the same release.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "cargo-web"];

/// What bpf-linker is built with, to read what Debian's compiler writes (LLVM 22).
const LLVM_PACKAGES: &[&str] = &[
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A compiler that can build `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly, with its `rust-src` component.
    Nightly,
    /// Debian's rustc-web, rust-web-src and cargo-web.
    Debian,
}

impl Toolchain {
    /// Takes nightly when its library's source is there, else Debian's pair,
    /// which it installs if need be.
    pub(crate) fn choose() -> Result<Self> {
        let chosen = if nightly_has_source() {
            println!("    BPF compiler: rustup's nightly with rust-src");
            Self::Nightly
        } else {
            setup::install(
                DEBIAN_PACKAGES,
                "to compile the BPF programs, as rustup's nightly has no rust-src",
            )?;
            println!("    BPF compiler: Debian's rustc-web with rust-web-src");
            Self::Debian
        };
        Ok(chosen)
    }

    /// A `cargo` of this toolchain that may use unstable options.
    pub(crate) fn cargo(self) -> Command {
        let mut command = match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                command
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTDOC", "/usr/bin/rustdoc")
                    .env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        forget_running_cargo(&mut command);
        command
    }
}

/// Finds bpf-linker or installs it with cargo; returns its folder, for PATH.
pub(crate) fn linker_folder(toolchain: Toolchain) -> Result<PathBuf> {
    let name = "bpf-linker";
    if let Some(folder) = process::find_program(name)
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_path_buf)
    {
        return Ok(folder);
    }
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let folder = cargo_home.join("bin");
    if !folder.join(name).is_file() {
        println!(
            "==> installing with cargo: {name}, into {}",
            folder.display()
        );
        let mut command = Command::new(env_cargo());
        command.args(["install", name]);
        if toolchain == Toolchain::Debian {
            setup::install(LLVM_PACKAGES, "to build bpf-linker")?;
            command
                .args(["--version", "0.13.0", "--no-default-features"])
                .args(["--features", "llvm-22"])
                .env("LLVM_PREFIX", LLVM_PREFIX);
        }
        forget_build_flags(&mut command);
        process::run(&mut command)?;
    }
    if !folder.join(name).is_file() {
        bail!(
            "{name} is not in {} after its installation; put it on PATH",
            folder.display()
        );
    }
    Ok(folder)
}

/// The cargo that runs this program: the workspace's own toolchain.
pub(crate) fn env_cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Takes away build flags of this program's environment, which are not meant for
/// other targets.
pub(crate) fn forget_build_flags(command: &mut Command) {
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
}

/// Takes away what binds a child to the toolchain that runs this program.
fn forget_running_cargo(command: &mut Command) {
    forget_build_flags(command);
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
}

fn nightly_has_source() -> bool {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    // No rustup or no nightly is no error here: Debian's pair is the answer.
    process::output(&mut command).is_ok_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
    })
}
