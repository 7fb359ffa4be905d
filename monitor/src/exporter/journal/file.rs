//! The journal's files: `STATE-DIR/recorder/BOOT-ID.rec`, one per boot.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::FallocateFlags;

use super::{
    error::{JournalError, io_error},
    essence::Essence,
    lock::Lock,
    old_state::{self, OldState},
};
use crate::{
    kernel::clock,
    set_aside::set_aside,
    stable_storage::{sync_all, sync_data},
    state_dir,
};
use livepatch_core::journal::{
    entry::{Entry, TimedEntry},
    frame::{self, Decoded, FrameError},
};

/// Maximum size of a boot's file in bytes. Before a file would exceed it, it is rewritten with the
/// entries that still matter. If the disk has no room for that, the file grows into its reserve.
pub const MAX_FILE: u64 = 1 << 20;
/// Number of boots whose files are kept.
pub const KEPT_BOOTS: usize = 8;
/// Bytes of disk space allocated in advance, so that a crash can be recorded even if the disk fills
/// up later. They are allocated again when half of them are used.
const RESERVE: u64 = 64 << 10;

/// Journal of an earlier boot.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierBoot {
    /// Id of that boot, from the file's name.
    pub boot_id: String,
    /// Its journal entries, oldest first.
    pub entries: Vec<TimedEntry>,
    /// Whether some of its entries are damaged and lost.
    pub damaged: bool,
}

/// The current boot's file, open.
#[derive(Debug)]
pub struct JournalFile {
    directory: PathBuf,
    path: PathBuf,
    boot_id: String,
    file: File,
    length: u64,
    /// Offset up to which disk space is allocated.
    reserved: u64,
    essence: Essence,
    /// Whether some entries are only in `essence`, because they could not be written to disk.
    behind: bool,
    /// Locked as long as this exists.
    _lock: Lock,
}

/// A journal, and the entries already in its file from a monitor that ran earlier in this boot.
#[derive(Debug)]
pub struct Opened {
    /// The journal, positioned after those entries.
    pub journal_file: JournalFile,
    /// The entries of this boot so far.
    pub entries: Vec<TimedEntry>,
    /// The problems found in the files, and what was done about them.
    pub problems: Vec<String>,
}

impl Opened {
    /// Takes over the state that version 0.1.0 kept in a separate file. That file is removed once
    /// its content is on stable storage here.
    fn take_over(&mut self, state_dir: &Path) {
        let old = match old_state::read(state_dir) {
            Ok(None) => return,
            Ok(Some(old)) => old,
            Err(JournalError::State { path, reason }) => {
                let aside = match set_aside(&path) {
                    Ok(aside) => format!("set aside as {}", aside.display()),
                    Err(error) => error.to_string(),
                };
                let reason = format!("{reason} ({aside})");
                let damaged = JournalError::State { path, reason };
                return self.problems.push(damaged.to_string());
            }
            Err(error) => return self.problems.push(error.to_string()),
        };
        if let Some(saved) = old.newer_than(&self.entries, &self.journal_file.boot_id) {
            let time = clock::boot_time();
            let recorded = TimedEntry {
                time,
                unix_seconds: clock::unix_seconds(time),
                entry: Entry::State(saved.clone()),
            };
            let appended = self.journal_file.append(&recorded);
            self.entries.push(recorded);
            if let Err(error) = appended {
                return self.problems.push(error.to_string());
            }
        }
        if let Err(error) = OldState::remove(state_dir) {
            self.problems.push(error.to_string());
        }
    }
}

