//! Packages that an update left between two states.
//!
//! dpkg: the third word of `Status:` in /var/lib/dpkg/status, and the journal of a run
//! that has not been folded into it, /var/lib/dpkg/updates (dpkg 1.21, dpkg-query(1)
//! and lib/dpkg/dbmodify.c). yum: /var/lib/yum/transaction-all.* with the
//! transaction-done.* beside it (yum 3.4, yum-complete-transaction(8)). dnf 4, dnf5, zypper
//! and rpm: the module `rpm`.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, BufRead, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::process::{Flock, FlockType, fcntl_getlk};
use serde::Serialize;

use super::stamp::Cached;
use crate::bounded_read;

mod rpm;
#[cfg(test)]
mod tests;

const DPKG: &str = "var/lib/dpkg";
const YUM: &str = "var/lib/yum";
/// Behind the state of a package that only the journal has.
const UNRECORDED: &str = "in dpkg's journal only";

/// Bytes of a file that are read; a large host's has some MiB.
const MAX_FILE: u64 = 256 << 20;
/// Bytes of a line; those that are looked for have some dozens.
const MAX_LINE: u64 = 64 << 10;
/// Bytes of a file of yum's.
const MAX_YUM: u64 = 16 << 20;
/// Files of the journal; dpkg folds them in after 250.
const MAX_JOURNAL: usize = 4096;
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
}

impl Interrupted {
    /// The commands that repair it, in order.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.manager {
            Manager::Dpkg => "dpkg --configure -a; apt-get -f install".to_owned(),
            Manager::Yum => "yum-complete-transaction".to_owned(),
            manager => rpm::remedy(manager, &self.packages),
        }
    }
}

/// Why the state of a package manager is unknown.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}; whether an update is half done is not known (see --path.rootfs)", path.display())]
pub struct PackagesError {
    path: PathBuf,
    source: io::Error,
}

/// Reads the package managers of the file system under a root.
#[derive(Debug)]
pub struct Packages {
    root: PathBuf,
    /// Open since the start: later the file may be out of reach.
    lock: Option<File>,
    dpkg: Cached<Result<Vec<Package>, PackagesError>>,
    yum: Cached<Result<Vec<Package>, PackagesError>>,
    rpm: rpm::Rpm,
    /// What dpkg had left when it was last not at work.
    dpkg_before: Option<Vec<Package>>,
}

impl Packages {
    /// Under `/`, or another root.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            lock: bounded_read::open(&root.join(DPKG).join("lock")).ok(),
            dpkg: Cached::default(),
            yum: Cached::default(),
            rpm: rpm::Rpm::default(),
            dpkg_before: None,
        }
    }

    /// The directories that are read under a root.
    #[must_use]
    pub fn directories(root: &Path) -> Vec<PathBuf> {
        let directories = [DPKG, YUM].into_iter().chain(rpm::PATHS);
        directories.map(|directory| root.join(directory)).collect()
    }

    /// What is half done now, one entry for each package manager of this host. While
    /// dpkg is at work, half-done packages are as they should be: what is said is what
    /// was before, or nothing.
    ///
    /// # Errors
    /// With what could be read: what could not.
    pub fn read(&mut self) -> (Vec<Interrupted>, Vec<String>) {
        let mut found = Vec::new();
        let mut problems = Vec::new();
        let database = self.root.join(DPKG);
        let (status, journal) = (database.join("status"), database.join("updates"));
        if status.exists() {
            let dpkg = |packages| Interrupted {
                manager: Manager::Dpkg,
                packages,
            };
            match self.half_done(&database.join("lock"), &status, &journal) {
                Ok(packages) => found.extend(packages.map(dpkg)),
                Err(problem) => problems.push(problem),
            }
        }
        let (of_rpm, unreadable) = self.rpm.read(&self.root);
        problems.extend(unreadable);
        // A host that was upgraded from yum 3 keeps its directory, and nobody uses it.
        let yum_state = self.root.join(YUM);
        if yum_state.is_dir() && !rpm::has_succeeded_yum(&self.root) {
            match self.yum.get([yum_state.as_path()], || yum(&yum_state)) {
                Ok(packages) => found.push(Interrupted {
                    manager: Manager::Yum,
                    packages: packages.clone(),
                }),
                Err(error) => problems.push(error.to_string()),
            }
        }
        found.extend(of_rpm);
        (found, problems)
    }

    /// What dpkg has left half done, or had before the run that is under way.
    fn half_done(
        &mut self,
        lock: &Path,
        status: &Path,
        journal: &Path,
    ) -> Result<Option<Vec<Package>>, String> {
        if !self.is_locked(lock).map_err(|error| error.to_string())? {
            match self.dpkg.get([status, journal], || dpkg(status, journal)) {
                Ok(packages) => self.dpkg_before = Some(packages.clone()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(self.dpkg_before.clone())
    }

    /// Whether dpkg holds its lock, an fcntl lock on the whole file. It is asked for,
    /// never taken.
    fn is_locked(&mut self, path: &Path) -> Result<bool, PackagesError> {
        if !self.lock.as_ref().is_some_and(|lock| is_at(lock, path)) {
            self.lock = match bounded_read::open(path) {
                Ok(lock) => Some(lock),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(path)(error)),
            };
        }
        let wanted = Flock::from(FlockType::WriteLock);
        Ok(self
            .lock
            .as_ref()
            .is_some_and(|lock| matches!(fcntl_getlk(lock, &wanted), Ok(Some(_)))))
    }
}

/// Whether the open file is still the one at this path.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
    file.metadata().ok().map(place) == fs::metadata(path).ok().map(place)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PackagesError + use<> {
    let path = path.to_owned();
    move |source| PackagesError {
        path: path.clone(),
        source,
    }
}

fn dpkg(status: &Path, journal: &Path) -> Result<Vec<Package>, PackagesError> {
    let mut states = BTreeMap::new();
    stanzas(status, &mut states)?;
    let mut unrecorded = BTreeMap::new();
    for path in journal_files(journal)? {
        stanzas(&path, &mut unrecorded)?;
    }
    // dpkg empties its journal before it ends: what is left there was interrupted, whatever
    // the state, and apt refuses to work.
    for (name, state) in unrecorded {
        let state = match is_between(&state) {
            true => state,
            false => format!("{state}, {UNRECORDED}"),
        };
        states.insert(name, state);
    }
    let packages = states
        .into_iter()
        .filter(|(_, state)| is_between(state) || state.ends_with(UNRECORDED));
    let packages = packages.map(|(name, state)| Package { name, state });
    Ok(packages.take(MAX_PACKAGES).collect())
}

/// The states on the way from one to another (dpkg(1), "Package states").
fn is_between(state: &str) -> bool {
    matches!(
        state,
        "half-installed" | "unpacked" | "half-configured" | "triggers-awaited" | "triggers-pending"
    )
}

/// The journal's files in order: their names are numbers. Others there are drafts.
fn journal_files(journal: &Path) -> Result<Vec<PathBuf>, PackagesError> {
    let entries = match fs::read_dir(journal) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(journal)(error)),
    };
    let mut files = Vec::new();
    for entry in entries.take(MAX_JOURNAL) {
        let entry = entry.map_err(failed(journal))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            files.push((name.len(), name, entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, _, path)| path).collect())
}

