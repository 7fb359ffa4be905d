//! Finds and reads the dumps of this host, trusting nobody but root.
//!
//! A dump decides whether a rollout continues, so it must be root's: the file and its directory
//! belong to root and nobody else may write to them, no symbolic link is followed, and the file has
//! no second name. The directory above may be open to others if it is sticky, as Ubuntu's
//! /var/crash is: then nobody but root can replace what root has put there. The files, bytes and
//! time of a search are limited in total.

use std::{
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
    /// Most directory entries that are examined.
    pub entries: usize,
    /// Most files that are read.
    pub files: usize,
    /// Most bytes that are read in total.
    pub bytes: u64,
    /// Most bytes read of one file, from its end: a crash is the last thing in a log.
    pub file_bytes: u64,
    /// Nothing more is read after this time.
    pub time: Duration,
}

impl Default for Limits {
    /// A second or two of parsing; systemd gives a service 90 s to start.
    fn default() -> Self {
        Self {
            entries: 16384,
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
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let wanted_name = wanted(&String::from_utf8_lossy(name));
            let of_interest = match entry.file_type() {
                FileType::RegularFile => wanted_name,
                FileType::Directory | FileType::Symlink | FileType::Unknown => true,
                _ => wanted_name,
            };
            if !of_interest {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name));
            if self.entries == self.limits.entries || self.is_late() {
                self.left_out += 1;
                continue;
            }
            self.entries += 1;
            let stat = match statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It was moved or removed just now.
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    self.cannot_read(&path, error);
                    continue;
                }
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth < MAX_DEPTH => {
                    if let Some(doubt) = self.doubt_directory(&stat) {
                        self.doubt(&path, doubt.reason);
                        continue;
                    }
                    let flags = OFlags::RDONLY
                        | OFlags::DIRECTORY
                        | OFlags::NOFOLLOW
                        | OFlags::CLOEXEC
                        | OFlags::NONBLOCK;
                    let below = openat(&directory, entry.file_name(), flags, Mode::empty())
                        .and_then(|below| self.below(below, &path, depth + 1, wanted, None, found));
                    if let Err(error) = below {
                        self.cannot_read(&path, error);
                    }
                }
                FileType::Directory => {}
                FileType::Symlink => self.doubt(&path, "a symbolic link".to_owned()),
                _ if !wanted_name => {}
                _ => match self
                    .doubt_file(&stat)
                    .or(open_to_others.map(|reason| format!("its directory: {reason}")))
                {
                    Some(reason) => self.doubt(&path, reason),
                    None => found.push(candidate(path, &stat)),
                },
            }
        }
        Ok(())
    }

    /// Reads a file, if it is still the one that was found and the limits of time and size allow
    /// it. Otherwise it is counted as left out.
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
