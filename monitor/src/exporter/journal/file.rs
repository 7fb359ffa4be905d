//! The recorder's files: `STATE-DIR/recorder/BOOT-ID.rec`, one a boot.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::FallocateFlags;

use livepatch_core::journal::{
    entry::{Entry, LoadedPatch, TimedEntry},
    frame::{self, FrameError},
};

/// A boot's file is never longer. Before it would be, it is written anew with what
/// still matters.
pub const MAX_FILE: u64 = 1 << 20;
/// Boots whose files are kept.
pub const KEPT_BOOTS: usize = 8;
/// Disk space that is taken in advance, so that a disk that fills up later still takes
/// a crash.
const RESERVE: u64 = 64 << 10;
/// Crash signals that a file written anew keeps.
const KEPT_SIGNALS: usize = 64;
/// Ended transitions that it keeps: one of each patch that is loaded.
const KEPT_ENDS: usize = 128;

/// Why something is not recorded or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    /// The file or directory cannot be used.
    #[error(
        "flight recorder: cannot {action} {}: {source}; what is not recorded is not known after a crash (see --state-dir)",
        path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another monitor records there.
    #[error(
        "flight recorder: another monitor holds {}; this one records nothing, stop one of them or give it another --state-dir",
        path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The content is not what this program writes.
    #[error(
        "flight recorder: {}: {source}; it is left alone and not used, move it away",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FrameError,
    },
}

/// What a boot before this one left.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierBoot {
    /// Its id.
    pub boot_id: String,
    /// Its notes.
    pub notes: Vec<TimedEntry>,
    /// Some of its notes were lost: a bit has flipped.
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
    /// Held as long as this is.
    _lock: File,
}

/// A recorder with what its file held already: the notes of a monitor before this one.
#[derive(Debug)]
pub struct Opened {
    /// To go on with.
    pub recorder: Recorder,
    /// The notes of this boot so far.
    pub notes: Vec<TimedEntry>,
    /// What was wrong with the file, and mended.
    pub problem: Option<String>,
}

