//! The engines that fleets run, from Debian's suites: several versions of Prometheus and
//! VictoriaMetrics side by side. They are only unpacked, because installing them would start
//! their services.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{packages, paths, process};

const PACKAGES: [&str; 2] = ["prometheus", "victoria-metrics"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Prometheus 2.53, VictoriaMetrics 1.112.
    Trixie,
    /// Prometheus 3.5 and VictoriaMetrics 1.145, or later.
    Sid,
}

impl Suite {
    const ALL: [Self; 2] = [Self::Trixie, Self::Sid];

    const fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    fn folder(self) -> Result<PathBuf> {
        Ok(paths::cache()?.join("engines").join(self.name()))
    }

    /// A program of the suite, after [`prepare`].
    pub(crate) fn program(self, name: &str) -> Result<PathBuf> {
        Ok(self.folder()?.join("usr/bin").join(name))
    }
}

/// Makes the programs of all suites available.
pub(crate) fn prepare() -> Result<()> {
    for suite in Suite::ALL {
        let folder = suite.folder()?;
        if !folder.exists() {
            fetch(suite, &folder).with_context(|| format!("the engines of {}", suite.name()))?;
        }
    }
    Ok(())
}

/// Fetches the packages of a suite with lists of their own, so that this machine's apt does not
/// change.
fn fetch(suite: Suite, folder: &Path) -> Result<()> {
    eprintln!(
        "==> fetching {} of Debian {} into {} (to run the layouts of fleets)",
        PACKAGES.join(", "),
        suite.name(),
        folder.display()
    );
    // Under another name until it is complete, so that an interrupted run starts over.
    let partial = folder.with_extension("partial");
    paths::empty(&partial)?;
    let apt = partial.join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        let path = apt.join(part);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let sources = apt.join("sources.list");
    let line = format!(
        "deb [signed-by={KEYRING}] {} {} main\n",
        packages::mirror()?,
        suite.name()
    );
    fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
    let options = [
        format!("Dir::Etc::sourcelist={}", sources.display()),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={}", apt.join("lists").display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
        "APT::Update::Error-Mode=any".to_owned(),
    ];
    let run = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("--quiet").current_dir(&apt);
        for option in &options {
            command.arg("--option").arg(option);
        }
        process::output(command.args(arguments)).map(drop)
    };
    run(&["update"])?;
    run(&[&["download"], PACKAGES.as_slice()].concat())?;
    for archive in paths::listed(&apt)? {
        if archive
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            process::output(
                Command::new("dpkg")
                    .arg("--extract")
                    .arg(&archive)
                    .arg(&partial),
            )?;
        }
    }
    fs::remove_dir_all(&apt).with_context(|| format!("cannot remove {}", apt.display()))?;
    fs::rename(&partial, folder).with_context(|| format!("cannot make {}", folder.display()))
}