impl JournalFile {
    /// Opens the boot's file. A torn tail is cut off, a file that is not a journal is set aside and
    /// a new one started, and what version 0.1.0 left is taken over.
    ///
    /// # Errors
    /// The directory cannot be used, another monitor holds it, or a newer version wrote the file.
    /// Then nothing has been changed.
    pub fn open(state_dir: &Path, boot_id: &str) -> Result<Opened, JournalError> {
        let directory = state_dir.join("recorder");
        state_dir::make(&directory).map_err(io_error("make", &directory))?;
        let lock = Lock::take(&directory)?;
        let path = path_of(&directory, boot_id);
        let mut problems = Vec::new();
        let decoded = match read_entries(&path) {
            Err(error) if is_foreign(&error) => {
                let aside = set_aside(&path).map_err(io_error("set aside", &path))?;
                problems.push(format!(
                    "journal: {}: {}; it is set aside as {}, and a new one is started",
                    path.display(),
                    FrameError::Foreign,
                    aside.display()
                ));
                Decoded::default()
            }
            decoded => decoded?,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        let mut journal_file = Self {
            directory,
            path,
            boot_id: boot_id.to_owned(),
            file,
            length: decoded.good as u64,
            reserved: 0,
            essence: Essence::default(),
            behind: false,
            _lock: lock,
        };
        if decoded.good == 0 {
            // A disk that is full now may accept the entries later.
            if let Err(error) = journal_file.begin() {
                journal_file.behind = true;
                problems.push(error.to_string());
            }
            sync_directory(state_dir)?;
        } else if decoded.torn > 0 {
            let cut = journal_file.file.set_len(journal_file.length);
            cut.map_err(io_error("cut", &journal_file.path))?;
        }
        if decoded.version.is_some_and(|it| it < frame::VERSION) {
            journal_file.raise_version()?;
        }
        for recorded in &decoded.entries {
            journal_file.essence.take(recorded);
        }
        if decoded.damaged > 0 || decoded.torn > 0 {
            problems.push(format!(
                "{}: {} damaged places skipped, {} torn bytes cut off",
                journal_file.path.display(),
                decoded.damaged,
                decoded.torn
            ));
        }
        let mut opened = Opened {
            journal_file,
            entries: decoded.entries,
            problems,
        };
        opened.take_over(state_dir);
        Ok(opened)
    }

    /// Writes an empty file.
    fn begin(&mut self) -> Result<(), JournalError> {
        self.write(&frame::HEADER)?;
        sync_directory(&self.directory)
    }

    /// Converts a file of an earlier version to this version, which differs in the entries that may
    /// follow. One byte changes: the file is valid whenever the power fails.
    fn raise_version(&mut self) -> Result<(), JournalError> {
        self.file
            .write_all_at(&frame::HEADER, 0)
            .and_then(|()| sync_data(&self.file))
            .map_err(io_error("write", &self.path))
    }

    /// Appends an entry; when this returns without an error, it is on stable storage.
    ///
    /// # Errors
    /// The entry could not be written, or is too long to be written at all. The file stays valid.
    /// What still matters of an entry that could not be written is written with the next one that
    /// can be, or by [`Self::catch_up`].
    pub fn append(&mut self, recorded: &TimedEntry) -> Result<(), JournalError> {
        let frame = self.encode(recorded)?;
        self.essence.take(recorded);
        // The essence contains the entry, so it is written too.
        let caught_up = self.behind && self.replace().is_ok();
        let added = match caught_up {
            true => sync_directory(&self.directory),
            false => self.add(&frame),
        };
        self.behind = added.is_err() || (self.behind && !caught_up);
        added
    }

    /// Writes what could not be written before, if the disk accepts it now.
    ///
    /// # Errors
    /// The disk still does not accept it.
    pub fn catch_up(&mut self) -> Result<(), JournalError> {
        if self.behind {
            self.replace()?;
            sync_directory(&self.directory)?;
            self.behind = false;
        }
        Ok(())
    }

    /// Whether there are entries that could not be written yet.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.behind
    }

    /// Adds a frame whose entry is already in the essence.
    fn add(&mut self, frame: &[u8]) -> Result<(), JournalError> {
        let end = self.length + frame.len() as u64;
        if end > MAX_FILE {
            match self.replace() {
                Ok(()) => return sync_directory(&self.directory),
                Err(error) if end > MAX_FILE + RESERVE => return Err(error),
                // The reserve is part of this file.
                Err(_) => {}
            }
        }
        if self.length == 0 {
            self.begin()?;
        }
        self.write(frame)
    }

    fn encode(&self, recorded: &TimedEntry) -> Result<Vec<u8>, JournalError> {
        frame::encode(recorded).map_err(|source| JournalError::Content {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let end = self.length + bytes.len() as u64;
        self.reserve(end);
        let written = self
            .file
            .write_all_at(bytes, self.length)
            .and_then(|()| sync_data(&self.file));
        if let Err(source) = written {
            // Half a frame would later look like damage. If it cannot be cut off now, the next
            // write overwrites it. The reserve is cut off with it.
            let _ = self.file.set_len(self.length);
            self.reserved = 0;
            return Err(io_error("write", &self.path)(source));
        }
        self.length = end;
        Ok(())
    }

    /// Allocates disk space after this offset. Only a precaution: if it fails, the next write tries
    /// again, and is not affected.
    fn reserve(&mut self, from: u64) {
        if from + RESERVE / 2 <= self.reserved {
            return;
        }
        let (begin, size) = (self.length, from - self.length + RESERVE);
        let reserved = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, begin, size);
        if reserved.is_ok() {
            self.reserved = begin + size;
        }
    }

    /// Replaces the file with one that contains the entries that still matter. The directory is not
    /// synced yet.
    fn replace(&mut self) -> Result<(), JournalError> {
        let fresh = self.path.with_extension("new");
        let mut content = frame::HEADER.to_vec();
        for recorded in self.essence.entries() {
            content.extend(self.encode(recorded)?);
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&fresh)
            .map_err(io_error("make", &fresh))?;
        let written = file
            .write_all_at(&content, 0)
            .and_then(|()| sync_all(&file))
            .and_then(|()| fs::rename(&fresh, &self.path));
        if let Err(source) = written {
            // It uses space that the next entry may need.
            let _ = fs::remove_file(&fresh);
            return Err(io_error("write", &fresh)(source));
        }
        self.file = file;
        self.length = content.len() as u64;
        self.reserved = 0;
        self.reserve(self.length);
        Ok(())
    }

    /// The entries of earlier boots, the oldest boot first, and what could not be read.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn earlier_boots(&self) -> Result<(Vec<EarlierBoot>, Vec<JournalError>), JournalError> {
        earlier_boots(&self.directory, &self.boot_id)
    }

