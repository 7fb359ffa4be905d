//! What is left of crashes on this host, gathered: the recorder's notes of earlier
//! boots, pstore, kdump's logs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use livepatch_core::{
    boots::{Boot, is_of_signal},
    crash::{
        CrashRecord, HostCrash, Kind,
        parser::{self, Anchor, Reading},
        pstore::{self, Part},
    },
};

use super::store::{Store, StoreError};
use crate::kernel::dumps::{self, Found};

/// Directories of kdump that are looked at, /var/crash/DATE.
const MAX_KDUMPS: usize = 1024;

/// A kernel log that was found.
#[derive(Debug)]
pub struct Text {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What its location says about its clock.
    pub anchor: Option<Anchor>,
    /// The files it was read from, oldest text first.
    pub files: Vec<String>,
}

/// Reads files and directories; the parts of a dump in pstore are joined. Returns what
/// could not be used.
pub fn texts<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
    visit: &mut dyn FnMut(Text),
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for path in paths {
        let errors = dumps::read(path, &mut |found| match found {
            Found::Log { path, text } => visit(Text {
                bytes: text,
                anchor: None,
                files: vec![path.to_string_lossy().into_owned()],
            }),
            Found::Part(part) => parts.push(part),
        });
        problems.extend(errors.iter().map(ToString::to_string));
    }
    for dump in pstore::join(parts) {
        if dump.missing > 0 {
            problems.push(format!(
                "{}: {} of the dump's parts {} not there: look for the other files",
                dump.files.join(", "),
                dump.missing,
                if dump.missing == 1 { "is" } else { "are" },
            ));
        }
        visit(Text {
            bytes: dump.text,
            anchor: dump.anchor,
            files: dump.files,
        });
    }
    problems
}

/// Where crashes leave something. What is not there is no trouble.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where the kernel shows its persistent store, /sys/fs/pstore.
    pub pstore: PathBuf,
    /// Where systemd-pstore moves it to, /var/lib/systemd/pstore.
    pub systemd_pstore: PathBuf,
    /// Where kdump puts its logs, /var/crash.
    pub kdump: PathBuf,
}

impl Sources {
    fn paths(&self) -> Vec<PathBuf> {
        let directories = [&self.pstore, &self.systemd_pstore];
        let mut paths: Vec<PathBuf> = directories
            .into_iter()
            .filter(|path| path.exists())
            .cloned()
            .collect();
        paths.extend(kdump_logs(&self.kdump));
        paths
    }
}

/// kdump's logs beside its images, which are as large as the memory and no text:
/// `dmesg.DATE` (Debian's kdump-tools), `vmcore-dmesg.txt` (RHEL's kexec-tools).
fn kdump_logs(directory: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let is_log = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        // A pipe would make the start wait.
        path.is_file()
            && name
                .is_some_and(|name| name.starts_with("dmesg") || name.starts_with("vmcore-dmesg"))
    };
    entries(directory)
        .iter()
        .take(MAX_KDUMPS)
        .flat_map(|path| entries(path))
        .filter(is_log)
        .collect()
}

/// The boot that runs.
#[derive(Clone, Debug)]
pub struct ThisBoot {
    /// Its id.
    pub id: Option<String>,
    /// When it began, in seconds since 1970.
    pub began: Option<f64>,
}

/// Puts everything that can be found out about earlier crashes into the store. A
/// second time it finds nothing new. Returns what could not be read or stored.
pub fn after_boot(
    store: &mut Store,
    boots: &[Boot],
    this: &ThisBoot,
    sources: &Sources,
    soak: Duration,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut put = |store: &mut Store, record, boot: Option<&str>, ended| {
        if let Err(error) = store.put(record, boot, ended) {
            problems.push(error.to_string());
        }
    };
    let paths = sources.paths();
    let unreadable = texts(paths.iter().map(PathBuf::as_path), &mut |found| {
        for (record, boot) in attributed(&found, store, boots, this, soak) {
            let ended = record.panic.is_some();
            put(store, record, boot.as_deref(), Some(ended));
        }
    });
    problems.extend(unreadable);
    for boot in boots {
        if let Err(error) = close(store, boot, soak) {
            problems.push(error.to_string());
        }
    }
    problems
}

/// The crashes of a text, each with its boot.
fn attributed(
    found: &Text,
    store: &Store,
    boots: &[Boot],
    this: &ThisBoot,
    soak: Duration,
) -> Vec<(CrashRecord, Option<String>)> {
    let reading = Reading {
        anchor: found.anchor,
        ..Reading::new(soak.as_secs_f64())
    };
    let read = |reading: &Reading| parser::read(&found.bytes, reading).records;
    let place = |mut record: CrashRecord| {
        let known = store.find(&record).and_then(|known| known.boot_id.clone());
        let of_this = record.when.unix_seconds.zip(this.began);
        let boot = match &known {
            Some(id) => boots
                .iter()
                .find(|boot| boot.history.boot_id.as_ref() == Some(id)),
            None if of_this.is_some_and(|(when, began)| when >= began) => {
                record.files.clone_from(&found.files);
                return (record, this.id.clone());
            }
            None => boots.iter().rev().find(|boot| boot.may_be_of(&record)),
        };
        if let Some(boot) = boot {
            // Read again with what is known of the boot's patches.
            let replaced = boot.history.replaced();
            if !replaced.is_empty() {
                let reading = Reading {
                    replaced,
                    ..reading.clone()
                };
                let again = read(&reading).into_iter().find(|again| again.same(&record));
                record = again.unwrap_or(record);
            }
            boot.supplement(&mut record, soak);
        }
        record.files.clone_from(&found.files);
        let of_boot = boot.and_then(|boot| boot.history.boot_id.clone());
        (record, known.or(of_boot))
    };
    read(&reading).into_iter().map(place).collect()
}

/// Sees to it that a boot which ended badly has a crash that ended it.
fn close(store: &mut Store, boot: &Boot, soak: Duration) -> Result<(), StoreError> {
    let Some(boot_id) = boot.history.boot_id.as_deref() else {
        return Ok(());
    };
    if boot.unclean() != Some(true) {
        return Ok(());
    }
    let of_boot = |crash: &&HostCrash| crash.boot_id.as_deref() == Some(boot_id);
    let mut crashes = store.crashes().iter().filter(of_boot);
    let is_reset = |crash: &&HostCrash| crash.record.kind == Kind::Reset;
    let reset = crashes.clone().find(is_reset).map(|crash| crash.id.clone());
    if crashes.any(|crash| crash.ended_boot == Some(true) && !is_reset(&crash)) {
        // Its dump came to light later than the reset was noticed.
        return reset.map_or(Ok(()), |id| store.remove(&id));
    }
    if reset.is_some() {
        return Ok(());
    }
    let last = boot.last_word(soak);
    let mut crashes = store.crashes().iter().filter(of_boot);
    let known = crashes.find(|crash| is_of_signal(&crash.record, &last));
    match known.map(|crash| crash.id.clone()) {
        Some(id) => store.correct(&id, |crash| crash.ended_boot = Some(true)),
        None => store.put(last, Some(boot_id), Some(true)).map(drop),
    }
}

/// Whether the boot before this one ended badly; none where that is not known.
#[must_use]
pub fn last_boot_unclean(store: &Store, boots: &[Boot]) -> Option<bool> {
    let last = boots.last()?;
    let ended =
        |crash: &HostCrash| crash.boot_id == last.history.boot_id && crash.ended_boot == Some(true);
    if last.history.boot_id.is_some() && store.crashes().iter().any(ended) {
        return Some(true);
    }
    last.unclean()
}

#[cfg(test)]
mod tests;
