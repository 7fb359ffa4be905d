//! `cargo xtask dist`: builds the packages and tests them.

mod chroot;
mod machine;
mod manifest;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build::{
        guest_binaries::{self, TARGET},
        toolchain,
    },
    host::{packages, paths, process},
};

/// Debian packages with the programs that check the packages.
const PACKAGES: &[&str] = &["lintian", "systemd", "mmdebstrap", "rpm"];

/// The highest accepted rating of `systemd-analyze security`, from 0 to 100; 20 is shown as 2.0.
const MOST_EXPOSED: &str = "--threshold=20";

const UNITS: [&str; 2] = ["livepatch-monitor.service", "livepatch-monitor.socket"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Without the machine in which the package is installed under a running systemd
    #[arg(long)]
    no_vm: bool,
}

/// Runs `cargo xtask dist` with these arguments.
pub(crate) fn command(arguments: &Arguments) -> Result<()> {
    run(!arguments.no_vm, |name| println!("    passed {name}"))?;
    let folder = folder()?;
    println!("packages: {}", folder.display());
    Ok(())
}

/// Builds everything under `target/dist` and checks it, with `vm` under a running systemd too;
/// returns what has been shown.
pub(crate) fn run(vm: bool, mut passed: impl FnMut(&str)) -> Result<()> {
    packages::install(PACKAGES, "to check the packages")?;
    let folder = folder()?;
    paths::empty(&folder)?;
    let monitor = guest_binaries::build_monitor()?;
    process::step("manual, completions, dashboards", || stage(&folder))?;
    copy(&monitor, &folder.join("livepatch-monitor"))?;
    let (deb, next) = process::step("the Debian package", || {
        // A second package with the same content and a later version, to upgrade to.
        Ok((
            debian_package(&folder, "1")?,
            debian_package(&folder.join("next"), "2")?,
        ))
    })?;
    process::step("lintian", || lintian(&deb))?;
    passed("lintian");
    process::step("the RPM package", || rpm_package(&folder))?;
    passed("rpm");
    process::step("install, upgrade, remove, purge", || {
        chroot::run(&deb, &next)
    })?;
    passed("chroot");
    if vm {
        process::step("the package's life under systemd", || {
            machine::run(&deb, &next, passed)
        })?;
    }
    Ok(())
}

/// Checks the Kubernetes manifest, and the units with systemd's own tools.
pub(crate) fn check_definitions() -> Result<()> {
    process::step("the Kubernetes manifest", manifest::check)?;
    packages::install(&["systemd"], "to check the units")?;
    let units = paths::root()?.join("monitor/packaging");
    process::step("systemd-analyze security: 2.0 at most", || {
        process::output(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager", MOST_EXPOSED])
                .arg(units.join(UNITS[0])),
        )
        .map(drop)
    })?;
    process::step("systemd-analyze verify", || verify(&units))
}

/// Checks that systemd understands every line. Its complaints about the program and manual, which
/// need not be installed here, are ignored.
fn verify(units: &Path) -> Result<()> {
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(UNITS.map(|unit| units.join(unit)))
        .output()
        .context("cannot start systemd-analyze")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = text
        .lines()
        .filter(|line| !line.contains("/usr/bin/livepatch-monitor is not executable"))
        .collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// The output folder, which the packages' definitions name.
fn folder() -> Result<PathBuf> {
    Ok(paths::root()?.join("target/dist"))
}

fn stage(folder: &Path) -> Result<()> {
    process::run(
        Command::new(toolchain::env_cargo())
            .current_dir(paths::root()?)
            .args(["run", "--quiet", "--package", "livepatch-monitor"])
            .args(["--example", "manual", "--"])
            .arg(folder),
    )?;
    let share = folder.join("share");
    let root = paths::root()?;
    copy(&root.join("docs/metrics.md"), &share.join("METRICS.md"))?;
    copy(&manifest::path()?, &share.join("kubernetes/daemonset.yaml"))?;
    copy_tree(&root.join("dashboards"), &share)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &to)?;
        } else {
            copy(&path, &to)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn debian_package(folder: &Path, revision: &str) -> Result<PathBuf> {
    let path = folder.join(format!("livepatch-monitor_{revision}_amd64.deb"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    process::run(
        toolchain::cargo_with(&toolchain::cargo_deb_folder()?)?
            .args([
                "deb",
                "--quiet",
                "--no-build",
                "--package",
                "livepatch-monitor",
            ])
            .args(["--target", TARGET, "--deb-revision", revision])
            .arg("--output")
            .arg(&path),
    )?;
    Ok(path)
}

fn rpm_package(folder: &Path) -> Result<()> {
    let path = folder.join("livepatch-monitor.rpm");
    process::run(
        toolchain::cargo_with(&toolchain::cargo_generate_rpm_folder()?)?
            .args(["generate-rpm", "--package", "monitor", "--target", TARGET])
            .arg("--output")
            .arg(&path),
    )?;
    // rpm reads the package back: its files, and that its scripts are valid.
    let query = |what: &[&str]| {
        process::output(
            Command::new("rpm")
                .args(["--query", "--package"])
                .args(what)
                .arg(&path),
        )
    };
    let files = query(&["--list"])?;
    for file in [
        "/usr/bin/livepatch-monitor",
        "/usr/lib/systemd/system/livepatch-monitor.service",
        "/usr/share/man/man1/livepatch-monitor.1",
        "/usr/share/livepatch-monitor/METRICS.md",
    ] {
        if !files.lines().any(|line| line == file) {
            bail!("{} has no {file}:\n{files}", path.display());
        }
    }
    let scripts = query(&["--scripts"])?;
    ensure!(
        scripts.contains("systemctl preset"),
        "it starts nothing:\n{scripts}"
    );
    Ok(())
}

fn lintian(deb: &Path) -> Result<()> {
    process::run(
        Command::new("lintian")
            .args([
                "--fail-on",
                "error,warning",
                "--allow-root",
                "--tag-display-limit",
                "0",
            ])
            .arg(deb),
    )
}
