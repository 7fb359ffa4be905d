//! The compiler and the linker of the BPF programs, and of tests for other processors.
//!
//! These targets have no prebuilt library, so the compiler needs its source: rustup's nightly with
//! `rust-src`, or the compiler and source that Debian packages for building browsers.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::host::{packages, paths, process};

/// The compiler, its library's source, and cargo of the same release.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "cargo-web"];

/// The release of bpf-linker that is built against Debian's LLVM.
const LINKER_VERSION: &str = "0.13.0";

const CARGO_FUZZ_VERSION: &str = "0.13.2";
const CARGO_DEB_VERSION: &str = "3.8.0";
const CARGO_GENERATE_RPM_VERSION: &str = "0.21.1";
const CARGO_DENY_VERSION: &str = "0.20.2";

/// A compiler that can build its library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly, with its `rust-src` component.
    Nightly,
    /// Debian's rustc-web, rust-web-src and cargo-web.
    Debian,
}

impl Toolchain {
    /// Chooses nightly if its library's source is installed, otherwise Debian's pair, which it
    /// installs if necessary. `why` says what it is for.
    pub(crate) fn choose(why: &str) -> Result<Self> {
        let chosen = if nightly_has_source() {
            eprintln!("    compiler {why}: rustup's nightly with rust-src");
            Self::Nightly
        } else {
            packages::install(
                DEBIAN_PACKAGES,
                &format!("{why}, as rustup's nightly has no rust-src"),
            )?;
            eprintln!("    compiler {why}: Debian's rustc-web with rust-web-src");
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

    pub(crate) fn rustc(self) -> Command {
        let mut command = match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
            Self::Debian => Command::new("/usr/bin/rustc"),
        };
        forget_running_cargo(&mut command);
        command
    }

    /// The folder with the source of its library.
    pub(crate) fn library(self) -> Result<PathBuf> {
        let sysroot = process::output(self.rustc().args(["--print", "sysroot"]))?;
        Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust"))
    }

    /// The strip program of the compiler's LLVM; that of binutils does not know BPF.
    pub(crate) fn strip(self) -> Result<PathBuf> {
        match self {
            Self::Nightly => process::find_program("llvm-strip")
                .context("there is no llvm-strip on PATH; install LLVM"),
            Self::Debian => {
                let llvm = self.llvm()?;
                packages::install(&[&format!("llvm-{llvm}")], "to strip the BPF programs")?;
                Ok(PathBuf::from(format!(
                    "/usr/lib/llvm-{llvm}/bin/llvm-strip"
                )))
            }
        }
    }

    /// The major version of the compiler's LLVM.
    fn llvm(self) -> Result<u32> {
        let version = process::output(self.rustc().arg("-vV"))?;
        llvm_major(&version)
            .with_context(|| format!("the BPF compiler does not name its LLVM:\n{version}"))
    }
}

/// Finds bpf-linker or installs it with cargo; returns its folder for PATH.
pub(crate) fn linker_folder(toolchain: Toolchain) -> Result<PathBuf> {
    installed("bpf-linker", |command| {
        if toolchain != Toolchain::Debian {
            return Ok(());
        }
        // It reads the compiler's output, so both need the same LLVM.
        let llvm = toolchain.llvm()?;
        let packages = [
            format!("llvm-{llvm}-dev"),
            format!("libpolly-{llvm}-dev"),
            "zlib1g-dev".to_owned(),
            "libzstd-dev".to_owned(),
        ];
        packages::install(
            &packages.each_ref().map(String::as_str),
            "to build bpf-linker",
        )?;
        command
            .args(["--version", LINKER_VERSION, "--no-default-features"])
            .args(["--features", &format!("llvm-{llvm}")])
            // Another LLVM may be on PATH.
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
        Ok(())
    })
}

/// Finds cargo-fuzz or installs it with cargo; returns its folder.
pub(crate) fn cargo_fuzz_folder() -> Result<PathBuf> {
    released("cargo-fuzz", CARGO_FUZZ_VERSION)
}

/// The same for cargo-deb, which makes the Debian package.
pub(crate) fn cargo_deb_folder() -> Result<PathBuf> {
    released("cargo-deb", CARGO_DEB_VERSION)
}

/// The same for cargo-generate-rpm, which makes the RPM package.
pub(crate) fn cargo_generate_rpm_folder() -> Result<PathBuf> {
    released("cargo-generate-rpm", CARGO_GENERATE_RPM_VERSION)
}

/// The same for cargo-deny, which checks licences and sources.
pub(crate) fn cargo_deny_folder() -> Result<PathBuf> {
    released("cargo-deny", CARGO_DENY_VERSION)
}

/// The workspace's cargo, with one more folder of its commands on PATH.
pub(crate) fn cargo_with(folder: &Path) -> Result<Command> {
    let mut folders = vec![folder.to_path_buf()];
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    let mut command = Command::new(env_cargo());
    command
        .current_dir(paths::root()?)
        .env("PATH", std::env::join_paths(folders).context("PATH")?);
    Ok(command)
}

fn released(name: &str, version: &str) -> Result<PathBuf> {
    installed(name, |command| {
        // Built with little optimisation, which is faster: each is run once or twice and never for
        // long.
        command
            .args(["--locked", "--version", version])
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        Ok(())
    })
}

/// The folder of a program, which is installed with cargo if it is not found. `prepare` adds
/// arguments for that.
fn installed(name: &str, prepare: impl FnOnce(&mut Command) -> Result<()>) -> Result<PathBuf> {
    if let Some(folder) = process::find_program(name)
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_path_buf)
    {
        return Ok(folder);
    }
    let folder = cargo_bin()?;
    if !folder.join(name).is_file() {
        eprintln!(
            "==> installing with cargo: {name}, into {}",
            folder.display()
        );
        let mut command = Command::new(env_cargo());
        command.args(["install", name]);
        prepare(&mut command)?;
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

/// Where `cargo install` puts programs.
fn cargo_bin() -> Result<PathBuf> {
    Ok(cargo_home()?.join("bin"))
}

/// Where cargo keeps what it fetched and installed.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    Ok(match std::env::var_os("CARGO_HOME") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    })
}

/// The cargo that runs this program: the workspace's own toolchain.
pub(crate) fn env_cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Removes this program's build flags from the environment, which are not meant for other targets.
pub(crate) fn forget_build_flags(command: &mut Command) {
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
}

/// Removes the variables that bind a child process to the toolchain that runs this program.
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
    // Without rustup or nightly, Debian's pair is used.
    process::output(&mut command).is_ok_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
    })
}

/// The number in `rustc -vV`'s line `LLVM version: 22.1.8`.
fn llvm_major(version: &str) -> Option<u32> {
    version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|number| number.split('.').next())
        .and_then(|major| major.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_is_read_from_the_compiler() {
        let version = "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }
}
