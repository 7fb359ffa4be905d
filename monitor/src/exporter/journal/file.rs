//! The recorder's files: `STATE-DIR/recorder/BOOT-ID.rec`, one per boot.

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

/// The longest that a boot's file becomes, in bytes. Before it would exceed this, it is rewritten
/// with the entries that still matter.
pub const MAX_FILE: u64 = 1 << 20;
/// Number of boots whose files are kept.
pub const KEPT_BOOTS: usize = 8;
/// Bytes of disk space allocated in advance, so that a crash can be recorded even if the disk fills
/// up later.
const RESERVE: u64 = 64 << 10;
/// Crash signals kept when a file is rewritten.
const KEPT_SIGNALS: usize = 64;
/// Ended transitions kept then: one for each loaded patch.
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
    /// Another monitor uses the directory.
    #[error(
        "flight recorder: another monitor holds {}; this one records nothing, stop one of them or give it another --state-dir",
        path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The content is not in this program's format.
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

/// The entries of an earlier boot.
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
    /// What was wrong with the file and has been repaired.
    pub problem: Option<String>,
}

impl Recorder {
    /// Opens the boot's file. An incomplete entry at its end is cut off.
    ///
    /// # Errors
    /// The directory cannot be used, another monitor holds it, or a newer version wrote the file.
    /// Then nothing is changed.
    pub fn open(state_dir: &Path, boot_id: &str) -> Result<Opened, RecorderError> {
        let directory = state_dir.join("recorder");
        fs::create_dir_all(&directory).map_err(io_error("make", &directory))?;
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

    /// Appends an entry; when this returns, it is on stable storage.
    ///
    /// # Errors
    /// The entry could not be written. The file stays valid, and the next entry is tried again.
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

    /// The entries of earlier boots, the oldest boot first, and what could not be read.
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

/// Reads a whole file. A file that is longer than the recorder writes was not written by it.
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

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> RecorderError + use<> {
    let path = path.to_owned();
    move |source| RecorderError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// The entries that a rewritten file keeps: the boot, the loaded patches and since when they are in
/// force, what is running, what ended last, and the last signals.
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

    /// Drops ends of transitions: an end matters while its patch is loaded, and the last one always
    /// does.
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

    /// Drops the oldest entries of a kind if there are more than `most`.
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

/// Whether `new` makes `kept` superfluous.
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
