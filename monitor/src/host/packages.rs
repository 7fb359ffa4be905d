//! Packages that an update left between two states.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use livepatch_core::updates::run::UpdateRun;
use serde::Serialize;

use crate::host::stamp::Cached;

mod dpkg;
mod image;
mod lock;
mod log_files;
mod rpm;
mod runs;
#[cfg(test)]
mod tests;
mod yum;
mod zypp;

pub use self::{
    dpkg::{Status, states_of},
    image::Image,
    runs::{names, runs_since},
    yum::not_done,
};

/// The most packages that are named.
const MAX_PACKAGES: usize = 4096;

/// A package manager, or the tool below it where it keeps no history of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Debian's dpkg, which apt calls.
    Dpkg,
    /// yum 3, of RHEL 7 and its like.
    Yum,
    /// dnf 4, and yum 4, which is the same.
    Dnf,
    /// dnf5, whose history has a schema of its own.
    Dnf5,
    /// SUSE's zypper, which calls rpm.
    Zypper,
    /// rpm without a manager above it.
    Rpm,
}

impl Manager {
    /// The package manager as label `manager` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Yum => "yum",
            Self::Dnf => "dnf",
            Self::Dnf5 => "dnf5",
            Self::Zypper => "zypper",
            Self::Rpm => "rpm",
        }
    }
}

/// A package between two states.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// Its name, with the architecture where it is not the only one.
    pub name: String,
    /// The state, as the package manager calls it.
    pub state: String,
}

/// What a package manager left half done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// The package manager that left it.
    pub manager: Manager,
    /// The packages that are half done.
    pub packages: Vec<Package>,
    /// The commands that repair it, in order.
    pub commands: Vec<String>,
    /// The run that left it, where a history names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<UpdateRun>,
}

impl Interrupted {
    /// The commands that repair it, in order, in a line.
    #[must_use]
    pub fn remedy(&self) -> String {
        self.commands.join("; ")
    }
}

/// Why the state of a package manager is unknown.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}; whether an update is half done is not known (see --path.rootfs)", path.display())]
pub struct PackagesError {
    path: PathBuf,
    source: io::Error,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PackagesError + use<> {
    let path = path.to_owned();
    move |source| PackagesError {
        path: path.clone(),
        source,
    }
}

/// A path under another root than `/` must not lead out of it: what it leads to is another host's.
///
/// # Errors
/// It leads out.
fn inside(root: &Path, path: &Path) -> Result<(), String> {
    if root == Path::new("/") {
        return Ok(());
    }
    let (Ok(root), Ok(target)) = (root.canonicalize(), path.canonicalize()) else {
        return Ok(());
    };
    match target.starts_with(&root) {
        true => Ok(()),
        false => Err(format!(
            "{} leads to {}, outside of --path.rootfs; whether an update is half done is not known",
            path.display(),
            target.display()
        )),
    }
}

/// What a package manager has left; `None` where it is not this host's, or has been at work since
/// the start. An error says why that is unknown.
type Found = Result<Option<Interrupted>, String>;

/// Reads the package managers of the file system under a root.
#[derive(Debug)]
pub struct Packages {
    root: PathBuf,
    procfs: PathBuf,
    dpkg: dpkg::Dpkg,
    yum: yum::Yum,
    rpm: rpm::Rpm,
    last_begins: Cached<Vec<(Manager, i64)>>,
}

impl Packages {
    /// Under `/`, or another root; `procfs` is that of the processes that work there.
    #[must_use]
    pub fn new(root: &Path, procfs: &Path) -> Self {
        Self {
            root: root.to_owned(),
            procfs: procfs.to_owned(),
            dpkg: dpkg::Dpkg::new(root),
            yum: yum::Yum::default(),
            rpm: rpm::Rpm::default(),
            last_begins: Cached::default(),
        }
    }

    /// Files that are read under a root and may appear later, in a directory that may appear later
    /// too: locks of the package managers of this host.
    #[must_use]
    pub fn appearing(root: &Path) -> Vec<PathBuf> {
        rpm::appearing(root).chain(yum::appearing(root)).collect()
    }

    /// The directories that are read under a root.
    #[must_use]
    pub fn directories(root: &Path) -> Vec<PathBuf> {
        let directories = [dpkg::DPKG, yum::YUM]
            .into_iter()
            .chain(rpm::PATHS)
            .chain(zypp::PATHS)
            .chain(runs::PATHS)
            .chain(image::PATHS);
        directories.map(|directory| root.join(directory)).collect()
    }

    /// What is half done now, one entry for each package manager of this host. While one is at
    /// work, half-done packages are as they should be: what is said is what was before, or
    /// nothing.
    ///
    /// Beside what could be read: what could not.
    pub fn read(&mut self) -> (Vec<Interrupted>, Vec<String>) {
        let mut found = Vec::new();
        let mut problems = Vec::new();
        let mut take = |one: Found| match one {
            Ok(one) => found.extend(one),
            Err(problem) => problems.push(problem),
        };
        take(self.dpkg.read(&self.root));
        // A host that was upgraded from yum 3 keeps its directory, and nobody uses it.
        if !rpm::has_succeeded_yum(&self.root) {
            take(self.yum.read(&self.root, &self.procfs));
        }
        take(self.rpm.read(&self.root, &self.procfs));
        (found, problems)
    }

    /// The package managers that were at work when they were last [read](Self::read), of which
    /// nothing is known yet.
    #[must_use]
    pub fn at_work(&self) -> Vec<Manager> {
        let dpkg = self.dpkg.at_work.then_some(Manager::Dpkg);
        let yum = self.yum.at_work.then_some(Manager::Yum);
        [dpkg, yum, self.rpm.at_work]
            .into_iter()
            .flatten()
            .collect()
    }

    /// When the last run of each package manager began that left these, in seconds since 1970,
    /// where a history or log says it.
    pub fn last_begins(&mut self, found: &[Interrupted]) -> BTreeMap<&'static str, i64> {
        let mut last = BTreeMap::new();
        let half_done = || found.iter().filter(|found| !found.packages.is_empty());
        let has_log =
            |found: &Interrupted| matches!(found.manager, Manager::Dpkg | Manager::Zypper);
        if half_done().any(has_log) {
            let logs = runs::LOGS.map(|log| self.root.join(log));
            let begins = self
                .last_begins
                .try_get(logs.iter().map(PathBuf::as_path), || {
                    runs::last_begins(&self.root)
                });
            for (manager, begin) in begins.into_iter().flatten() {
                let known = last.entry(manager.name()).or_insert(*begin);
                *known = (*known).max(*begin);
            }
        }
        for found in half_done() {
            let begin = found.run.as_ref().map(|run| run.begin_unix_seconds);
            last.extend(begin.map(|begin| (found.manager.name(), begin)));
        }
        last
    }

    /// What an image host has prepared and not yet booted, or failed to prepare. The running root
    /// of such a host is never half done.
    ///
    /// Beside what could be read: what could not.
    #[must_use]
    pub fn images(&self) -> (Vec<Image>, Vec<String>) {
        let mut problems = Vec::new();
        let images = image::read(&self.root, &self.procfs, &mut problems);
        (images, problems)
    }
}
