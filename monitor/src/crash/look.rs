//! Finds and reads the dumps of this host, trusting nobody but root.
//!
//! A dump decides whether a rollout continues, so it must be root's own: the file and its
//! directory belong to root and nobody else may write to them, no symbolic link is
//! followed, and the file has no second name. The directory above may be open to others if
//! it is sticky, as Ubuntu's /var/crash is: nobody but root can then replace what root has
//! put there. Files, bytes and time of one look are bounded in all; what others have put
//! there takes none of the entries, and does not come before what is root's.

use std::{
    cmp::Reverse,
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{fd::AsFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat, statat},
    io::Errno,
};

#[cfg(test)]
mod tests;

/// Limits of one search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Directories that are searched and files that are found, all of them trusted.
    pub entries: usize,
    /// After this no directory is listed any further that others may write to: what they
    /// have put there leaves time for what is root's.
    pub open_time: Duration,
    /// Files that are read.
    pub files: usize,
    /// Most bytes that are read in total.
    pub bytes: u64,
    /// Most bytes read of one file, from its end: a crash is the last thing in a log.
    pub file_bytes: u64,
    /// Nothing more is read after this time.
    pub time: Duration,
}

impl Default for Limits {
    /// systemd gives a service 90 s to start. A file is begun in time and then parsed to its
    /// end; 64 MiB of text that no parser understands took 11 s.
    fn default() -> Self {
        Self {
            entries: 16384,
            open_time: Duration::from_secs(5),
            files: 4096,
            bytes: 64 << 20,
            file_bytes: 16 << 20,
            time: Duration::from_secs(10),
        }
    }
}

/// Levels below the given directory: /var/crash/HOST/DATE, /var/lib/systemd/pstore/ID/N.
const MAX_DEPTH: u32 = 3;
/// Most files and directories that are named as not trusted.
const MAX_NAMED: usize = 100;

/// A file that looks like a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Path of the file, relative to the root that was searched.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970, and nanoseconds.
    pub modified: (i64, u64),
    device: u64,
    inode: u64,
}

impl Candidate {
    /// The last component of its path.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Something that looks like a dump, or may contain one, and is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// Path of the file or directory.
    pub path: PathBuf,
    /// Why it is not trusted, as the end of a sentence.
    pub reason: String,
}

/// Content of a file.
#[derive(Debug)]
pub struct Content {
    /// Its bytes, or the last of them.
    pub bytes: Vec<u8>,
    /// Whether `bytes` is the whole file.
    pub whole: bool,
}

/// One search of all places that have dumps.
#[derive(Debug)]
pub struct Look {
    limits: Limits,
    owner: u32,
    began: Instant,
    entries: usize,
    files: usize,
    bytes: u64,
    /// What is not trusted, up to a hundred entries.
    pub untrusted: Vec<Untrusted>,
    /// The number of further ones.
    pub more_untrusted: usize,
    /// Files that were not read because a limit was reached.
    pub left_out: usize,
    /// Where the search ended because a limit was reached.
    pub cut_short: Option<PathBuf>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

impl Look {
    /// Starts a search that trusts the files of user `owner`, which is root (0) except in tests.
    #[must_use]
    pub fn new(owner: u32, limits: Limits) -> Self {
        Self {
            limits,
            owner,
            began: Instant::now(),
            entries: 0,
            files: 0,
            bytes: 0,
            untrusted: Vec::new(),
            more_untrusted: 0,
            left_out: 0,
            cut_short: None,
            problems: Vec::new(),
        }
    }

    /// The files below a directory whose name is `wanted`; none if the directory does not exist.
    pub fn find(&mut self, base: &Path, wanted: fn(&str) -> bool) -> Vec<Candidate> {
        let mut found = Vec::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let result = open(base, flags, Mode::empty()).and_then(|directory| {
            let stat = fstat(&directory)?;
            match self.doubt_directory(&stat) {
                Some(Doubt { reason, sticky }) if !sticky => {
                    self.doubt(base, reason);
                    Ok(())
                }
                doubt => {
                    let open_to_others = doubt.map(|doubt| doubt.reason);
                    self.below(
                        directory,
                        base,
                        0,
                        wanted,
                        open_to_others.as_deref(),
                        &mut found,
                    )
                }
            }
        });
        match result {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => self.cannot_read(base, error),
        }
        found
    }

