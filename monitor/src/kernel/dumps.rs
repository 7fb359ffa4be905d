//! Reads the files that a crash leaves, on this host or copied from another one: console logs,
//! kdump's dmesg, pstore directories.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::bounded_read;
use livepatch_core::crash::pstore::{self, Name, Part};

#[cfg(test)]
mod tests;

/// Most bytes read of a file, from its end: a crash is the last thing in a log.
const MAX_FILE: u64 = 64 << 20;
/// How long to wait for data from a pipe.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of one part; pstore's have 10240 before decompression.
const MAX_PART: usize = 1 << 20;
/// Most bytes of all parts together, which are joined in memory.
const MAX_PARTS: usize = 256 << 20;
/// Most entries examined in a directory tree.
const MAX_ENTRIES: usize = 16384;
/// Most levels below the given directory: /var/crash/DATE, /var/lib/systemd/pstore/ID/N.
const MAX_DEPTH: u32 = 3;
/// Bytes examined to distinguish text from other content.
const SAMPLE: usize = 64 << 10;

/// Why a file could not be used, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It could not be read.
    #[error("cannot read {}: {source}{}", path.display(), remedy(source))]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The file is not text.
    #[error("{} is {what}, not a kernel log; {remedy}", path.display())]
    NotText {
        /// The file that is not a log.
        path: PathBuf,
        /// What it seems to be.
        what: &'static str,
        /// What to give instead, as the message ends.
        remedy: &'static str,
    },
    /// The file is too long; only its end was read.
    #[error(
        "{} is longer than {} MiB; only its end was read (for a pipe: its start)",
        path.display(),
        MAX_FILE >> 20
    )]
    Long {
        /// The file of which only the end was read.
        path: PathBuf,
    },
    /// The directory was not read completely.
    #[error("{} {what}; give the files by name", path.display())]
    TooMuch {
        /// The directory that was not read completely.
        path: PathBuf,
        /// What is wrong with it, as the message continues.
        what: &'static str,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; run as root",
        ErrorKind::TimedOut => "; write it to a file first",
        _ => "",
    }
}

/// Content of a file.
#[derive(Debug)]
pub enum Found {
    /// A kernel log as text.
    Log {
        /// Path of the file.
        path: PathBuf,
        /// The text of the file, or its last part.
        text: Vec<u8>,
    },
    /// A part of a dump in pstore.
    Part(Part),
}

/// Reads a file, or all regular files of a directory tree in the order of their names, one at a
/// time. Files that cannot be used are returned as errors; the others are still read. Links inside
/// a directory are not followed.
pub fn read(path: &Path, visit: &mut dyn FnMut(Found)) -> Vec<DumpError> {
    let mut reader = Reader {
        visit,
        errors: Vec::new(),
        entries: 0,
        part_bytes: 0,
    };
    reader.path(path, 0);
    reader.errors
}

struct Reader<'a> {
    visit: &'a mut dyn FnMut(Found),
    errors: Vec<DumpError>,
    entries: usize,
    part_bytes: usize,
}

