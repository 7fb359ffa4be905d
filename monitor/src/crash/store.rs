//! The crashes of this host, over all its boots: `STATE-DIR/crashes/ID.json`.

mod identity;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use self::identity::{fingerprint, is_named, is_past, is_same_without_uptime};
use crate::{
    bounded_read,
    replace_file::{self, How},
    set_aside::set_aside,
    state_dir,
};
use livepatch_core::crash::{CrashRecord, HostCrash, Kind, Phase};

const VERSION: u32 = 1;
/// Most crash records kept; older crashes are only counted.
const KEPT: usize = 100;
/// Most fingerprints kept of older crashes, so that a dump that is never removed counts once.
const KEPT_IDS: usize = 4096;
const COUNTS: &str = "counts.json";
/// Most bytes of a record, which usually has 20 KiB; a larger file is not one of the store's.
const MAX_FILE: u64 = 4 << 20;

/// Why a crash is not stored or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or directory cannot be used.
    #[error("crash records: cannot {action} {}: {source} (see --state-dir)", path.display())]
    Io {
        /// What was attempted, as the verb after "cannot".
        action: &'static str,
        /// The file or directory that it was attempted on.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A file is not what this program writes.
    #[error("crash records: {}: {reason}; the file is ignored, and will be renamed to *.damaged before a new one is written", path.display())]
    Content {
        /// The file that is not used.
        path: PathBuf,
        /// What is wrong with its content.
        reason: String,
    },
    /// A newer version of the program wrote the file.
    #[error(
        "crash records: {} has format version {version} and this program reads up to {VERSION}; no record is changed: run the newer program",
        path.display()
    )]
    Newer {
        /// The file that a newer version wrote.
        path: PathBuf,
        /// The format version in the file.
        version: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// The counts of crashes whose records are no longer kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Past {
    counts: Vec<(Kind, Phase, u64)>,
    /// Their fingerprints, the oldest first.
    crashes: Vec<String>,
}

/// The crashes, in memory and on disk.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    crashes: Vec<HostCrash>,
    past: Past,
    in_memory: bool,
    /// Files that are not what this program writes. Each is set aside before another is written in
    /// its place.
    damaged: Vec<PathBuf>,
}

/// A store, and the problems of reading it.
#[derive(Debug)]
pub struct Opened {
    /// The store, with everything that could be read.
    pub store: Store,
    /// The error for each file that could not be read.
    pub problems: Vec<StoreError>,
}

