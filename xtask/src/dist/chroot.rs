//! Installs, upgrades, removes and purges the Debian package in a Debian tree without a running
//! systemd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::host::{packages, paths, process};

const SUITE: &str = "bookworm";
const NAME: &str = "livepatch-monitor";
const UNITS: [&str; 2] = ["livepatch-monitor.service", "livepatch-monitor.socket"];
const SETTINGS: &str = "etc/default/livepatch-monitor";
const STATE: &str = "var/lib/private/livepatch-monitor";

/// Installs, upgrades, removes and purges; `next` is a later version of `deb`.
pub(super) fn run(deb: &Path, next: &Path) -> Result<()> {
    let root = Root::make(&paths::target()?.join("dist-root"))?;
    let before = root.files()?;
    root.dpkg("--install", deb)?;
    for unit in UNITS {
        ensure!(
            root.is_enabled(unit)?,
            "{unit} is not enabled after the installation"
        );
    }
    let version = root.output(&[NAME, "--version"])?;
    ensure!(version.contains("BPF programs"), "{version}");
    for file in [
        "usr/share/man/man1/livepatch-monitor.1.gz",
        "usr/share/livepatch-monitor/METRICS.md",
    ] {
        ensure!(root.path(file).is_file(), "there is no /{file}");
    }

    // The administrator's settings and the monitor's data must survive an upgrade.
    let settings = root.path(SETTINGS);
    fs::write(&settings, "ARGS=\"--log.level=debug\"\n").context("cannot write the settings")?;
    let kept = root.path(STATE).join("kept");
    fs::create_dir_all(root.path(STATE)).context("cannot make a state directory")?;
    fs::write(&kept, "").context("cannot write a state file")?;
    root.dpkg("--install", next)?;
    let after = fs::read_to_string(&settings).context("the settings are gone")?;
    ensure!(
        after.contains("debug"),
        "the upgrade has changed the settings: {after}"
    );
    for unit in UNITS {
        ensure!(root.is_enabled(unit)?, "the upgrade has disabled {unit}");
    }
    // Its socket goes with it (Also=).
    root.run(&["systemctl", "disable", UNITS[0]])?;
    root.dpkg("--install", next)?;
    for unit in UNITS {
        ensure!(
            !root.is_enabled(unit)?,
            "the installation has enabled {unit}, which was disabled"
        );
    }

    root.run(&["dpkg", "--remove", NAME])?;
    ensure!(
        settings.is_file() && kept.is_file(),
        "the removal deleted more than it should"
    );
    ensure!(
        !root.path("usr/bin").join(NAME).exists(),
        "the program is still there after the removal"
    );
    root.run(&["dpkg", "--purge", NAME])?;
    let left: Vec<_> = root
        .files()?
        .into_iter()
        .filter(|file| !before.contains(file))
        .collect();
    ensure!(
        left.is_empty(),
        "after the purge there is still {}",
        left.join(", ")
    );
    Ok(())
}

/// The root of an unpacked Debian system.
pub(super) struct Root(PathBuf);

impl Root {
    /// Makes a tree with systemd, each time from a cached one.
    pub(super) fn make(root: &Path) -> Result<Self> {
        let tree = paths::cache()?.join(format!("tree-{SUITE}.tar"));
        if !tree.is_file() {
            println!(
                "==> fetching a minimal Debian {SUITE} into {}",
                tree.display()
            );
            let partial = tree.with_extension("partial.tar");
            process::run_logged(
                Command::new("mmdebstrap")
                    .args(["--mode=root", "--variant=minbase", "--include=systemd"])
                    .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
                    .args(["--dpkgopt=path-exclude=/usr/share/locale/*", SUITE])
                    .arg(&partial)
                    .arg(format!("deb {} {SUITE} main", packages::mirror()?)),
                &tree.with_extension("log"),
            )?;
            fs::rename(&partial, &tree)
                .with_context(|| format!("cannot make {}", tree.display()))?;
        }
        paths::empty(root)?;
        // It needs no devices, and a container may not create them.
        process::run(
            Command::new("tar")
                .args(["--extract", "--exclude=./dev/*", "--file"])
                .arg(&tree)
                .arg("--directory")
                .arg(root),
        )?;
        fs::write(root.join("dev/null"), "").context("cannot make /dev/null")?;
        Ok(Self(root.to_path_buf()))
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command
            .arg(&self.0)
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        self.output(words).map(drop)
    }

    fn output(&self, words: &[&str]) -> Result<String> {
        process::output(&mut self.command(words))
    }

    fn dpkg(&self, verb: &str, package: &Path) -> Result<()> {
        let inside = self.path("tmp/package.deb");
        fs::copy(package, &inside).with_context(|| format!("cannot copy {}", package.display()))?;
        let result = self.run(&["dpkg", "--force-confold", verb, "/tmp/package.deb"]);
        fs::remove_file(&inside).with_context(|| format!("cannot remove {}", inside.display()))?;
        result
    }

    fn is_enabled(&self, unit: &str) -> Result<bool> {
        let output = Command::new("systemctl")
            .arg("--root")
            .arg(&self.0)
            .args(["is-enabled", unit])
            .output()
            .context("cannot start systemctl")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim() == "enabled")
    }

    /// All files, except those in which dpkg and others keep their own state.
    fn files(&self) -> Result<Vec<String>> {
        let text = self.output(&["find", "/", "-xdev", "-not", "-type", "d"])?;
        let others = [
            "/var/lib/dpkg/",
            "/var/log/",
            "/var/cache/",
            "/proc/",
            "/sys/",
        ];
        let own = |line: &&str| !others.iter().any(|other| line.starts_with(other));
        Ok(text.lines().filter(own).map(str::to_owned).collect())
    }
}
