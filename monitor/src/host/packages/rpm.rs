//! Hosts of rpm: what dnf 4, dnf5, zypper or rpm left half done. The databases are read where
//! they lie, without a lock and without writing beside them ([`livepatch_core::updates`]).
//!
//! rpm alone keeps no history: packages that it had not come to, and scripts for the end of a
//! transaction that did not run, leave no trace.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use livepatch_core::updates::{
    history::{self, Dialect, Item, Transaction},
    remedy::{self, Tool},
    rpm::{HalfDone, Outcome, State, judge},
    rpmdb,
    run::UpdateRun,
    sqlite::{Database, ReadAt, SqliteError},
};

use super::{
    Found, Interrupted, MAX_PACKAGES, Manager, Package, inside,
    lock::{is_of_live_process, is_path_locked},
    log_files,
    zypp::{self, Script, ZYPP_LOCK},
};
use crate::{
    bounded_read,
    host::stamp::{Cached, stamp},
};

/// Where rpm's database is, the newer places first (rpm 4.17 moved it for Fedora 36 and SUSE;
/// rpm-ostree has it in /usr/share/rpm).
const RPMDB: [&str; 3] = ["usr/lib/sysimage/rpm", "usr/share/rpm", "var/lib/rpm"];
const DNF: &str = "var/lib/dnf";
const DNF5: &str = "usr/lib/sysimage/libdnf5";
/// Held while dnf works.
const DNF_LOCKS: [&str; 2] = ["run/dnf/rpmtransaction.lock", "var/lib/dnf/rpmdb_lock.pid"];

/// All that is read, below the root.
pub(super) const PATHS: [&str; 6] = [RPMDB[0], RPMDB[1], RPMDB[2], DNF, DNF5, "run/dnf"];

/// How often a database is read that is written meanwhile: SQLite folds its WAL into it.
const READINGS: u32 = 3;
/// Bytes of a database or its WAL; a large host's rpm database has some 200 MiB.
const MAX_DATABASE: u64 = 2 << 30;
/// Bytes of a history or its WAL; one of years has some dozen MiB.
const MAX_HISTORY: u64 = 64 << 20;

/// Whether this host has a successor of yum 3, so that a directory of yum's is a left-over.
pub(super) fn has_succeeded_yum(root: &Path) -> bool {
    let mut paths = vec![
        format!("{DNF}/history.sqlite"),
        format!("{DNF5}/transaction_history.sqlite"),
    ];
    paths.extend(RPMDB.map(|folder| format!("{folder}/rpmdb.sqlite")));
    zypp::is_here(root) || paths.iter().any(|path| root.join(path).exists())
}

/// Reads what rpm and the managers above it left.
#[derive(Debug, Default)]
pub(super) struct Rpm {
    read: Cached<Option<Interrupted>>,
    /// Who was at work at the last look.
    pub(super) at_work: Option<Manager>,
    /// What was left when nobody was at work.
    before: Option<Interrupted>,
}

/// rpm's database of a host.
struct RpmDatabase {
    folder: PathBuf,
    /// Why it is not read, if it is not.
    other_format: Option<&'static str>,
}

impl Rpm {
    /// What is half done, for the package manager of this host. While a transaction runs, what
    /// was half done before it.
    pub(super) fn read(&mut self, root: &Path, procfs: &Path) -> Found {
        let Some(RpmDatabase {
            folder,
            other_format,
        }) = database(root)
        else {
            return Ok(None);
        };
        let unknown = |what: &str| {
            format!(
                "{}: {what}; whether an update is half done is not known",
                folder.display()
            )
        };
        let at_work = || at_work(root, procfs, &folder).map_err(|error| unknown(&error));
        self.at_work = at_work()?;
        if self.at_work.is_some() {
            return Ok(self.before.clone());
        }
        let path = folder.join("rpmdb.sqlite");
        for path in HISTORIES
            .iter()
            .map(|(_, history, _)| root.join(history))
            .chain([
                path.clone(),
                root.join(zypp::ZYPP),
                root.join(zypp::SCRIPTS),
            ])
        {
            inside(root, &path)?;
        }
        let histories = HISTORIES.map(|(_, history, _)| root.join(history));
        let mut files = vec![path.clone(), wal_of(&path)];
        files.extend(
            histories
                .iter()
                .flat_map(|path| [path.clone(), wal_of(path)]),
        );
        files.extend(zypp::CHANGING.map(|path| root.join(path)));
        let before = self.before.clone();
        let result = self.read.try_get(files.iter().map(PathBuf::as_path), || {
            if let Some(format) = other_format {
                return without_database(root, format);
            }
            let stamps = || files.iter().map(|file| stamp(file)).collect::<Vec<_>>();
            for _ in 0..READINGS {
                let earlier = stamps();
                let found = judged(root, &path);
                if stamps() == earlier {
                    return found;
                }
            }
            // Written all the time: somebody is at work.
            Ok(before)
        });
        let found = result.cloned().map_err(|error| unknown(&error));
        // It may have begun while the files were read.
        self.at_work = at_work()?;
        if self.at_work.is_some() {
            self.read = Cached::default();
            return Ok(self.before.clone());
        }
        self.before = found?;
        Ok(self.before.clone())
    }
}