impl Store {
    /// Reads the stored crashes. Creates and changes nothing.
    ///
    /// # Errors
    /// The directory cannot be read, or holds a file of a newer version.
    pub fn open(state_dir: &Path) -> Result<Opened, StoreError> {
        let directory = state_dir.join("crashes");
        let mut store = Self {
            crashes: Vec::new(),
            past: Past::default(),
            in_memory: false,
            damaged: Vec::new(),
            directory,
        };
        let mut problems = Vec::new();
        let mut paths = Vec::new();
        match fs::read_dir(&store.directory) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(failed("read", &store.directory))?;
                    paths.push(entry.path());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("read", &store.directory)(source)),
        }
        paths.sort();
        for path in paths {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let result = if path.file_name().is_some_and(|name| name == COUNTS) {
                read(&path).map(|past| store.past = past)
            } else {
                read(&path).map(|crash| store.crashes.push(crash))
            };
            match result {
                Ok(()) => {}
                Err(error @ StoreError::Newer { .. }) => return Err(error),
                Err(error) => {
                    if matches!(error, StoreError::Content { .. }) {
                        store.damaged.push(path);
                    }
                    problems.push(error);
                }
            }
        }
        store.sort();
        Ok(Opened { store, problems })
    }

    /// Keeps the crashes only in memory from now on.
    pub fn forget_disk(&mut self) {
        self.in_memory = true;
    }

    /// The directory of the store; `None` if nothing is written.
    pub(super) fn state_dir(&self) -> Option<&Path> {
        self.directory.parent().filter(|_| !self.in_memory)
    }

    /// Whether anything was ever stored.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// The crashes, the oldest first.
    #[must_use]
    pub fn crashes(&self) -> &[HostCrash] {
        &self.crashes
    }

    /// The stored crash that this record describes.
    #[must_use]
    pub fn find(&self, record: &CrashRecord) -> Option<&HostCrash> {
        self.crashes.iter().find(|known| known.record.same(record))
    }

    /// The number of crashes by kind and phase, including those whose records are no longer kept.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<(Kind, Phase), u64> {
        let mut totals = BTreeMap::new();
        for &(kind, phase, count) in &self.past.counts {
            *totals.entry((kind, phase)).or_default() += count;
        }
        for crash in &self.crashes {
            let record = &crash.record;
            *totals.entry((record.kind, record.phase)).or_default() += 1;
        }
        totals
    }

    /// Adds a crash; returns whether it is new. A known crash is completed with what this record
    /// adds.
    ///
    /// # Errors
    /// It could not be written to disk; in memory it was added.
    pub fn put(
        &mut self,
        record: CrashRecord,
        boot_id: Option<&str>,
        ended_boot: Option<bool>,
    ) -> Result<bool, StoreError> {
        if let Some(known) = self.known(&record, boot_id) {
            let id = known.id.clone();
            self.learn(&id, record, boot_id, ended_boot)?;
            return Ok(false);
        }
        let fingerprint = fingerprint(&record, boot_id);
        if self
            .past
            .crashes
            .iter()
            .any(|past| is_past(past, &fingerprint, &record))
        {
            return Ok(false);
        }
        let crash = HostCrash {
            id: self.new_id(&record, &fingerprint),
            found_unix_seconds: match record.when.unix_seconds {
                Some(_) => None,
                None => now_unix_seconds(),
            },
            boot_id: boot_id.map(str::to_owned),
            ended_boot,
            update: None,
            record,
        };
        self.crashes.push(crash.clone());
        self.sort();
        self.write_crash(&crash)?;
        self.prune()?;
        Ok(true)
    }

    /// The stored crash that a record of this boot describes: the same line at the same
    /// moment, as far as both are known. Two boots may crash alike to the microsecond; then
    /// their dates differ.
    fn known(&self, record: &CrashRecord, boot_id: Option<&str>) -> Option<&HostCrash> {
        let fingerprint = fingerprint(record, boot_id);
        let agree = |known: &&HostCrash| {
            let boots = known.boot_id.as_deref().zip(boot_id);
            boots.is_none_or(|(one, other)| one == other)
        };
        let is_same = |known: &&HostCrash| match record.kind {
            Kind::Reset => known.record.kind == Kind::Reset && is_named(known, &fingerprint),
            _ => known.record.same(record) || is_same_without_uptime(&known.record, record),
        };
        let mut known = self.crashes.iter().filter(agree).filter(is_same);
        let first = known.next()?;
        let of_boot = |known: &&HostCrash| known.boot_id.is_some();
        Some(
            [first]
                .into_iter()
                .chain(known)
                .find(of_boot)
                .unwrap_or(first),
        )
    }

    /// Adds to a stored crash what another record of it knows more.
    ///
    /// # Errors
    /// It could not be written to disk; in memory it was added.
    pub fn learn(
        &mut self,
        id: &str,
        record: CrashRecord,
        boot_id: Option<&str>,
        ended_boot: Option<bool>,
    ) -> Result<(), StoreError> {
        self.correct(id, |known| {
            if !record.files.is_empty() {
                // systemd-pstore moves them, operators remove them.
                let there = |file: &String| record.files.contains(file) || Path::new(file).exists();
                known.record.files.retain(there);
            }
            known.record.absorb(record);
            if known.boot_id.is_none() {
                known.boot_id = boot_id.map(str::to_owned);
            }
            // Once it is known that it ended the boot, nothing contradicts that.
            if known.ended_boot != Some(true) {
                known.ended_boot = ended_boot.or(known.ended_boot);
            }
        })
    }

    /// A name that no stored crash has yet.
    fn new_id(&self, record: &CrashRecord, fingerprint: &str) -> String {
        let time = compact_time(record.when.unix_seconds);
        let kind = record.kind.name().replace('_', "-");
        let id = format!("{time}-{kind}-{fingerprint}");
        let taken = |id: &String| self.crashes.iter().any(|crash| crash.id == *id);
        let others = (2_u32..).map(|number| format!("{time}-{kind}-{number}-{fingerprint}"));
        [id.clone()]
            .into_iter()
            .chain(others)
            .find(|id| !taken(id))
            .unwrap_or(id)
    }

    /// Replaces the record of a stored crash, which keeps its id.
    ///
    /// # Errors
    /// The change could not be written to disk.
    pub fn correct(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut HostCrash),
    ) -> Result<(), StoreError> {
        let Some(crash) = self.crashes.iter_mut().find(|crash| crash.id == id) else {
            return Ok(());
        };
        let before = crash.clone();
        change(crash);
        if *crash == before {
            return Ok(());
        }
        let crash = crash.clone();
        self.write_crash(&crash)
    }

    /// Removes a stored crash that turned out not to be one, or to be a duplicate.
    ///
    /// # Errors
    /// The change could not be written to disk.
    pub fn remove(&mut self, id: &str) -> Result<(), StoreError> {
        self.crashes.retain(|crash| crash.id != id);
        let path = self.path(id);
        fs::remove_file(&path).map_err(failed("remove", &path))
    }

    fn sort(&mut self) {
        // One without a date did not exist before it was found.
        let time = |crash: &HostCrash| {
            let when = crash.record.when.unix_seconds;
            when.or(crash.found_unix_seconds).unwrap_or(0.0)
        };
        self.crashes
            .sort_by(|one, other| time(one).total_cmp(&time(other)));
    }

    /// Removes the oldest records and adds them to the counts.
    fn prune(&mut self) -> Result<(), StoreError> {
        if self.in_memory {
            return Ok(());
        }
        while self.crashes.len() > KEPT {
            let oldest = self.crashes.remove(0);
            let (kind, phase) = (oldest.record.kind, oldest.record.phase);
            let counts = &mut self.past.counts;
            match counts
                .iter_mut()
                .find(|(of_kind, of_phase, _)| (*of_kind, *of_phase) == (kind, phase))
            {
                Some((_, _, count)) => *count += 1,
                None => counts.push((kind, phase, 1)),
            }
            let fingerprint = oldest.id.rsplit('-').next().unwrap_or_default();
            self.past
                .crashes
                .push(match oldest.record.when.unix_seconds {
                    Some(when) => format!("{fingerprint}@{when:.0}"),
                    None => fingerprint.to_owned(),
                });
            if self.past.crashes.len() > KEPT_IDS {
                self.past.crashes.remove(0);
            }
            // Counted before it is removed: if the machine crashes in between, it is counted twice
            // rather than not at all.
            let counts = self.directory.join(COUNTS);
            self.replace(&counts, |store| write(&counts, &store.past))?;
            let path = self.path(&oldest.id);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn write_crash(&mut self, crash: &HostCrash) -> Result<(), StoreError> {
        if self.in_memory {
            return Ok(());
        }
        state_dir::make(&self.directory).map_err(failed("make", &self.directory))?;
        let path = self.path(&crash.id);
        self.replace(&path, |_| write(&path, crash))
    }

    /// Writes a file by means of `write`, after setting aside a damaged one in its place.
    fn replace(
        &mut self,
        path: &Path,
        write: impl FnOnce(&Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(at) = self.damaged.iter().position(|damaged| damaged == path) {
            set_aside(path).map_err(failed("set aside", path))?;
            self.damaged.swap_remove(at);
        }
        write(self)
    }
}

fn now_unix_seconds() -> Option<f64> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    Some(now.as_secs_f64().floor())
}

/// The time as in a crash's id: `20261123T124809Z`.
fn compact_time(unix_seconds: Option<f64>) -> String {
    let date = unix_seconds
        .filter(|seconds| (0.0..253_402_300_800.0).contains(seconds))
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    match date {
        Some(date) => humantime::format_rfc3339_seconds(date)
            .to_string()
            .replace(['-', ':'], ""),
        None => "unknown-time".to_owned(),
    }
}

pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, StoreError> {
    let content = |reason: String| StoreError::Content {
        path: path.to_owned(),
        reason,
    };
    let text = bounded_read::read(path, MAX_FILE).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => content(error.to_string()),
        _ => failed("read", path)(error),
    })?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version > u64::from(VERSION) => {
            let path = path.to_owned();
            return Err(StoreError::Newer { path, version });
        }
        Some(_) => {}
        None => return Err(content("it has no version".into())),
    }
    serde_json::from_value(value).map_err(|error| content(error.to_string()))
}

/// Writes a file so that a reader sees either the old or the new one, even after a crash of the
/// machine.
pub(super) fn write(path: &Path, content: &impl Serialize) -> Result<(), StoreError> {
    let versioned = Versioned {
        version: VERSION,
        content,
    };
    let text = serde_json::to_vec_pretty(&versioned).map_err(|error| StoreError::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let how = How {
        mode: 0o600,
        durable: true,
    };
    replace_file::replace(path, &text, how).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
