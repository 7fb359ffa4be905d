//! Hosts of rpm: what dnf 4, dnf5, zypper or rpm left half done. The databases are read where
//! they lie, without a lock and without writing beside them ([`livepatch_core::updates`]).

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use livepatch_core::updates::{
    history::{self, Dialect, Transaction},
    rpm::{Outcome, judge},
    rpmdb,
    sqlite::{Database, ReadAt, SqliteError},
};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::{Interrupted, MAX_PACKAGES, Manager, Package};
use crate::{
    bounded_read,
    host::stamp::{Cached, stamp},
};

/// Where rpm's database is, the newer place first (rpm 4.17 moved it for Fedora 36 and SUSE).
const RPMDB: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];
const DNF: &str = "var/lib/dnf";
const DNF5: &str = "usr/lib/sysimage/libdnf5";
const ZYPP: &str = "var/log/zypp";
/// Held while dnf or zypper works.
const DNF_LOCK: &str = "run/dnf/rpmtransaction.lock";
const ZYPP_LOCK: &str = "run/zypp.pid";

/// All that is read, below the root.
pub(super) const PATHS: [&str; 7] = [RPMDB[0], RPMDB[1], DNF, DNF5, ZYPP, "run/dnf", ZYPP_LOCK];

/// Bytes of a database or its WAL; a large host's rpm database has some 200 MiB.
const MAX_DATABASE: u64 = 2 << 30;

/// Whether this host has a successor of yum 3, so that a directory of yum's is a left-over.
pub(super) fn has_succeeded_yum(root: &Path) -> bool {
    let paths = [
        format!("{DNF}/history.sqlite"),
        format!("{DNF5}/transaction_history.sqlite"),
        format!("{ZYPP}/history"),
        format!("{}/rpmdb.sqlite", RPMDB[0]),
        format!("{}/rpmdb.sqlite", RPMDB[1]),
    ];
    paths.iter().any(|path| root.join(path).exists())
}

/// The commands that repair what is half done, in order. `dnf remove --duplicates` reinstalls
/// the newer version and removes the older one; tried with dnf 4.14 and 4.23. zypper 1.14
/// removes the older version when the package is installed with `--force`.
pub(super) fn remedy(manager: Manager, packages: &[Package]) -> String {
    let names: Vec<&str> = packages
        .iter()
        .map(|package| {
            let name = package.name.as_str();
            name.rsplit_once('.').map_or(name, |(name, _)| name)
        })
        .collect();
    let names = names.join(" ");
    let twice = packages
        .iter()
        .any(|package| package.state.starts_with("old and new"));
    let unclosed = packages
        .iter()
        .all(|package| package.state.starts_with("installed"));
    match manager {
        Manager::Zypper => format!("zypper install --force {names}; zypper update"),
        Manager::Rpm => format!("rpm --verify {names}; install the newer version again"),
        Manager::Dnf5 if unclosed => format!("dnf5 reinstall {names}"),
        Manager::Dnf5 => "dnf5 check; dnf5 remove --duplicates; dnf5 upgrade".to_owned(),
        _ if unclosed => format!("dnf reinstall {names}"),
        _ if twice => "dnf check; dnf remove --duplicates; dnf upgrade".to_owned(),
        _ => "dnf check; dnf upgrade".to_owned(),
    }
}

/// Reads what rpm and the managers above it left.
#[derive(Debug, Default)]
pub(super) struct Rpm {
    read: Cached<Result<Option<Interrupted>, String>>,
    /// What was left when nobody was at work.
    before: Option<Interrupted>,
}

impl Rpm {
    /// What is half done, for the package manager of this host; and why that is unknown. While
    /// a transaction runs, what was half done before it.
    pub(super) fn read(&mut self, root: &Path) -> (Option<Interrupted>, Option<String>) {
        let Some(folder) = RPMDB.iter().map(|folder| root.join(folder)).find(|folder| {
            ["rpmdb.sqlite", "Packages.db", "Packages"]
                .iter()
                .any(|name| folder.join(name).exists())
        }) else {
            return (None, None);
        };
        let unknown = |what: &str| {
            let text = format!(
                "{}: {what}; whether an update is half done is not known",
                folder.display()
            );
            (None, Some(text))
        };
        let database = folder.join("rpmdb.sqlite");
        if !database.exists() {
            let kind = if folder.join("Packages.db").exists() {
                "ndb"
            } else {
                "Berkeley DB"
            };
            return unknown(&format!(
                "rpm's database is of the format {kind}, which is not read"
            ));
        }
        match is_at_work(root, &folder) {
            Ok(false) => {}
            Ok(true) => return (self.before.clone(), None),
            Err(error) => return unknown(&error),
        }
        let files: Vec<PathBuf> = [
            database.clone(),
            wal_of(&database),
            root.join(DNF).join("history.sqlite"),
            wal_of(&root.join(DNF).join("history.sqlite")),
            root.join(DNF5).join("transaction_history.sqlite"),
            wal_of(&root.join(DNF5).join("transaction_history.sqlite")),
        ]
        .to_vec();
        let result = self.read.get(files.iter().map(PathBuf::as_path), || {
            let stamps = || files.iter().map(|file| stamp(file)).collect::<Vec<_>>();
            let before = stamps();
            let found = judged(root, &database).map_err(|error| error.to_string());
            // SQLite folded its WAL into the database meanwhile: the next reading is whole.
            match stamps() == before {
                true => found,
                false => Err("a transaction was written while it was read".to_owned()),
            }
        });
        match result {
            Ok(found) => {
                self.before.clone_from(found);
                (found.clone(), None)
            }
            Err(error) => unknown(error),
        }
    }
}