/// rpm's database, where this host has one.
fn database(root: &Path) -> Option<RpmDatabase> {
    RPMDB.iter().find_map(|folder| {
        let folder = root.join(folder);
        let formats = [
            ("rpmdb.sqlite", None),
            ("Packages.db", Some("ndb")),
            ("Packages", Some("Berkeley DB")),
        ];
        let there = formats.iter().find(|(name, _)| folder.join(name).exists());
        there.map(|(_, other_format)| RpmDatabase {
            folder,
            other_format: *other_format,
        })
    })
}

/// Of a database that is not read: whether dnf's last transaction was closed is known all the
/// same. That it was is no proof that nothing is half done.
fn without_database(root: &Path, format: &str) -> Result<Option<Interrupted>, String> {
    let why = format!("rpm's database is of the format {format}, which is not read");
    let (manager, last) = last_transaction(root)?;
    let last = last.filter(|last| last.end.is_none());
    not_readable(manager, last.as_ref(), why).map(Some)
}

/// The packages that an unclosed transaction was to install. Of one that was only to remove some,
/// what is left to do is not known.
fn not_readable(
    manager: Manager,
    unclosed: Option<&Transaction>,
    why: String,
) -> Result<Interrupted, String> {
    let state = State::Unreadable { why: why.clone() };
    let half_done: Vec<HalfDone> = unclosed
        .into_iter()
        .flat_map(|last| incoming(last, &state))
        .collect();
    match half_done.is_empty() {
        true => Err(why),
        false => Ok(interrupted(manager, half_done, unclosed)),
    }
}

/// The packages that a transaction was to install, in this state.
fn incoming(transaction: &Transaction, state: &State) -> Vec<HalfDone> {
    let items = transaction.items.iter().filter(|item| item.comes);
    let package = |item: &Item| HalfDone {
        name: item.name.clone(),
        arch: item.arch.clone(),
        evr: item.evr.clone(),
        install_only: false,
        state: state.clone(),
    };
    items.map(package).collect()
}

fn judged(root: &Path, database: &Path) -> Result<Option<Interrupted>, String> {
    let failed = |error: SqliteError| error.to_string();
    let rpmdb = open(database, MAX_DATABASE).map_err(failed)?;
    if !rpmdb::has_packages(&rpmdb).map_err(failed)? {
        return Ok(None);
    }
    let (manager, last) = last_transaction(root)?;
    let unclosed = last.filter(|last| last.end.is_none());
    let scripts = zypp::left_scripts(root)?;
    let of_dnf = unclosed
        .iter()
        .flat_map(|last| &last.items)
        .map(|item| item.name.clone());
    let of_zypper = scripts
        .iter()
        .map(|script: &Script| script.name().to_owned());
    let names: BTreeSet<String> = of_dnf.chain(of_zypper).collect();
    let installed = rpmdb::installed(&rpmdb, &names).map_err(failed)?;
    let mut half_done = match judge(unclosed.as_ref(), &installed) {
        Outcome::Clean | Outcome::ChangedNothing => Vec::new(),
        Outcome::HalfDone(packages) => packages,
        Outcome::NotClosed(packages) if !packages.is_empty() => packages,
        Outcome::NotClosed(_) => unclosed
            .iter()
            .flat_map(|last| incoming(last, &State::NotClosed))
            .collect(),
    };
    let runs = match scripts.is_empty() {
        true => Vec::new(),
        false => log_files::zypper_begins(root)?,
    };
    for left in zypp::unclosed(&scripts, &installed, &runs) {
        if half_done
            .iter()
            .all(|known| (known.package(), &known.evr) != (left.package(), &left.evr))
        {
            half_done.push(left);
        }
    }
    half_done.sort();
    Ok(Some(interrupted(manager, half_done, unclosed.as_ref())))
}

fn interrupted(
    manager: Manager,
    mut half_done: Vec<HalfDone>,
    unclosed: Option<&Transaction>,
) -> Interrupted {
    half_done.truncate(MAX_PACKAGES);
    let tool = match manager {
        Manager::Dnf5 => Tool::Dnf5,
        Manager::Zypper => Tool::Zypper,
        Manager::Rpm => Tool::Rpm,
        Manager::Dnf | Manager::Dpkg | Manager::Yum => Tool::Dnf,
    };
    Interrupted {
        manager,
        commands: remedy::commands(tool, &half_done),
        run: unclosed
            .filter(|_| !half_done.is_empty())
            .map(|unclosed| run_of(manager, unclosed)),
        packages: half_done
            .into_iter()
            .map(|one| Package {
                name: one.package(),
                state: one.text(),
            })
            .collect(),
    }
}

