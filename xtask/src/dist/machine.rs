//! Installs, upgrades, removes and purges the Debian package in a VM with a running systemd.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use livepatch_monitor_tests::protocol::Message;

use super::chroot::Root;
use crate::{
    host::{packages, paths, process},
    lab::{kernels, vm::Machine},
};

const KERNEL: &str = "6.12";
/// In MiB: the file system is in memory, and there twice while it is unpacked.
const MEMORY: u32 = 2048;
const SILENCE: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(30 * 60);

const LIFECYCLE: &str = include_str!("lifecycle.sh");
const UNIT: &str = "\
[Unit]
After=multi-user.target
[Service]
Type=idle
ExecStart=/lpm/lifecycle.sh
StandardOutput=journal+console
";

/// Boots a Debian in which [`LIFECYCLE`] installs the package, upgrades it to `next`,
/// removes and purges it.
pub(super) fn run(deb: &Path, next: &Path, mut passed: impl FnMut(&str)) -> Result<()> {
    packages::install_vm_packages()?;
    packages::install(&["cpio"], "to make a machine's file system")?;
    let line = kernels::lines(&[KERNEL.to_owned()])?;
    let kernel = kernels::prepare(line.first().context("no kernel")?)?;
    let folder = paths::target()?.join("dist-machine");
    paths::empty(&folder)?;
    let initramfs = file_system(&folder, deb, next)?;
    let machine = Machine {
        kernel: &kernel.image,
        initramfs: &initramfs,
        mode: "dist",
        run: "all",
        command_line: &["systemd.unit=lpm-life.target", "systemd.show_status=no"],
        memory: MEMORY,
        counted: false,
        forwards: &[],
        persistent: None,
        console: folder.join("console.log"),
        silence: SILENCE,
        limit: LIMIT,
    };
    let (mut shown, mut failures) = (0, Vec::new());
    machine.run(|message| {
        match message {
            Message::Booted { release } => println!("    booted {release}"),
            Message::Note { text } => println!("    {text}"),
            Message::ScenarioPassed { scenario, .. } => {
                passed(&scenario);
                shown += 1;
            }
            Message::ScenarioFailed { scenario, reason } => {
                println!("    FAILED {scenario}: {reason}");
                failures.push(scenario);
            }
            _ => {}
        }
        Ok(())
    })?;
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    ensure!(shown > 0, "the machine has shown nothing");
    Ok(())
}

/// The initramfs: a Debian with the packages and the script.
fn file_system(folder: &Path, deb: &Path, next: &Path) -> Result<PathBuf> {
    let root = Root::make(&folder.join("root"))?;
    let inside = |path: &str| root.path(path);
    fs::create_dir_all(inside("lpm")).context("cannot make /lpm")?;
    for (from, to) in [(deb, "lpm/first.deb"), (next, "lpm/next.deb")] {
        fs::copy(from, inside(to)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let write = |path: &str, text: &str| {
        fs::write(inside(path), text).with_context(|| format!("cannot write /{path}"))
    };
    write("lpm/lifecycle.sh", LIFECYCLE)?;
    fs::set_permissions(
        inside("lpm/lifecycle.sh"),
        fs::Permissions::from_mode(0o755),
    )
    .context("/lpm/lifecycle.sh")?;
    write("etc/systemd/system/lpm-life.service", UNIT)?;
    write(
        "etc/systemd/system/lpm-life.target",
        "[Unit]\nWants=multi-user.target lpm-life.service\nAfter=multi-user.target\n",
    )?;
    // Otherwise systemd would treat this as the first boot and ask questions.
    write("etc/machine-id", "5f0c7d1e8a634b0e9d3c2b1a4f5e6d7c\n")?;
    symlink("usr/lib/systemd/systemd", inside("init")).context("cannot make /init")?;
    let path = folder.join("initramfs.cpio");
    let archive = fs::File::create(&path).with_context(|| path.display().to_string())?;
    let mut find = Command::new("find")
        .args([".", "-print0"])
        .current_dir(inside(""))
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start find")?;
    let names = find.stdout.take().context("find has no output")?;
    let status = Command::new("cpio")
        .args(["--create", "--format=newc", "--null", "--quiet"])
        .current_dir(inside(""))
        .stdin(names)
        .stdout(archive)
        .status()
        .context("cannot start cpio")?;
    let found = find.wait().context("cannot wait for find")?;
    ensure!(status.success() && found.success(), "cpio failed: {status}");
    process::run(Command::new("rm").arg("-rf").arg(inside("")))?;
    Ok(path)
}