fn judged(root: &Path, database: &Path) -> Result<Option<Interrupted>, SqliteError> {
    let installed = open(database)?;
    if !rpmdb::has_packages(&installed)? {
        return Ok(None);
    }
    let (manager, last) = last_transaction(root)?;
    let unclosed = last.filter(|last| last.end.is_none());
    let names: BTreeSet<String> = unclosed
        .iter()
        .flat_map(|last| &last.items)
        .map(|item| item.name.clone())
        .collect();
    let installed = rpmdb::installed(&installed, &names)?;
    let half_done = match judge(unclosed.as_ref(), &installed) {
        Outcome::Clean | Outcome::ChangedNothing => Vec::new(),
        Outcome::HalfDone(packages) => packages,
        Outcome::NotClosed(packages) if !packages.is_empty() => packages,
        Outcome::NotClosed(_) => {
            let id = unclosed.map_or(0, |transaction| transaction.id);
            return Ok(Some(Interrupted {
                manager,
                packages: vec![Package {
                    name: format!("transaction {id}"),
                    state: "installed, but the transaction was never closed".to_owned(),
                }],
            }));
        }
    };
    let packages = half_done.into_iter().take(MAX_PACKAGES);
    let packages = packages.map(|one| Package {
        name: one.name,
        state: one.state.text(),
    });
    Ok(Some(Interrupted {
        manager,
        packages: packages.collect(),
    }))
}

/// The manager of this host, and its last transaction where it keeps a history that says so.
/// Of two managers the one that worked last.
fn last_transaction(root: &Path) -> Result<(Manager, Option<Transaction>), SqliteError> {
    let mut found: Option<(Manager, Option<Transaction>)> = None;
    for (manager, path, dialect) in [
        (Manager::Dnf, format!("{DNF}/history.sqlite"), Dialect::Dnf4),
        (
            Manager::Dnf5,
            format!("{DNF5}/transaction_history.sqlite"),
            Dialect::Dnf5,
        ),
    ] {
        let path = root.join(path);
        if !path.exists() {
            continue;
        }
        let last = history::last(&open(&path)?, dialect)?;
        let begin = |last: &Option<Transaction>| last.as_ref().map(|last| last.begin);
        if found
            .as_ref()
            .is_none_or(|(_, known)| begin(known) < begin(&last))
        {
            found = Some((manager, last));
        }
    }
    let without = || match root.join(ZYPP).join("history").exists() {
        true => Manager::Zypper,
        false => Manager::Rpm,
    };
    Ok(found.unwrap_or_else(|| (without(), None)))
}

fn wal_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Whether rpm, dnf or zypper is at work: the write lock on `.rpm.lock`, which is asked for and
/// never taken, or a lock file of dnf's or zypper's that names a live process.
fn is_at_work(root: &Path, rpmdb: &Path) -> Result<bool, String> {
    let lock = rpmdb.join(".rpm.lock");
    match bounded_read::open(&lock) {
        Ok(file) if is_locked(&file) => return Ok(true),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot read {}: {error}", lock.display())),
    }
    for path in [DNF_LOCK, ZYPP_LOCK] {
        let path = root.join(path);
        let text = match bounded_read::read_text(&path, bounded_read::VALUE) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let process = text.trim().parse::<u32>().ok();
        if process.is_some_and(|process| root.join("proc").join(process.to_string()).exists())
            || bounded_read::open(&path).is_ok_and(|file| is_locked(&file))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_locked(file: &File) -> bool {
    let wanted = Flock::from(FlockType::WriteLock);
    matches!(fcntl_getlk(file, &wanted), Ok(Some(_)))
}

/// A file that is read where it lies.
#[derive(Debug)]
struct OnDisk {
    file: File,
    length: u64,
}

impl ReadAt for OnDisk {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| error.to_string())
    }
}

fn on_disk(path: &Path) -> Result<OnDisk, SqliteError> {
    let failed = |error: std::io::Error| SqliteError::Read(format!("{}: {error}", path.display()));
    let file = bounded_read::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > MAX_DATABASE {
        return Err(SqliteError::TooLarge("2 GiB"));
    }
    Ok(OnDisk { file, length })
}

fn open(path: &Path) -> Result<Database<OnDisk>, SqliteError> {
    let wal = wal_of(path);
    let wal = match fs::exists(&wal) {
        Ok(true) => Some(on_disk(&wal)?),
        _ => None,
    };
    Database::open(on_disk(path)?, wal)
}

#[cfg(test)]
mod tests;