impl Recorder {
    /// Opens the boot's file. A torn tail is cut.
    ///
    /// # Errors
    /// The directory cannot be used, another monitor has it, or the file is of a
    /// newer version; then nothing is touched.
    pub fn open(state_dir: &Path, boot_id: &str) -> Result<Opened, RecorderError> {
        let directory = state_dir.join("recorder");
        crate::state_dir::make(&directory).map_err(io_error("make", &directory))?;
        let lock = lock(&directory)?;
        let path = directory.join(format!("{boot_id}.rec"));
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        let decoded = frame::decode(&bytes).map_err(|source| RecorderError::Content {
            path: path.clone(),
            source,
        })?;
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
            _lock: lock,
        };
        if decoded.good == 0 {
            recorder.write(&frame::HEADER)?;
            sync_directory(&recorder.directory)?;
        } else if decoded.torn > 0 {
            let cut = recorder.file.set_len(recorder.length);
            cut.map_err(io_error("cut", &recorder.path))?;
        }
        for noted in &decoded.notes {
            recorder.essence.take(noted);
        }
        let problem = (decoded.damaged > 0 || decoded.torn > 0).then(|| {
            format!(
                "{}: {} damaged places skipped, {} torn bytes cut off",
                recorder.path.display(),
                decoded.damaged,
                decoded.torn
            )
        });
        Ok(Opened {
            recorder,
            notes: decoded.notes,
            problem,
        })
    }

    /// Appends a note; on return it is on stable storage.
    ///
    /// # Errors
    /// The disk does not take it. The file stays whole and the next note is tried
    /// anew.
    pub fn append(&mut self, noted: &TimedEntry) -> Result<(), RecorderError> {
        let frame = frame::encode(noted).map_err(|source| RecorderError::Content {
            path: self.path.clone(),
            source,
        })?;
        if self.length + frame.len() as u64 > MAX_FILE {
            self.write_anew()?;
        }
        self.write(&frame)?;
        self.essence.take(noted);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RecorderError> {
        let end = self.length + bytes.len() as u64;
        if end > self.reserved {
            // No more than a precaution: where it fails, the write itself decides.
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
            // Half a frame would be taken for damage later on. If it cannot be cut
            // off now, the next write overwrites it.
            let _ = self.file.set_len(self.length);
            return Err(io_error("write", &self.path)(source));
        }
        self.length = end;
        Ok(())
    }

    /// Replaces the file by one that holds what still matters.
    fn write_anew(&mut self) -> Result<(), RecorderError> {
        let fresh = self.path.with_extension("new");
        let mut content = frame::HEADER.to_vec();
        for noted in self.essence.notes() {
            let encoded = frame::encode(noted).map_err(|source| RecorderError::Content {
                path: self.path.clone(),
                source,
            })?;
            content.extend(encoded);
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&fresh)
            .map_err(io_error("make", &fresh))?;
        file.write_all_at(&content, 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&fresh, &self.path))
            .map_err(io_error("write", &fresh))?;
        sync_directory(&self.directory)?;
        self.file = file;
        self.length = content.len() as u64;
        self.reserved = 0;
        Ok(())
    }

    /// What the boots before this one left, the oldest first, and what of it could not
    /// be read.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn earlier_boots(&self) -> Result<(Vec<EarlierBoot>, Vec<RecorderError>), RecorderError> {
        let mut boots: Vec<EarlierBoot> = Vec::new();
        let mut problems = Vec::new();
        for (boot_id, path) in self.earlier_files()? {
            let decoded = read(&path)
                .map_err(io_error("read", &path))
                .and_then(|bytes| {
                    frame::decode(&bytes).map_err(|source| RecorderError::Content { path, source })
                });
            match decoded {
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

    /// Removes the files of all but the latest [`KEPT_BOOTS`] boots before this one.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn prune(&self) -> Result<(), RecorderError> {
        let files = self.earlier_files()?;
        let surplus = files.len().saturating_sub(KEPT_BOOTS);
        for (_, path) in files.into_iter().take(surplus) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// Id and file of the boots before this one, by the time of their last note.
    fn earlier_files(&self) -> Result<Vec<(String, PathBuf)>, RecorderError> {
        let failed = io_error("read", &self.directory);
        let mut files = Vec::new();
        let entries = fs::read_dir(&self.directory).map_err(&failed)?;
        for entry in entries {
            let entry = entry.map_err(&failed)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(boot_id) = name.strip_suffix(".rec") else {
                continue;
            };
            if boot_id == self.boot_id {
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
}

/// Reads a file whole; one that is longer than the recorder writes is not its.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::bounded_read::open(path)?
        .take(2 * MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn lock(directory: &Path) -> Result<File, RecorderError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(crate::bounded_read::unwaiting())
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(RecorderError::Locked { path }),
        Err(fs::TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn sync_directory(directory: &Path) -> Result<(), RecorderError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync", directory))
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> RecorderError + use<> {
    let path = path.to_owned();
    move |source| RecorderError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// The notes that a file written anew keeps: the boot, what is loaded and since when it
/// is in force, what goes on, what ended last, the last signals.
#[derive(Debug, Default)]
struct Essence {
    kept: VecDeque<TimedEntry>,
}

impl Essence {
    fn take(&mut self, noted: &TimedEntry) {
        self.kept.retain(|kept| !replaces(&noted.note, &kept.note));
        match &noted.note {
            Entry::Loaded { .. } => return,
            Entry::Patches { patches } => self.forget_ends(patches),
            _ => {}
        }
        self.kept.push_back(noted.clone());
        self.limit(KEPT_SIGNALS, |note| matches!(note, Entry::Signal { .. }));
        self.limit(KEPT_ENDS, |note| matches!(note, Entry::Ended { .. }));
    }

    /// Since when a patch is in force matters while it is loaded; the last end does
    /// whatever it was of.
    fn forget_ends(&mut self, loaded: &[LoadedPatch]) {
        let is_end = |kept: &TimedEntry| matches!(kept.note, Entry::Ended { .. });
        let last = self.kept.iter().rposition(is_end);
        let mut at = 0;
        self.kept.retain(|kept| {
            at += 1;
            let Entry::Ended { patch, .. } = &kept.note else {
                return true;
            };
            let lives = loaded.iter().any(|it| Some(&it.name) == patch.as_ref());
            lives || Some(at - 1) == last
        });
    }

    /// Drops the oldest of more than `most` notes of a kind.
    fn limit(&mut self, most: usize, is_of_kind: impl Fn(&Entry) -> bool) {
        let is_of_kind = |kept: &TimedEntry| is_of_kind(&kept.note);
        if self.kept.iter().filter(|kept| is_of_kind(kept)).count() > most
            && let Some(oldest) = self.kept.iter().position(is_of_kind)
        {
            self.kept.remove(oldest);
        }
    }

    fn notes(&self) -> impl Iterator<Item = &TimedEntry> {
        self.kept.iter()
    }
}

/// Whether the one note is all that matters of the two.
fn replaces(new: &Entry, kept: &Entry) -> bool {
    match (new, kept) {
        (Entry::Watching | Entry::Stopped, Entry::Watching | Entry::Stopped)
        | (Entry::Patches { .. }, Entry::Patches { .. })
        | (Entry::Transition { .. } | Entry::Ended { .. }, Entry::Transition { .. }) => true,
        (Entry::Ended { patch, .. }, Entry::Ended { patch: before, .. }) => {
            before.is_none() || patch == before
        }
        (Entry::Load { patch } | Entry::Loaded { patch }, Entry::Load { patch: before }) => {
            patch == before
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
