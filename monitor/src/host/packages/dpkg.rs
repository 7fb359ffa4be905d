//! Debian's package manager: the words of `Status:` in /var/lib/dpkg/status, and the journal of a
//! run that has not been folded into it, /var/lib/dpkg/updates (dpkg 1.21, dpkg-query(1) and
//! lib/dpkg/dbmodify.c).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use livepatch_core::updates::remedy::is_plain;

use super::{
    Found, Interrupted, MAX_PACKAGES, Manager, Package, PackagesError, failed, inside,
    lock::{is_at, is_locked},
};
use crate::{bounded_read, host::stamp::Cached};

pub(super) const DPKG: &str = "var/lib/dpkg";
/// dpkg's own lock, and that of apt and others, which hold it over several runs of dpkg
/// (apt 1.9.11, apt-pkg/deb/debsystem.cc).
const LOCKS: [&str; 2] = ["lock-frontend", "lock"];
/// Behind the state of a package that only the journal has.
const UNRECORDED: &str = "in dpkg's journal only";

/// Bytes of a file that are read; a large host's has some MiB.
const MAX_FILE: u64 = 32 << 20;
/// Bytes of a line; those that are looked for have some dozens.
const MAX_LINE: u64 = 64 << 10;
/// Files of the journal; dpkg folds them in after 250.
const MAX_JOURNAL: usize = 4096;

/// The words of a package's `Status:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What is wanted: `install`, `deinstall`, `purge`.
    pub want: String,
    /// `ok` or `reinstreq`.
    pub flag: String,
    /// What it is.
    pub state: String,
}

impl Status {
    fn parse(words: &str) -> Option<Self> {
        let mut words = words.split_whitespace();
        let mut next = || words.next().map(str::to_owned);
        Some(Self {
            want: next()?,
            flag: next()?,
            state: next()?,
        })
    }

    /// The states on the way from one to another (dpkg(1), "Package states").
    fn is_between(&self) -> bool {
        matches!(
            self.state.as_str(),
            "half-installed"
                | "unpacked"
                | "half-configured"
                | "triggers-awaited"
                | "triggers-pending"
        )
    }

    fn is_removal(&self) -> bool {
        matches!(self.want.as_str(), "deinstall" | "purge")
    }

    fn text(&self) -> String {
        let mut text = match self.state.as_str() {
            "unpacked" => "unpacked, not configured".to_owned(),
            state => state.to_owned(),
        };
        if self.is_between() && self.is_removal() {
            text.push_str(", being removed");
        } else if self.flag == "reinstreq" {
            text.push_str(", must be reinstalled");
        }
        text
    }
}

/// Reads dpkg's state.
#[derive(Debug, Default)]
pub(super) struct Dpkg {
    /// Open since the start: later the files may be out of reach.
    locks: [Option<File>; 2],
    read: Cached<Interrupted>,
    /// dpkg or apt was at work at the last look.
    pub(super) at_work: bool,
    /// What dpkg had left when it was last not at work.
    before: Option<Interrupted>,
}

impl Dpkg {
    pub(super) fn new(root: &Path) -> Self {
        let database = root.join(DPKG);
        Self {
            locks: LOCKS.map(|name| bounded_read::open(&database.join(name)).ok()),
            ..Self::default()
        }
    }

    /// What is half done; while dpkg or apt is at work, what was before. `None` where this is no
    /// host of dpkg.
    pub(super) fn read(&mut self, root: &Path) -> Found {
        let database = root.join(DPKG);
        let (status, journal) = (database.join("status"), database.join("updates"));
        if !status.exists() {
            return Ok(None);
        }
        for path in [&status, &journal] {
            inside(root, path)?;
        }
        self.at_work = self.is_at_work(&database)?;
        if self.at_work {
            return Ok(self.before.clone());
        }
        let read = self
            .read
            .try_get([status.as_path(), journal.as_path()], || {
                half_done(&status, &journal)
            });
        let found = read.map_err(|error| error.to_string())?.clone();
        // It may have begun while the files were read.
        self.at_work = self.is_at_work(&database)?;
        if self.at_work {
            self.read = Cached::default();
        } else {
            self.before = Some(found);
        }
        Ok(self.before.clone())
    }

