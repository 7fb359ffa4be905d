//! A tree of a Debian suite with a package manager, and the part of it that an upgrade changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::manager::Manager;
use crate::host::{packages, paths, process};

/// What an upgrade changes.
const CHANGED: [&str; 12] = [
    "etc/apt",
    "etc/zypp",
    "run",
    "usr/lib/sysimage",
    "usr/share/lp",
    "var/adm",
    "var/cache/apt",
    "var/cache/dnf",
    "var/lib/dnf",
    "var/lib/dpkg",
    "var/lib/apt",
    "var/log",
];

/// A hook records each script, and blocks in the wanted one.
const HOOK: &str = "/hook";
const RAN: &str = "ran";
const REACHED: &str = "reached";

pub(super) struct Tree {
    root: PathBuf,
    saved: PathBuf,
}

impl Tree {
    /// Unpacks the suite's tree, which is fetched once.
    pub(super) fn make(manager: &Manager) -> Result<Self> {
        let tar = tree(manager)?;
        let folder = paths::target()?.join("updates");
        let root = folder.join(manager.name);
        release(&root)?;
        paths::empty(&root)?;
        // It needs no devices, and a container may not create them.
        process::run(
            Command::new("tar")
                .args(["--extract", "--exclude=./dev/*", "--file"])
                .arg(&tar)
                .arg("--directory")
                .arg(&root),
        )?;
        let tree = Self {
            saved: folder.join(format!("{}.tar", manager.name)),
            root,
        };
        tree.write("dev/null", "")?;
        process::run(
            Command::new("mount")
                .args(["-t", "proc", "proc"])
                .arg(tree.path("proc")),
        )
        .context("package managers read /proc: mounting one needs root")?;
        tree.hook(None)?;
        Ok(tree)
    }

    /// Removes it.
    pub(super) fn remove(self) -> Result<()> {
        let (root, saved) = (self.root.clone(), self.saved.clone());
        drop(self);
        fs::remove_file(&saved).with_context(|| format!("cannot remove {}", saved.display()))?;
        release(&root)?;
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        let folder = path.parent().context("a path without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new("chroot");
        command
            .arg(&self.root)
            .args(["sh", "-c", words])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    pub(super) fn run(&self, words: &str) -> Result<()> {
        self.output(words).map(drop)
    }

    pub(super) fn output(&self, words: &str) -> Result<String> {
        process::output(&mut self.command(words))
    }

    /// Runs a command in a folder, and answers yes to its questions.
    pub(super) fn answer_yes(&self, words: &str, folder: &str, may_fail: bool) -> Result<()> {
        // Without a terminal zypper reads no answer.
        let words = words.replace("zypper ", "zypper --non-interactive --no-gpg-checks ");
        let result = self.output(&format!("cd {folder}; yes | {words}"));
        match may_fail {
            true => Ok(()),
            false => result.map(drop),
        }
    }

    /// Starts a command.
    pub(super) fn spawn(&self, words: &str) -> Result<Child> {
        let log = self.root.with_extension("log");
        let file =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let copy = file.try_clone().context("cannot share the log")?;
        self.command(&format!("exec {words}"))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .context("cannot start chroot")
    }

    /// The last output of a started command.
    pub(super) fn printed(&self) -> Result<String> {
        process::last_lines(&self.root.with_extension("log"), 20)
    }

    /// Sets the script in which the manager blocks from now on, and clears the list of those that
    /// ran.
    pub(super) fn hook(&self, blocks: Option<&str>) -> Result<()> {
        let block = blocks.map_or_else(String::new, |hook| {
            format!("if [ \"$H\" = \"{hook}\" ]; then : > /{REACHED}; exec sleep 1000; fi\n")
        });
        self.write(
            HOOK.trim_start_matches('/'),
            &format!("{block}echo \"$H\" >> /{RAN}\n"),
        )?;
        if blocks.is_some() {
            self.write(RAN, "")?;
            let reached = self.path(REACHED);
            if reached.exists() {
                fs::remove_file(&reached)
                    .with_context(|| format!("cannot remove {}", reached.display()))?;
            }
        }
        Ok(())
    }

    /// Whether the manager is blocked.
    pub(super) fn has_reached(&self) -> bool {
        self.path(REACHED).exists()
    }

    /// The scripts that have run.
    pub(super) fn ran(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.path(RAN)).context("no script has run")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Saves what an upgrade changes.
    pub(super) fn save(&self) -> Result<()> {
        let there = CHANGED.iter().filter(|path| self.path(path).exists());
        process::run(
            Command::new("tar")
                .args(["--create", "--file"])
                .arg(&self.saved)
                .arg("--directory")
                .arg(&self.root)
                .args(there),
        )
    }

    /// Restores what was saved.
    pub(super) fn restore(&self) -> Result<()> {
        for path in CHANGED {
            let path = self.path(path);
            if path.exists() {
                fs::remove_dir_all(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        process::run(
            Command::new("tar")
                .args(["--extract", "--file"])
                .arg(&self.saved)
                .arg("--directory")
                .arg(&self.root),
        )
    }
}

/// A tree in which something failed is kept for inspection.
impl Drop for Tree {
    fn drop(&mut self) {
        let released = super::stop_everything(self).and_then(|()| release(&self.root));
        if let Err(error) = released {
            eprintln!("{}: {error:#}", self.root.display());
        }
    }
}

/// Unmounts /proc, which a run that was killed leaves mounted.
fn release(root: &Path) -> Result<()> {
    let proc = root.join("proc");
    if proc.join("self").symlink_metadata().is_ok() {
        process::run(Command::new("umount").arg(&proc))?;
    }
    ensure!(
        proc.join("self").symlink_metadata().is_err(),
        "{} is still mounted",
        proc.display()
    );
    Ok(())
}

/// The archive of a suite's tree.
fn tree(manager: &Manager) -> Result<PathBuf> {
    let Manager {
        suite, packages, ..
    } = manager;
    let tree = paths::cache()?.join(format!("updates-{suite}.tar"));
    if !tree.is_file() {
        println!(
            "==> fetching Debian {suite} with {} into {}",
            packages.join(", "),
            tree.display()
        );
        let partial = tree.with_extension("partial.tar");
        process::run_logged(
            Command::new("mmdebstrap")
                .args(["--mode=root", "--variant=minbase", "--components=main"])
                .arg(format!("--include={}", packages.join(",")))
                .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
                .arg("--aptopt=APT::Install-Recommends \"false\"")
                .args(
                    ["locale", "doc", "man"]
                        .map(|folder| format!("--dpkgopt=path-exclude=/usr/share/{folder}/*")),
                )
                .arg(suite)
                .arg(&partial)
                .arg(format!("deb {} {suite} main", packages::mirror()?)),
            &tree.with_extension("log"),
        )?;
        fs::rename(&partial, &tree).with_context(|| format!("cannot make {}", tree.display()))?;
    }
    Ok(tree)
}