/// A transaction of dnf's as a run.
fn run_of(manager: Manager, transaction: &Transaction) -> UpdateRun {
    let names: BTreeSet<String> = transaction
        .items
        .iter()
        .map(|item| format!("{}.{}", item.name, item.arch))
        .collect();
    UpdateRun {
        manager: manager.name().to_owned(),
        begin_unix_seconds: transaction.begin,
        end_unix_seconds: transaction.end,
        command: transaction.command.clone(),
        user: transaction.user.map(|user| format!("uid {user}")),
        packages: names
            .into_iter()
            .take(livepatch_core::updates::run::MAX_PACKAGES)
            .collect(),
    }
}

/// The managers that keep a history of transactions.
const HISTORIES: [(Manager, &str, Dialect); 2] = [
    (Manager::Dnf, "var/lib/dnf/history.sqlite", Dialect::Dnf4),
    (
        Manager::Dnf5,
        "usr/lib/sysimage/libdnf5/transaction_history.sqlite",
        Dialect::Dnf5,
    ),
];

/// The manager of this host, and its last transaction where it keeps a history that says so.
/// Of two managers the one that worked last.
fn last_transaction(root: &Path) -> Result<(Manager, Option<Transaction>), String> {
    let mut found: Option<(Manager, Option<Transaction>)> = None;
    for (manager, path, dialect) in HISTORIES {
        let path = root.join(path);
        if !path.exists() {
            continue;
        }
        let last = open(&path, MAX_HISTORY).and_then(|database| history::last(&database, dialect));
        let last = last.map_err(|error| format!("{}: {error}", path.display()))?;
        let begin = |last: &Option<Transaction>| last.as_ref().map(|last| last.begin);
        if found
            .as_ref()
            .is_none_or(|(_, known)| begin(known) < begin(&last))
        {
            found = Some((manager, last));
        }
    }
    let without = || match zypp::is_here(root) {
        true => Manager::Zypper,
        false => Manager::Rpm,
    };
    Ok(found.unwrap_or_else(|| (without(), None)))
}

/// The transactions of dnf 4 and dnf5 that began at or after a moment, in seconds since 1970.
pub(super) fn runs_since(root: &Path, since: i64) -> Result<Vec<UpdateRun>, String> {
    let mut runs = Vec::new();
    for (manager, path, dialect) in HISTORIES {
        let path = root.join(path);
        if !path.exists() {
            continue;
        }
        inside(root, &path)?;
        let read = open(&path, MAX_HISTORY)
            .and_then(|database| history::since(&database, dialect, since))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        runs.extend(read.iter().map(|transaction| run_of(manager, transaction)));
    }
    Ok(runs)
}

fn wal_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Which of rpm, dnf or zypper is at work: the write lock on `.rpm.lock`, which is asked for and
/// never taken, or a lock file of dnf's or zypper's of a live process.
fn at_work(root: &Path, procfs: &Path, rpmdb: &Path) -> Result<Option<Manager>, String> {
    let dnf = match root.join(DNF5).exists() {
        true => Manager::Dnf5,
        false => Manager::Dnf,
    };
    let locks = DNF_LOCKS.map(|path| (path, dnf));
    for (path, manager) in locks.into_iter().chain([(ZYPP_LOCK, Manager::Zypper)]) {
        if is_of_live_process(procfs, &root.join(path))? {
            return Ok(Some(manager));
        }
    }
    Ok(is_path_locked(&rpmdb.join(".rpm.lock"))?.then_some(Manager::Rpm))
}

/// The lock files that appear only when a manager is at work, on a host of rpm.
pub(super) fn appearing(root: &Path) -> impl Iterator<Item = PathBuf> {
    let is_here = database(root).is_some();
    let locks = DNF_LOCKS.into_iter().chain([ZYPP_LOCK]);
    let locks: Vec<PathBuf> = locks.map(|path| root.join(path)).collect();
    locks.into_iter().filter(move |_| is_here)
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

fn on_disk(path: &Path, most: u64) -> Result<OnDisk, SqliteError> {
    let failed = |error: std::io::Error| SqliteError::Read(format!("{}: {error}", path.display()));
    let file = bounded_read::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > most {
        return Err(SqliteError::Read(format!(
            "{} has {} MiB, more than the {} MiB that are read",
            path.display(),
            length >> 20,
            most >> 20
        )));
    }
    Ok(OnDisk { file, length })
}

fn open(path: &Path, most: u64) -> Result<Database<OnDisk>, SqliteError> {
    let wal = wal_of(path);
    let wal = match fs::exists(&wal) {
        Ok(true) => Some(on_disk(&wal, most)?),
        _ => None,
    };
    Database::open(on_disk(path, most)?, wal)
}

#[cfg(test)]
mod tests;