/// Adds the states of a file's packages; later stanzas replace earlier ones.
fn stanzas(path: &Path, states: &mut BTreeMap<String, String>) -> Result<(), PackagesError> {
    let mut read = || {
        let file = bounded_read::open(path)?;
        if file.metadata()?.len() > MAX_FILE {
            let large = format!("it has more than {} MiB", MAX_FILE >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, large));
        }
        states_of(BufReader::new(file.take(MAX_FILE)), states)
    };
    read().map_err(failed(path))
}

/// Adds the states of the packages of dpkg's database, in its text.
///
/// # Errors
/// The reader's.
pub fn states_of(
    mut reader: impl BufRead,
    states: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    let mut line = Vec::new();
    let mut stanza = Stanza::default();
    loop {
        line.clear();
        // A longer line comes in pieces: none of them is a field that is looked for.
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            std::mem::take(&mut stanza).into_states(states);
        }
        if read == 0 {
            return Ok(());
        }
        stanza.line(text);
    }
}

#[derive(Default)]
struct Stanza {
    name: Option<String>,
    architecture: Option<String>,
    state: Option<String>,
    same: bool,
}

impl Stanza {
    fn line(&mut self, line: &str) {
        let Some((field, value)) = line.split_once(": ") else {
            return;
        };
        let value = value.trim();
        match field {
            "Package" => self.name = Some(value.to_owned()),
            "Architecture" => self.architecture = Some(value.to_owned()),
            "Multi-Arch" => self.same = value == "same",
            "Status" => self.state = value.split_whitespace().nth(2).map(str::to_owned),
            _ => {}
        }
    }

    fn into_states(self, states: &mut BTreeMap<String, String>) {
        let (Some(name), Some(state)) = (self.name, self.state) else {
            return;
        };
        let name = match self.architecture {
            Some(architecture) if self.same => format!("{name}:{architecture}"),
            _ => name,
        };
        states.insert(name, state);
    }
}

/// The steps of the last transaction that have not been taken.
fn yum(directory: &Path) -> Result<Vec<Package>, PackagesError> {
    let (mut planned, mut done) = (String::new(), String::new());
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        // What was left aside by an operator ends in .disabled.
        let is = |kind: &str| name.starts_with(kind) && !name.ends_with(".disabled");
        let all = is("transaction-all.");
        if !all && !is("transaction-done.") {
            continue;
        }
        let text = bounded_read::read_text(&path, MAX_YUM).map_err(failed(&path))?;
        if all { &mut planned } else { &mut done }.push_str(&text);
    }
    Ok(not_done(&planned, &done))
}

/// The steps of a transaction's plan that are not among those done.
#[must_use]
pub fn not_done(planned: &str, done: &str) -> Vec<Package> {
    let lines = planned.lines().filter(|line| !line.trim().is_empty());
    let mut steps: BTreeMap<&str, &str> = lines
        .map(|line| (line, line.split_whitespace().next().unwrap_or_default()))
        .collect();
    for line in done.lines() {
        steps.remove(line);
    }
    let left = steps.into_iter().map(|(line, step)| Package {
        name: line
            .split_once(' ')
            .map_or(line, |(_, name)| name)
            .to_owned(),
        state: format!("{step} not done"),
    });
    left.take(MAX_PACKAGES).collect()
}