    /// Whether dpkg or apt holds its lock, an fcntl lock on the whole file. It is asked for,
    /// never taken.
    fn is_at_work(&mut self, database: &Path) -> Result<bool, String> {
        let mut at_work = false;
        for (name, lock) in LOCKS.into_iter().zip(&mut self.locks) {
            let path = database.join(name);
            if !lock.as_ref().is_some_and(|lock| is_at(lock, &path)) {
                *lock = match bounded_read::open(&path) {
                    Ok(lock) => Some(lock),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(failed(&path)(error).to_string()),
                };
            }
            let is_locked = lock.as_ref().map_or(Ok(false), is_locked);
            at_work |= is_locked.map_err(|error| {
                format!(
                    "cannot ask for locks on {}: {error}; whether an update is half done is not \
                     known",
                    path.display()
                )
            })?;
        }
        Ok(at_work)
    }
}

fn half_done(status: &Path, journal: &Path) -> Result<Interrupted, PackagesError> {
    let mut states = BTreeMap::new();
    stanzas(status, &mut states)?;
    let mut unrecorded = BTreeMap::new();
    for path in journal_files(journal)? {
        stanzas(&path, &mut unrecorded)?;
    }
    // dpkg empties its journal before it ends: what is left there was interrupted, whatever
    // the state, and apt refuses to work.
    let mut half_done: BTreeMap<String, (Status, String)> = BTreeMap::new();
    for (name, status) in states {
        if status.is_between() && !unrecorded.contains_key(&name) {
            let text = status.text();
            half_done.insert(name, (status, text));
        }
    }
    for (name, status) in unrecorded {
        let text = match status.is_between() {
            true => status.text(),
            false => format!("{}, {UNRECORDED}", status.state),
        };
        half_done.insert(name, (status, text));
    }
    let commands = commands(&half_done);
    let packages = half_done
        .into_iter()
        .map(|(name, (_, state))| Package { name, state });
    Ok(Interrupted {
        manager: Manager::Dpkg,
        packages: packages.take(MAX_PACKAGES).collect(),
        commands,
        run: None,
    })
}

/// The commands that repair these packages, in order: `cargo xtask test` runs them in the states
/// that a killed upgrade or removal leaves; triggers are not among them.
fn commands(half_done: &BTreeMap<String, (Status, String)>) -> Vec<String> {
    if half_done.is_empty() {
        return Vec::new();
    }
    let of = |wanted: &dyn Fn(&Status) -> bool| {
        let names = half_done
            .iter()
            .filter(|(_, (status, _))| status.is_between() && wanted(status))
            .map(|(name, _)| name.as_str())
            .filter(|name| is_plain(name));
        names.collect::<Vec<_>>().join(" ")
    };
    let mut commands = vec!["dpkg --configure -a".to_owned()];
    let mut add = |command: &str, names: &str| {
        if !names.is_empty() {
            commands.push(format!("{command} {names}"));
        }
    };
    add("dpkg --remove", &of(&|status| status.want == "deinstall"));
    add("dpkg --purge", &of(&|status| status.want == "purge"));
    let again = |status: &Status| {
        !status.is_removal() && (status.flag == "reinstreq" || status.state == "half-installed")
    };
    add("apt-get install --reinstall", &of(&again));
    commands.push("apt-get -f install".to_owned());
    commands
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
fn stanzas(path: &Path, states: &mut BTreeMap<String, Status>) -> Result<(), PackagesError> {
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
    states: &mut BTreeMap<String, Status>,
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
    state: Option<Status>,
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
            "Status" => self.state = Status::parse(value),
            _ => {}
        }
    }

    fn into_states(self, states: &mut BTreeMap<String, Status>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_made_anew_is_found() {
        let root = tempfile::tempdir().unwrap();
        let database = root.path().join(DPKG);
        fs::create_dir_all(&database).unwrap();
        let path = database.join("lock");
        let mut dpkg = Dpkg::new(root.path());
        assert!(!dpkg.is_at_work(&database).unwrap() && dpkg.locks[1].is_none());
        for _ in 0..2 {
            let _ = fs::remove_file(&path);
            fs::write(&path, "").unwrap();
            assert!(!dpkg.is_at_work(&database).unwrap());
            assert!(is_at(dpkg.locks[1].as_ref().unwrap(), &path));
        }
        // A lock that cannot be queried does not count as free.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(dpkg.is_at_work(&database).is_err());
    }
}
