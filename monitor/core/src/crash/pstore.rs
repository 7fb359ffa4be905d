//! What survives in pstore: a dump in parts, a file each.
//!
//! `fs/pstore/platform.c` (`pstore_dump`) puts `Panic#2 Part1` before the text; the
//! number counts the dumps of a boot, part 1 is the *newest* text. The same in 6.1,
//! 6.12 and 7.2.

use std::collections::BTreeMap;

use super::parser::{Anchor, last_uptime};

/// Parts of one dump that are joined; `kmsg_bytes` makes it two or three.
const MAX_PARTS: usize = 4096;

/// What a file's name says: `dmesg-erst-7711347904312508417`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// `erst`, `ramoops`, `efi_pstore` or another.
    pub backend: String,
    /// The backend's number of the record.
    pub id: u64,
    /// `.enc.z`: the kernel could not decompress it, so nobody can read it.
    pub compressed: bool,
}

impl Name {
    /// None for files that are not kernel logs of pstore.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("dmesg-")?;
        let (rest, compressed) = match rest.strip_suffix(".enc.z") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (backend, id) = rest.rsplit_once('-')?;
        let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self {
            backend: backend.to_owned(),
            id: plain.then(|| id.parse().ok())??,
            compressed,
        })
    }

    /// When the record's number was made, in seconds since 1970. Of ERST that is
    /// when the *boot's first* record was written: later ones count on from it
    /// (`cper_next_record_id`). Of EFI it is the record's own
    /// (`drivers/firmware/efi/efi-pstore.c`, `generic_id`). Ramoops counts from 0.
    #[must_use]
    pub fn unix_seconds(&self) -> Option<u64> {
        match self.backend.as_str() {
            "erst" => Some(self.id >> 32),
            "efi_pstore" | "efi" => Some(self.id / 100_000),
            _ => None,
        }
    }
}

/// The first line of a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    /// `Panic`, `Oops`, or another reason of `kmsg_dump`.
    pub reason: String,
    /// The dump's number in its boot, from 1.
    pub number: u32,
    /// The part, from 1, the newest.
    pub part: u32,
}

impl Header {
    /// The header of a file's content, and the text behind it.
    #[must_use]
    pub fn parse(content: &[u8]) -> Option<(Self, &[u8])> {
        let end = content.iter().take(128).position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(content.get(..end)?).ok()?.trim_end();
        let (reason, rest) = line.split_once('#')?;
        let (number, part) = rest.split_once(" Part")?;
        let named = !reason.is_empty() && reason.bytes().all(|byte| byte.is_ascii_alphabetic());
        let header = Self {
            reason: named.then(|| reason.to_owned())?,
            number: number.parse().ok()?,
            part: part.parse().ok()?,
        };
        Some((header, content.get(end + 1..)?))
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, where it still has the one that pstore gave it.
    pub name: Option<Name>,
    /// Its first line.
    pub header: Header,
    /// The rest.
    pub text: Vec<u8>,
    /// How the reader names it.
    pub file: String,
}

/// The parts in one content, which are several where somebody has put the files
/// together: systemd-pstore does (`dmesg.txt`), and so does `cat *`. None if it does
/// not begin with a header.
#[must_use]
pub fn split<'a>(content: &'a [u8], name: Option<&Name>, file: &str) -> Vec<Part> {
    let mut parts: Vec<(Header, &'a [u8])> = Vec::new();
    let mut rest = content;
    while let Some((header, text)) = Header::parse(rest) {
        let next = headers(text).next().unwrap_or(text.len());
        let (text, behind) = text.split_at_checked(next).unwrap_or((text, &[]));
        parts.push((header, text));
        rest = behind;
        if parts.len() == MAX_PARTS {
            break;
        }
    }
    let part = |(header, text): (Header, &[u8])| Part {
        name: name.cloned(),
        header,
        text: text.to_owned(),
        file: file.to_owned(),
    };
    parts.into_iter().map(part).collect()
}

/// Where lines begin that are headers.
fn headers(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line))
        })
        .filter(|(_, line)| Header::parse(line).is_some())
        .map(|(start, _)| start)
}

/// A dump, joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// `Panic` or `Oops`.
    pub reason: String,
    /// Its number in its boot.
    pub number: u32,
    /// The text, oldest first.
    pub text: Vec<u8>,
    /// The boot's clock, from the record's number.
    pub anchor: Option<Anchor>,
    /// Parts that are not there though a later number is.
    pub missing: u32,
    /// The files, oldest text first.
    pub files: Vec<String>,
}

/// What keeps dumps apart: those of two boots have the same numbers, but were not
/// made at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    backend: Option<String>,
    time: Option<u64>,
    reason: String,
    number: u32,
}

/// Joins parts, in whatever order they come, into dumps, oldest first. Where the numbers are not
/// times (ramoops, renamed files), a part that occurs twice starts another dump.
#[must_use]
pub fn join(mut parts: Vec<Part>) -> Vec<Dump> {
    parts.sort_by(|one, two| one.name.cmp(&two.name));
    let mut dumps: Vec<(Key, BTreeMap<u32, Part>)> = Vec::new();
    for part in parts {
        let name = part.name.as_ref();
        let key = Key {
            backend: name.map(|name| name.backend.clone()),
            time: name.and_then(Name::unix_seconds),
            reason: part.header.reason.clone(),
            number: part.header.number,
        };
        let open = dumps.iter_mut().rev().find(|(known, parts)| {
            *known == key && !parts.contains_key(&part.header.part) && parts.len() < MAX_PARTS
        });
        match open {
            Some((_, parts)) => {
                parts.insert(part.header.part, part);
            }
            None => dumps.push((key, BTreeMap::from([(part.header.part, part)]))),
        }
    }
    let anchors: Vec<(Key, Anchor)> = dumps
        .iter()
        .filter_map(|(key, parts)| Some((key.clone(), anchor(key, parts)?)))
        .collect();
    dumps
        .into_iter()
        .map(|(key, parts)| {
            let of_boot = |other: &Key| other.backend == key.backend && other.time == key.time;
            let anchor = anchors.iter().find(|(other, _)| of_boot(other));
            dump(key.clone(), parts, anchor.map(|(_, anchor)| *anchor))
        })
        .collect()
}

/// The dump's number was made when its newest line was a moment old, if it is the
/// first of its boot.
fn anchor(key: &Key, parts: &BTreeMap<u32, Part>) -> Option<Anchor> {
    let unix_seconds = u32::try_from(key.time?).ok().filter(|time| *time > 0)?;
    let newest = parts.get(&1).filter(|_| key.number == 1)?;
    Some(Anchor {
        unix_seconds: f64::from(unix_seconds),
        uptime_seconds: last_uptime(&newest.text)?,
    })
}

fn dump(key: Key, parts: BTreeMap<u32, Part>, anchor: Option<Anchor>) -> Dump {
    let last = parts.keys().next_back().copied().unwrap_or(0);
    let there = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let mut text = Vec::new();
    let mut files = Vec::new();
    for part in parts.into_values().rev() {
        text.extend_from_slice(&part.text);
        // A part ends in the middle of a line only if it was cut.
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        files.push(part.file);
    }
    Dump {
        reason: key.reason,
        number: key.number,
        text,
        anchor,
        missing: last.saturating_sub(there),
        files,
    }
}