    fn below(
        &mut self,
        directory: impl AsFd,
        path: &Path,
        depth: u32,
        wanted: fn(&str) -> bool,
        open_to_others: Option<&str>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), Errno> {
        // What others have put here is all seen before the first directory is opened.
        let mut trusted = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let time = open_to_others.map_or(self.limits.time, |_| self.limits.open_time);
            if self.began.elapsed() >= time || trusted.len() > self.limits.entries {
                self.ends_at(path);
                break;
            }
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let wanted_name = wanted(&name.to_string_lossy());
            let path = || path.join(OsStr::from_bytes(name.to_bytes()));
            match entry.file_type() {
                FileType::Symlink => {
                    self.doubt(&path(), "a symbolic link".to_owned());
                    continue;
                }
                FileType::Directory | FileType::Unknown => {}
                _ if wanted_name => {}
                _ => continue,
            }
            let path = path();
            let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It was moved or removed just now.
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    self.cannot_read(&path, error);
                    continue;
                }
            };
            let doubt = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth == MAX_DEPTH => continue,
                FileType::Directory => self.doubt_directory(&stat).map(|doubt| doubt.reason),
                FileType::Symlink => Some("a symbolic link".to_owned()),
                _ if !wanted_name => continue,
                _ => self
                    .doubt_file(&stat)
                    .or(open_to_others.map(|reason| format!("its directory: {reason}"))),
            };
            if let Some(reason) = doubt {
                self.doubt(&path, reason);
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                trusted.push(((stat.st_mtime, stat.st_mtime_nsec), name.to_owned(), path));
            } else if self.admit(&path) {
                found.push(candidate(path, &stat));
            }
        }
        // If there is no room for all of them, the old ones are left out.
        trusted.sort_by_key(|(modified, ..)| Reverse(*modified));
        for (_, name, path) in trusted {
            if !self.admit(&path) {
                break;
            }
            let flags = OFlags::RDONLY
                | OFlags::DIRECTORY
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC
                | OFlags::NONBLOCK;
            let below = openat(&directory, name, flags, Mode::empty())
                .and_then(|below| self.below(below, &path, depth + 1, wanted, None, found));
            match below {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => self.cannot_read(&path, error),
            }
        }
        Ok(())
    }

    /// Whether there is room for another file or directory that is trusted.
    fn admit(&mut self, path: &Path) -> bool {
        let has_room = self.entries < self.limits.entries;
        match has_room {
            true => self.entries += 1,
            false => self.ends_at(path),
        }
        has_room
    }

    fn ends_at(&mut self, path: &Path) {
        self.cut_short.get_or_insert_with(|| path.to_owned());
    }

    /// What is not known because a limit was reached, in words.
    #[must_use]
    pub fn limits_reached(&self) -> Vec<String> {
        let left_out = (self.left_out > 0).then(|| {
            format!(
                "{} dumps were left out, because the reading of dumps at the start is limited in \
                 files, bytes and time; the next start continues with them, and \
                 `livepatch-monitor crashes import` reads them now",
                self.left_out
            )
        });
        let cut_short = self.cut_short.as_ref().map(|path| {
            format!(
                "the search for dumps ended at {}, because it is limited in entries and time: \
                 dumps beyond are not known; remove what is not needed there, and read dumps \
                 with `livepatch-monitor crashes import`",
                path.display()
            )
        });
        left_out.into_iter().chain(cut_short).collect()
    }

    /// Reads a file, if it is still the one that was found and there is time and room for
    /// it. Otherwise it counts as left out.
    pub fn read(&mut self, file: &Candidate) -> Option<Content> {
        let size = file.size.min(self.limits.file_bytes);
        let room = self.limits.bytes.saturating_sub(self.bytes);
        if self.files == self.limits.files || size > room || self.is_late() {
            self.left_out += 1;
            return None;
        }
        self.files += 1;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = open(&file.path, flags, Mode::empty()).and_then(|opened| {
            let stat = fstat(&opened)?;
            Ok((File::from(opened), stat))
        });
        let (opened, stat) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.cannot_read(&file.path, error);
                return None;
            }
        };
        let doubt = match candidate(file.path.clone(), &stat) {
            now if (now.device, now.inode) == (file.device, file.inode) => self.doubt_file(&stat),
            _ => Some("it was replaced while it was being checked".to_owned()),
        };
        if let Some(reason) = doubt {
            self.doubt(&file.path, reason);
            return None;
        }
        match tail(opened, size) {
            Ok(content) => {
                self.bytes += content.bytes.len() as u64;
                Some(content)
            }
            Err(error) => {
                self.cannot_read(&file.path, error);
                None
            }
        }
    }

    fn is_late(&self) -> bool {
        self.began.elapsed() >= self.limits.time
    }

    fn doubt(&mut self, path: &Path, reason: String) {
        if self.untrusted.len() == MAX_NAMED {
            self.more_untrusted += 1;
            return;
        }
        self.untrusted.push(Untrusted {
            path: path.to_owned(),
            reason,
        });
    }

    fn cannot_read(&mut self, path: &Path, error: impl Into<io::Error>) {
        if self.problems.len() < MAX_NAMED {
            let error = error.into();
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "; run as root",
                _ => "",
            };
            let problem = format!("cannot read {}: {error}{remedy}", path.display());
            self.problems.push(problem);
        }
    }

    fn doubt_directory(&self, stat: &Stat) -> Option<Doubt> {
        let reason = self.doubt_owner(stat)?;
        let is_owners = stat.st_uid == self.owner;
        let sticky = is_owners && Mode::from_raw_mode(stat.st_mode).contains(Mode::SVTX);
        Some(Doubt { reason, sticky })
    }

    fn doubt_file(&self, stat: &Stat) -> Option<String> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Some("not a regular file".to_owned());
        }
        if stat.st_nlink > 1 {
            return Some("it has a second name (a hard link)".to_owned());
        }
        self.doubt_owner(stat)
    }

    fn doubt_owner(&self, stat: &Stat) -> Option<String> {
        if stat.st_uid != self.owner {
            return Some(format!("it belongs to user {}", stat.st_uid));
        }
        let others = Mode::WGRP | Mode::WOTH;
        let open = Mode::from_raw_mode(stat.st_mode).intersects(others);
        open.then(|| "users other than root may write to it".to_owned())
    }
}

/// Why a directory is not trusted.
struct Doubt {
    reason: String,
    /// Whether it is sticky, so that others cannot replace what is root's in it.
    sticky: bool,
}

fn candidate(path: PathBuf, stat: &Stat) -> Candidate {
    Candidate {
        path,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        device: stat.st_dev,
        inode: stat.st_ino,
    }
}

/// The last `limit` bytes of a file.
fn tail(mut file: File, limit: u64) -> io::Result<Content> {
    let length = file.metadata()?.len();
    // Files of pstore and other virtual files may have no length.
    let start = length.saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Content {
        bytes,
        whole: start == 0,
    })
}