    /// Removes the files of all earlier boots except the latest [`KEPT_BOOTS`].
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn prune(&self) -> Result<(), JournalError> {
        let files = earlier_files(&self.directory, &self.boot_id)?;
        let surplus = files.len().saturating_sub(KEPT_BOOTS);
        for (_, path) in files.into_iter().take(surplus) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }
}

/// Content of a state directory, read without writing to it.
#[derive(Debug)]
pub struct ReadOnly {
    /// The boots before this one, the oldest first.
    pub earlier: Vec<EarlierBoot>,
    /// The entries of the current boot.
    pub entries: Vec<TimedEntry>,
    /// What could not be read.
    pub problems: Vec<JournalError>,
}

/// Reads what this boot and those before it have recorded, without writing anything.
///
/// # Errors
/// The directory cannot be read.
pub fn read_only(state_dir: &Path, boot_id: &str) -> Result<ReadOnly, JournalError> {
    let directory = state_dir.join("recorder");
    let (earlier, mut problems) = earlier_boots(&directory, boot_id)?;
    let entries = match read_entries(&path_of(&directory, boot_id)) {
        Ok(decoded) => decoded.entries,
        Err(error) => {
            problems.push(error);
            Vec::new()
        }
    };
    Ok(ReadOnly {
        earlier,
        entries,
        problems,
    })
}

fn earlier_boots(
    directory: &Path,
    this_boot: &str,
) -> Result<(Vec<EarlierBoot>, Vec<JournalError>), JournalError> {
    let mut boots: Vec<EarlierBoot> = Vec::new();
    let mut problems = Vec::new();
    for (boot_id, path) in earlier_files(directory, this_boot)? {
        match read_entries(&path) {
            Ok(decoded) => boots.push(EarlierBoot {
                boot_id,
                entries: decoded.entries,
                damaged: decoded.damaged > 0,
            }),
            Err(error) => problems.push(error),
        }
    }
    Ok((boots, problems))
}

/// Id and file of the boots before this one, by the time of their last entry.
fn earlier_files(
    directory: &Path,
    this_boot: &str,
) -> Result<Vec<(String, PathBuf)>, JournalError> {
    let failed = io_error("read", directory);
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).map_err(&failed)?;
    for entry in entries {
        let entry = entry.map_err(&failed)?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(boot_id) = name.strip_suffix(".rec") else {
            continue;
        };
        if boot_id == this_boot {
            continue;
        }
        let modified = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(&failed)?;
        files.push((modified, boot_id.to_owned(), path));
    }
    files.sort();
    let files = files.into_iter().map(|(_, boot_id, path)| (boot_id, path));
    Ok(files.collect())
}

/// Path of a boot's file.
pub(super) fn path_of(directory: &Path, boot_id: &str) -> PathBuf {
    directory.join(format!("{boot_id}.rec"))
}

/// Reads the entries of a file that its monitor may be writing to: an incomplete one at its end is
/// left out. A file that does not exist has none.
pub(super) fn read_entries(path: &Path) -> Result<Decoded, JournalError> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(io_error("read", path)(source)),
    };
    frame::decode(&bytes).map_err(|source| JournalError::Content {
        path: path.to_owned(),
        source,
    })
}

fn is_foreign(error: &JournalError) -> bool {
    let foreign = FrameError::Foreign;
    matches!(error, JournalError::Content { source, .. } if *source == foreign)
}

/// Reads a whole file; one that is longer than a journal can be is not a journal.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::bounded_read::open(path)?
        .take(2 * MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    File::open(directory)
        .and_then(|directory| sync_all(&directory))
        .map_err(io_error("sync", directory))
}

#[cfg(test)]
mod tests;