impl Reader<'_> {
    fn path(&mut self, path: &Path, depth: u32) {
        let result = fs::metadata(path).and_then(|metadata| match metadata.is_dir() {
            true => self.directory(path, depth).map(|()| None),
            false => Ok(Some(metadata)),
        });
        match result {
            Ok(None) => {}
            Ok(Some(metadata)) => self.file(path, &metadata),
            Err(source) => self.errors.push(DumpError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn directory(&mut self, path: &Path, depth: u32) -> io::Result<()> {
        let too_much = |what| DumpError::TooMuch {
            path: path.to_owned(),
            what,
        };
        if depth > MAX_DEPTH {
            self.errors
                .push(too_much("has directories that are nested too deeply"));
            return Ok(());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if self.entries == MAX_ENTRIES {
                self.errors.push(too_much("has too many entries"));
                break;
            }
            self.entries += 1;
            // Not pipes, which would block, nor links, which could lead anywhere.
            if kind.is_file() || kind.is_dir() {
                found.push(entry.path());
            }
        }
        found.sort();
        for path in found {
            self.path(&path, depth + 1);
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) {
        match self.content(path, metadata) {
            Ok(found) => found.into_iter().for_each(|found| (self.visit)(found)),
            Err(error) => self.errors.push(error),
        }
    }

    fn content(&mut self, path: &Path, metadata: &Metadata) -> Result<Vec<Found>, DumpError> {
        let read = |source| DumpError::Read {
            path: path.to_owned(),
            source,
        };
        if compressed(path) {
            return found(path, Vec::new());
        }
        let (text, whole) = match metadata.is_file() {
            true => tail(path),
            false => stream(path),
        }
        .map_err(read)?;
        let length = text.len();
        let found = found(path, text)?;
        if !whole {
            self.errors.push(DumpError::Long {
                path: path.to_owned(),
            });
        }
        if found.iter().any(|found| matches!(found, Found::Part(_))) {
            self.part_bytes += length;
            if self.part_bytes > MAX_PARTS {
                return Err(DumpError::TooMuch {
                    path: path.to_owned(),
                    what: "bytes in parts of pstore",
                });
            }
        }
        Ok(found)
    }
}

/// Determines what the content of a file is: a kernel log, or parts of dumps in pstore, several if
/// files were concatenated.
///
/// # Errors
/// It is neither.
pub fn found(path: &Path, text: Vec<u8>) -> Result<Vec<Found>, DumpError> {
    let not_text = match compressed(path) {
        true => Some((
            "a record that the kernel could not decompress",
            "it is lost unless another part or dump has the text",
        )),
        false => not_text(&text),
    };
    if let Some((what, remedy)) = not_text {
        let path = path.to_owned();
        return Err(DumpError::NotText { path, what, remedy });
    }
    let name = path
        .file_name()
        .and_then(|name| Name::parse(&name.to_string_lossy()));
    let parts = pstore::split(&text, name.as_ref(), &path.to_string_lossy());
    if parts.is_empty() || parts.iter().any(|part| part.text.len() > MAX_PART) {
        let path = path.to_owned();
        return Ok(vec![Found::Log { path, text }]);
    }
    Ok(parts.into_iter().map(Found::Part).collect())
}

/// Whether the kernel could not decompress a record, so that nothing can read it.
fn compressed(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| Name::parse(&name.to_string_lossy()));
    name.is_some_and(|name| name.compressed)
}

/// The last [`MAX_FILE`] bytes, and whether that is the whole file.
fn tail(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut file = bounded_read::open(path)?;
    let length = file.metadata()?.len();
    let long = length > MAX_FILE;
    if long {
        file.seek(SeekFrom::Start(length - MAX_FILE))?;
    }
    let mut text = Vec::new();
    // A log may grow while it is read.
    let read = file.by_ref().take(MAX_FILE).read_to_end(&mut text)?;
    let more = u64::try_from(read).is_ok_and(|read| read == MAX_FILE) && {
        let mut byte = [0];
        file.read(&mut byte)? > 0
    };
    Ok((text, !long && !more))
}

/// The first [`MAX_FILE`] bytes of a file that cannot be read from its end, and whether that is the
/// whole file.
fn stream(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut text = bounded_read::read_stream(path, MAX_FILE + 1, PATIENCE)?;
    let whole = text.len() as u64 <= MAX_FILE;
    text.truncate(usize::try_from(MAX_FILE).unwrap_or(usize::MAX));
    Ok((text, whole))
}

/// What content that is not text looks like, and the remedy.
fn not_text(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const UNPACK: &str = "unpack it first";
    const DMESG: &str = "give the dmesg beside it, or what makedumpfile --dump-dmesg makes of it";
    for (magic, what, remedy) in [
        (&b"\x7fELF"[..], "a memory image", DMESG),
        (b"KDUMP   ", "a memory image", DMESG),
        (b"makedumpfile", "a memory image", DMESG),
        (b"\x1f\x8b", "compressed", UNPACK),
        (b"\xfd7zXZ\0", "compressed", UNPACK),
        (b"\x28\xb5\x2f\xfd", "compressed", UNPACK),
        (b"BZh", "compressed", UNPACK),
    ] {
        if bytes.starts_with(magic) {
            return Some((what, remedy));
        }
    }
    const LOG: (&str, &str) = ("binary", "give a console log, dmesg or a pstore directory");
    let sample = bytes.get(..SAMPLE).unwrap_or(bytes);
    let strange = |byte: u8| byte < 0x20 && !b"\t\n\r\x08\x1b".contains(&byte);
    // UTF-16, as Windows programs write a log: nearly all of a kernel log is ASCII.
    let high = match sample.get(..2) {
        Some([0xff, 0xfe]) => Some(1),
        Some([0xfe, 0xff]) => Some(0),
        _ => None,
    };
    if let Some(high) = high {
        let units = || sample.chunks_exact(2).skip(1);
        let text =
            |unit: &&[u8]| unit.get(high) == Some(&0) && !unit.iter().all(|byte| strange(*byte));
        let text = units().filter(text).count();
        return (text * 10 < units().count() * 9).then_some(LOG);
    }
    // A serial line drops or invents bytes now and then.
    let strange = sample.iter().filter(|byte| strange(**byte)).count();
    (strange > sample.len() / 10).then_some(LOG)
}
