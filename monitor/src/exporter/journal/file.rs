//! The recorder's files: `STATE-DIR/recorder/BOOT-ID.rec`, one per boot.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::FallocateFlags;

use super::{
    error::{RecorderError, io_error},
    essence::Essence,
    old_state::{self, OldState},
};
use crate::{kernel::clock, set_aside::set_aside, state_dir};
use livepatch_core::journal::{
    entry::{Entry, TimedEntry},
    frame::{self, Decoded, FrameError},
};

/// The longest that a boot's file becomes, in bytes. Before it would exceed this, it is rewritten
/// with the entries that still matter.
pub const MAX_FILE: u64 = 1 << 20;
/// Number of boots whose files are kept.
pub const KEPT_BOOTS: usize = 8;
/// Bytes of disk space allocated in advance, so that a crash can be recorded even if the disk fills
/// up later.
const RESERVE: u64 = 64 << 10;
/// What a boot before this one left.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierBoot {
    /// Its id.
    pub boot_id: String,
    /// Its notes.
    pub notes: Vec<TimedEntry>,
    /// Some of its entries are damaged and lost.
    pub damaged: bool,
}

/// The present boot's file, open.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    path: PathBuf,
    boot_id: String,
    file: File,
    length: u64,
    reserved: u64,
    essence: Essence,
    /// Some entries are only in `essence`, because the disk did not take them.
    behind: bool,
    /// Held as long as this is.
    _lock: Lock,
}

/// A recorder, and the entries that its file already held from a monitor that ran before in this
/// boot.
#[derive(Debug)]
pub struct Opened {
    /// The recorder, positioned after those entries.
    pub recorder: Recorder,
    /// The entries of this boot so far.
    pub notes: Vec<TimedEntry>,
    /// What was wrong with the files, and what was done about it.
    pub problems: Vec<String>,
}

impl Opened {
    /// Takes over the state that version 0.1.0 kept in a file of its own. The file goes
    /// when its content is on stable storage here.
    fn take_over(&mut self, state_dir: &Path) {
        let old = match old_state::read(state_dir) {
            Ok(None) => return,
            Ok(Some(old)) => old,
            Err(RecorderError::State { path, reason }) => {
                let aside = match set_aside(&path) {
                    Ok(aside) => format!("set aside as {}", aside.display()),
                    Err(error) => error.to_string(),
                };
                let reason = format!("{reason} ({aside})");
                let damaged = RecorderError::State { path, reason };
                return self.problems.push(damaged.to_string());
            }
            Err(error) => return self.problems.push(error.to_string()),
        };
        if let Some(saved) = old.newer_than(&self.notes, &self.recorder.boot_id) {
            let time = clock::boot_time();
            let noted = TimedEntry {
                time,
                unix_seconds: clock::unix_seconds(time),
                note: Entry::State(saved.clone()),
            };
            let appended = self.recorder.append(&noted);
            self.notes.push(noted);
            if let Err(error) = appended {
                return self.problems.push(error.to_string());
            }
        }
        if let Err(error) = OldState::remove(state_dir) {
            self.problems.push(error.to_string());
        }
    }
}

