//! Debian packages: finds which are missing, and installs them after announcing it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};

use crate::host::process;

/// The oldest usable QEMU version: earlier ones break guests with two CPUs when the kernel patches
/// its own text (seen with 7.2: half of the boots died).
const OLDEST_QEMU: u32 = 8;

/// Packages needed to build for and boot the kernels.
const VM_PACKAGES: &[&str] = &[
    "mmdebstrap",
    "debian-archive-keyring",
    "xz-utils",
    "e2fsprogs",
];

const QEMU_PACKAGE: &str = "qemu-system-x86";

/// The variable that sets a Debian mirror other than that of this machine's apt.
const MIRROR_VARIABLE: &str = "LIVEPATCH_MONITOR_MIRROR";

const BACKPORTS_LIST: &str = "/etc/apt/sources.list.d/livepatch-monitor-backports.list";

/// Installs what the VMs need, if anything is missing.
pub(crate) fn install_vm_packages() -> Result<()> {
    install(VM_PACKAGES, "to make and boot the test kernels")?;
    if qemu_major()?.is_some_and(|major| major >= OLDEST_QEMU) {
        return Ok(());
    }
    let why = format!("to boot the test kernels (version {OLDEST_QEMU} or later)");
    let codename = debian_codename()?;
    if codename.as_deref() == Some("bookworm") {
        if !backports_known()? {
            require_root(QEMU_PACKAGE)?;
            eprintln!("==> adding the apt source bookworm-backports as {BACKPORTS_LIST}");
            let line = format!("deb {} bookworm-backports main\n", mirror()?);
            fs::write(BACKPORTS_LIST, line)
                .with_context(|| format!("cannot write {BACKPORTS_LIST}"))?;
        }
        apt_install(&[QEMU_PACKAGE], Some("bookworm-backports"), &why)?;
    } else {
        apt_install(&[QEMU_PACKAGE], None, &why)?;
    }
    match qemu_major()? {
        Some(major) if major >= OLDEST_QEMU => Ok(()),
        found => bail!(
            "{QEMU_PACKAGE} {OLDEST_QEMU} or later is needed, {} is installed; \
             install a newer one",
            found.map_or_else(|| "none".to_owned(), |major| major.to_string())
        ),
    }
}

/// The Debian mirror: the one in the variable, otherwise the one that this machine's apt uses for
/// its own suite.
pub(crate) fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    let codename = debian_codename()?.unwrap_or_default();
    if let Some(mirror) = mirror_of(&apt_sources()?, &codename) {
        return Ok(mirror);
    }
    // apt knows its sources only once it has downloaded their lists.
    apt_update()?;
    mirror_of(&apt_sources()?, &codename).with_context(|| {
        format!("apt has no source of Debian `{codename}` main: set {MIRROR_VARIABLE} to a mirror")
    })
}

/// Lines of suite, component and mirror.
fn apt_sources() -> Result<String> {
    process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))
}

/// The mirror of a suite, in what [`apt_sources`] gives.
fn mirror_of(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let wanted = words.next() == Some(codename) && words.next() == Some("main");
        let mirror = words.next()?.trim_end_matches('/');
        wanted.then(|| mirror.to_owned())
    })
}

/// Installs the missing packages. If none is missing, it does nothing and does not use the network.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        if installed_version(package)?.is_none() {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    apt_install(&missing, None, why)
}

/// Unpacks the packages' files under `folder` without installing them.
///
/// For programs whose packages would start services.
pub(crate) fn extract(packages: &[&str], folder: &Path, why: &str) -> Result<()> {
    eprintln!(
        "==> fetching Debian's {} into {} ({why})",
        packages.join(", "),
        folder.display()
    );
    let downloads = folder.join("downloads");
    fs::create_dir_all(&downloads)
        .with_context(|| format!("cannot make {}", downloads.display()))?;
    let mut fetch = Command::new("apt-get");
    fetch
        .args([
            "--quiet",
            "--quiet",
            "-oAPT::Sandbox::User=root",
            "download",
        ])
        .args(packages)
        .current_dir(&downloads);
    if process::output(&mut fetch).is_err() {
        // Without package lists, apt knows no package at all.
        apt_update()?;
        process::run(&mut fetch)?;
    }
    for entry in
        fs::read_dir(&downloads).with_context(|| format!("cannot read {}", downloads.display()))?
    {
        let package = entry
            .with_context(|| format!("cannot read {}", downloads.display()))?
            .path();
        process::run(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&package)
                .arg(folder),
        )?;
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))
}

fn apt_install(packages: &[&str], suite: Option<&str>, why: &str) -> Result<()> {
    // Steps run side by side, and dpkg lets one in at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let list = packages.join(" ");
    require_root(&list)?;
    eprintln!("==> installing with apt: {list} ({why})");
    apt_update()?;
    let mut command = Command::new("apt-get");
    command
        .args([
            "--yes",
            "--quiet",
            "--quiet",
            "--no-install-recommends",
            "--no-remove",
        ])
        .args(suite.map(|suite| format!("--target-release={suite}")))
        .arg("install")
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    process::output(&mut command).with_context(|| {
        format!(
            "cannot install {list}: see that apt's sources have the suite's own \
                 -security and -updates, or install it by hand, and try again"
        )
    })?;
    Ok(())
}

fn apt_update() -> Result<()> {
    process::run(Command::new("apt-get").args(["--quiet", "--quiet", "update"]))
        .context("the package lists cannot be brought up to date")
}

fn require_root(packages: &str) -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|uids| uids.split_whitespace().nth(1));
    if effective != Some("0") {
        bail!("installing {packages} needs root: run this as root, or install it by hand");
    }
    Ok(())
}

/// An installed package's version.
pub(crate) fn installed_version(package: &str) -> Result<Option<String>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev}${Version}"])
        .arg(package)
        .output()
        .context("cannot start `dpkg-query`: this set-up is for Debian")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .strip_prefix("ii ")
        .filter(|_| output.status.success())
        .map(str::to_owned))
}

fn qemu_major() -> Result<Option<u32>> {
    Ok(installed_version(QEMU_PACKAGE)?
        .as_deref()
        .and_then(major_version))
}

/// The first number of a Debian version, past its epoch: 10 of `1:10.0.2+ds-2`.
fn major_version(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream
        .split(|character: char| !character.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())
}

fn debian_codename() -> Result<Option<String>> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned()))
}

fn backports_known() -> Result<bool> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        for entry in entries {
            files.push(entry.context("/etc/apt/sources.list.d")?.path());
        }
    }
    Ok(files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .any(|line| !line.trim_start().starts_with('#') && line.contains("bookworm-backports")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_that_of_the_suite_itself() {
        let targets = "bookworm-security main http://mirror.example/security/\n\
                       bookworm contrib http://mirror.example/other/\n\
                       bookworm main http://mirror.example/debian/\n";
        assert_eq!(
            mirror_of(targets, "bookworm").as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(mirror_of(targets, "trixie"), None);
        assert_eq!(mirror_of("", ""), None);
    }

    #[test]
    fn major_version_is_past_the_epoch() {
        assert_eq!(major_version("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some(10));
        assert_eq!(major_version("1:7.2+dfsg-7+deb12u16"), Some(7));
        assert_eq!(major_version("2.42.0+ds-5"), Some(2));
        assert_eq!(major_version("~beta"), None);
        assert_eq!(major_version(""), None);
    }
}