impl Recorder {
    /// Opens the boot's file. A torn tail is cut, a file that is not a journal is set aside
    /// and another one begun, and what version 0.1.0 left is taken over.
    ///
    /// # Errors
    /// The directory cannot be used, another monitor holds it, or a newer version wrote the file.
    /// Then nothing is changed.
    pub fn open(state_dir: &Path, boot_id: &str) -> Result<Opened, RecorderError> {
        let directory = state_dir.join("recorder");
        state_dir::make(&directory).map_err(io_error("make", &directory))?;
        let lock = lock(&directory)?;
        let path = path_of(&directory, boot_id);
        let mut problems = Vec::new();
        let decoded = match read_notes(&path) {
            Err(error) if is_foreign(&error) => {
                let aside = set_aside(&path).map_err(io_error("set aside", &path))?;
                problems.push(format!(
                    "flight recorder: {}: {}; it is set aside as {}, and another one is begun",
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
        let mut recorder = Self {
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
            // A disk that is full now may take the entries later.
            if let Err(error) = recorder.begin() {
                recorder.behind = true;
                problems.push(error.to_string());
            }
            sync_directory(state_dir)?;
        } else if decoded.torn > 0 {
            let cut = recorder.file.set_len(recorder.length);
            cut.map_err(io_error("cut", &recorder.path))?;
        }
        if decoded.version.is_some_and(|it| it < frame::VERSION) {
            recorder.raise_version()?;
        }
        for noted in &decoded.notes {
            recorder.essence.take(noted);
        }
        if decoded.damaged > 0 || decoded.torn > 0 {
            problems.push(format!(
                "{}: {} damaged places skipped, {} torn bytes cut off",
                recorder.path.display(),
                decoded.damaged,
                decoded.torn
            ));
        }
        let mut opened = Opened {
            recorder,
            notes: decoded.notes,
            problems,
        };
        opened.take_over(state_dir);
        Ok(opened)
    }

    /// Begins an empty file.
    fn begin(&mut self) -> Result<(), RecorderError> {
        self.write(&frame::HEADER)?;
        sync_directory(&self.directory)
    }

    /// Makes a file of an earlier version one of this version, which differs in the entries
    /// that may follow. One byte changes: the file is whole whenever the power goes.
    fn raise_version(&mut self) -> Result<(), RecorderError> {
        self.file
            .write_all_at(&frame::HEADER, 0)
            .and_then(|()| self.file.sync_data())
            .map_err(io_error("write", &self.path))
    }

    /// Appends an entry; when this returns, it is on stable storage.
    ///
    /// # Errors
    /// The entry could not be written. The file stays valid, and the entry is written with the
    /// next one that can be, or by [`Self::catch_up`].
    pub fn append(&mut self, noted: &TimedEntry) -> Result<(), RecorderError> {
        let frame = self.encode(noted)?;
        self.essence.take(noted);
        if self.behind && self.catch_up().is_ok() {
            return Ok(());
        }
        let added = self.add(&frame);
        self.behind |= added.is_err();
        added
    }

    /// Writes what could not be written before, if the disk takes it now.
    ///
    /// # Errors
    /// It does not.
    pub fn catch_up(&mut self) -> Result<(), RecorderError> {
        if self.behind {
            self.write_anew()?;
            self.behind = false;
        }
        Ok(())
    }

    /// Whether there are entries that could not be written yet.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.behind
    }

    /// Adds a frame, whose entry is in the essence already.
    fn add(&mut self, frame: &[u8]) -> Result<(), RecorderError> {
        if self.length + frame.len() as u64 > MAX_FILE {
            return self.write_anew();
        }
        if self.length == 0 {
            self.begin()?;
        }
        self.write(frame)
    }

    fn encode(&self, noted: &TimedEntry) -> Result<Vec<u8>, RecorderError> {
        frame::encode(noted).map_err(|source| RecorderError::Content {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RecorderError> {
        let end = self.length + bytes.len() as u64;
        if end > self.reserved {
            // Only a precaution: if it fails, the write itself decides.
            let _ = rustix::fs::fallocate(
                &self.file,
                FallocateFlags::KEEP_SIZE,
                self.length,
                RESERVE.max(bytes.len() as u64),
            );
            self.reserved = self.length + RESERVE;
        }
        let written = self
            .file
            .write_all_at(bytes, self.length)
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a frame would later look like damage. If it cannot be cut off now, the next
            // write overwrites it.
            let _ = self.file.set_len(self.length);
            return Err(io_error("write", &self.path)(source));
        }
        self.length = end;
        Ok(())
    }

    /// Replaces the file with one that holds the entries that still matter.
    fn write_anew(&mut self) -> Result<(), RecorderError> {
        let fresh = self.path.with_extension("new");
        let mut content = frame::HEADER.to_vec();
        for noted in self.essence.notes() {
            content.extend(self.encode(noted)?);
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
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&fresh, &self.path));
        if let Err(source) = written {
            // It takes up space that the next entry may need.
            let _ = fs::remove_file(&fresh);
            return Err(io_error("write", &fresh)(source));
        }
        sync_directory(&self.directory)?;
        self.file = file;
        self.length = content.len() as u64;
        self.reserved = 0;
        Ok(())
    }

    /// The entries of earlier boots, the oldest boot first, and what could not be read.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn earlier_boots(&self) -> Result<(Vec<EarlierBoot>, Vec<RecorderError>), RecorderError> {
        earlier_boots(&self.directory, &self.boot_id)
    }

    /// Removes the files of all but the latest [`KEPT_BOOTS`] boots before this one.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn prune(&self) -> Result<(), RecorderError> {
        let files = earlier_files(&self.directory, &self.boot_id)?;
        let surplus = files.len().saturating_sub(KEPT_BOOTS);
        for (_, path) in files.into_iter().take(surplus) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }
}

/// What a state directory holds in which nothing is written.
#[derive(Debug)]
pub struct ReadOnly {
    /// The boots before this one, the oldest first.
    pub earlier: Vec<EarlierBoot>,
    /// The entries of this boot.
    pub notes: Vec<TimedEntry>,
    /// What could not be read.
    pub problems: Vec<RecorderError>,
}

/// What this boot and those before it have recorded, without writing anything.
///
/// # Errors
/// The directory cannot be read.
pub fn read_only(state_dir: &Path, boot_id: &str) -> Result<ReadOnly, RecorderError> {
    let directory = state_dir.join("recorder");
    let (earlier, mut problems) = earlier_boots(&directory, boot_id)?;
    let notes = match read_notes(&path_of(&directory, boot_id)) {
        Ok(decoded) => decoded.notes,
        Err(error) => {
            problems.push(error);
            Vec::new()
        }
    };
    Ok(ReadOnly {
        earlier,
        notes,
        problems,
    })
}

fn earlier_boots(
    directory: &Path,
    this_boot: &str,
) -> Result<(Vec<EarlierBoot>, Vec<RecorderError>), RecorderError> {
    let mut boots: Vec<EarlierBoot> = Vec::new();
    let mut problems = Vec::new();
    for (boot_id, path) in earlier_files(directory, this_boot)? {
        match read_notes(&path) {
            Ok(decoded) => boots.push(EarlierBoot {
                boot_id,
                notes: decoded.notes,
                damaged: decoded.damaged > 0,
            }),
            Err(error) => problems.push(error),
        }
    }
    Ok((boots, problems))
}

/// Id and file of the boots before this one, by the time of their last note.
fn earlier_files(
    directory: &Path,
    this_boot: &str,
) -> Result<Vec<(String, PathBuf)>, RecorderError> {
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

/// The file of a boot.
pub(super) fn path_of(directory: &Path, boot_id: &str) -> PathBuf {
    directory.join(format!("{boot_id}.rec"))
}

/// Reads the notes of a file, which its monitor may be writing: what is not yet whole at
/// its end is left out. A file that is not there has none.
pub(super) fn read_notes(path: &Path) -> Result<Decoded, RecorderError> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(io_error("read", path)(source)),
    };
    frame::decode(&bytes).map_err(|source| RecorderError::Content {
        path: path.to_owned(),
        source,
    })
}

fn is_foreign(error: &RecorderError) -> bool {
    let foreign = FrameError::Foreign;
    matches!(error, RecorderError::Content { source, .. } if *source == foreign)
}

/// Reads a file whole; one that is longer than the recorder writes is not its.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::bounded_read::open(path)?
        .take(2 * MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Keeps other monitors out until it is dropped.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file is not enough: a process that is being started has a copy of
        // the descriptor until its exec, and the lock with it (flock(2)).
        let _ = self.0.unlock();
    }
}

fn lock(directory: &Path) -> Result<Lock, RecorderError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(crate::bounded_read::unwaiting())
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(fs::TryLockError::WouldBlock) => Err(RecorderError::Locked { path }),
        Err(fs::TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn sync_directory(directory: &Path) -> Result<(), RecorderError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync", directory))
}

#[cfg(test)]
mod tests;
