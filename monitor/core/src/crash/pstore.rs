//! Dumps in pstore, which consist of parts, one file each.
//!
//! `fs/pstore/platform.c` (`pstore_dump`) puts `Panic#2 Part1` before the text. The number counts
//! the dumps of a boot; part 1 has the *newest* text and is written first. The same in 6.1, 6.12
//! and 7.2.
//!
//! What a name identifies depends on the backend. ERST: the parts of all dumps of a boot are
//! numbered from the second of the first (`drivers/acpi/apei/erst.c`, `cper_next_record_id`). EFI:
//! each part has its own second, so that one dump may have two
//! (`drivers/firmware/efi/efi-pstore.c`). Ramoops: a slot, which is used again after a boot
//! (`fs/pstore/ram.c`). systemd-pstore keeps the names, but moves the parts of one second into a
//! separate directory, with a copy of their text in `dmesg.txt`.

use std::collections::BTreeMap;

use super::{
    CrashRecord, Kind, Signal,
    parser::{Anchor, first_uptime, last_uptime},
};

/// Parts of one dump that are joined; `kmsg_bytes` makes it two or three.
const MAX_PARTS: usize = 4096;
/// Longer than the first line of a part.
const HEADER_BYTES: u64 = 64;
/// Longest time between two parts: firmware takes up to seconds to store a variable.
const MAX_WRITE_SECONDS: u64 = 60;
/// A line may have a time that is earlier than that of the line before by this much, because CPUs
/// print at once.
const OUT_OF_ORDER_SECONDS: f64 = 1.0;
/// Until this long after the start of a boot the log's clock may go back by more, because its
/// source is replaced (seen with 6.1: from 2.5 s to 0.03 s).
const EARLY_SECONDS: f64 = 10.0;

const ERST: &str = "erst";
const RAMOOPS: &str = "ramoops";
const EFI: &str = "efi_pstore";
/// The backend's former name.
const EFI_OLD: &str = "efi";

/// The fields of a file's name, such as `dmesg-erst-7711347904312508417`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// `erst`, `ramoops`, `efi_pstore` or another.
    pub backend: String,
    /// The backend's number of the record.
    pub id: u64,
    /// Whether the name ends with `.enc.z`: the kernel could not decompress the record, and nothing
    /// else can.
    pub compressed: bool,
}

impl Name {
    /// `None` for files that are not kernel logs of pstore.
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

    /// When the record's number was assigned, in seconds since 1970. For ERST that is when the
    /// *boot's first* record was written: later ones are numbered from it (`cper_next_record_id`).
    /// For EFI it is the record's own time (`drivers/firmware/efi/efi-pstore.c`, `generic_id`).
    /// Ramoops counts from 0.
    #[must_use]
    pub fn unix_seconds(&self) -> Option<u64> {
        match self.backend.as_str() {
            ERST => Some(self.id >> 32),
            EFI | EFI_OLD => Some(self.id / 100_000),
            _ => None,
        }
    }
}

/// The first line of a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    /// `Panic`, `Oops`, or another reason of `kmsg_dump`.
    pub reason: String,
    /// Number of the dump in its boot, from 1.
    pub number: u32,
    /// Number of the part, from 1, which is the newest.
    pub part: u32,
}

impl Header {
    /// Splits a file's content into the header and the text after it.
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

/// One record of a dump; a dump larger than a record has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, if it still has the one that pstore gave it.
    pub name: Option<Name>,
    /// The record's first line: reason, number of the dump, number of the part.
    pub header: Header,
    /// When the kernel wrote it, in seconds since 1970, if the file still has that time: pstore
    /// gives a file the record's own time (`fs/pstore/inode.c`).
    pub written: Option<u64>,
    /// The text after the header, as the kernel stored it.
    pub text: Vec<u8>,
    /// Name for the reader's messages.
    pub file: String,
}

/// The parts in one content. It has several if the files were concatenated, as systemd-pstore does
/// (`dmesg.txt`), and `cat *`. `None` if it does not begin with a header.
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
        written: None,
        text: text.to_owned(),
        file: file.to_owned(),
    };
    parts.into_iter().map(part).collect()
}

/// Offsets of the lines that are headers.
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

/// A dump whose parts are joined into one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// The backend that stored it, if the names are those that pstore gave.
    pub backend: Option<String>,
    /// Why the kernel dumped: `Panic` or `Oops`.
    pub reason: String,
    /// Its number in the boot.
    pub number: u32,
    /// The text, oldest first.
    pub text: Vec<u8>,
    /// The boot's clock, derived from the record's number.
    pub anchor: Option<Anchor>,
    /// Number of missing parts, given that one with a higher number exists.
    pub missing: u32,
    /// Number of existing parts.
    pub parts: u32,
    /// Whether the part with the newest text exists, so that the text continues up to the dump.
    pub complete_end: bool,
    /// The files, oldest text first.
    pub files: Vec<String>,
}

impl Dump {
    /// Whether the kernel ended with it; `None` for an oops, which it may have survived.
    #[must_use]
    pub fn ended_boot(&self) -> Option<bool> {
        (self.reason == "Panic").then_some(true)
    }

    /// Reports a store that had no room for all of the log that the kernel gives it, `kmsg_bytes`:
    /// the next dump will not fit either. Ramoops overwrites old records.
    #[must_use]
    pub fn did_not_fit(&self, kmsg_bytes: u64) -> Option<String> {
        let starts = |line: &[u8]| line.windows(14).any(|words| words == b"Linux version ");
        let whole = self.text.split(|byte| *byte == b'\n').any(starts);
        let backend = self
            .backend
            .as_deref()
            .filter(|backend| *backend != RAMOOPS)?;
        // The parts' headers count, too.
        let size = self.text.len() as u64 + u64::from(self.parts) * HEADER_BYTES;
        (!whole && size < kmsg_bytes).then(|| {
            format!(
                "pstore ({backend}) had room for {} bytes of the last dump only, and is full",
                self.text.len()
            )
        })
    }

    /// The crash that a dump proves although its text has no report, because the part with the
    /// report was lost. `None` for dumps made on other occasions (a restart).
    #[must_use]
    pub fn without_report(&self) -> Option<CrashRecord> {
        let (kind, signal, what) = match self.reason.as_str() {
            "Panic" => (Kind::Panic, Signal::Panic, "a panic"),
            "Oops" => (Kind::Oops, Signal::Oops, "an oops"),
            _ => return None,
        };
        let headline = match (self.parts, self.missing) {
            (_, 0) => format!("{what} of which pstore kept no report"),
            (1, missing) => format!(
                "{what} of which pstore kept one part of {}",
                missing.saturating_add(1)
            ),
            (there, missing) => {
                let all = there.saturating_add(missing);
                format!("{what} of which pstore kept {there} parts of {all}")
            }
        };
        let mut record = CrashRecord {
            signals: vec![signal],
            reports: 1,
            headline,
            ..CrashRecord::empty(kind)
        };
        record.when.uptime_seconds = last_uptime(&self.text);
        Some(record)
    }
}

/// A dump under construction.
struct Open {
    parts: BTreeMap<u32, Part>,
    /// The seconds in the names of its parts.
    time: Option<u64>,
}

impl Open {
    fn first(&self) -> Option<&Part> {
        self.parts.values().next()
    }

    fn backend(&self) -> Option<&str> {
        let mut names = self.parts.values().filter_map(|part| part.name.as_ref());
        names.next().map(|name| name.backend.as_str())
    }

    /// Whether a part may belong to this dump, judging by name and header.
    fn concerns(&self, part: &Part) -> bool {
        let name = part.name.as_ref();
        let backend = name.map(|name| name.backend.as_str());
        let of_dump = |first: &Part| {
            (&first.header.reason, first.header.number) == (&part.header.reason, part.header.number)
        };
        let backends = self.backend().zip(backend);
        let times = self.time.zip(name.and_then(Name::unix_seconds));
        let at_once = times.is_none_or(|(one, other)| match backend {
            Some(ERST) => one == other,
            _ => one.abs_diff(other) <= MAX_WRITE_SECONDS,
        });
        self.first().is_some_and(of_dump)
            && backends.is_none_or(|(one, other)| one == other)
            && at_once
    }

    /// Whether it already has this part, which may be in two places: under its own name and in a
    /// concatenated file.
    fn has(&self, part: &Part) -> bool {
        let known = self.parts.get(&part.header.part);
        known.is_some_and(|known| {
            let names = known.name.as_ref().zip(part.name.as_ref());
            known.text.trim_ascii_end() == part.text.trim_ascii_end()
                && names.is_none_or(|(one, other)| one == other)
        })
    }

    /// Whether the part fits between the parts before and after it; if their times are in the wrong
    /// order, they belong to another dump.
    fn has_room(&self, part: &Part) -> bool {
        let number = part.header.part;
        let older = self.parts.range(number.saturating_add(1)..).next();
        let newer = self.parts.range(..number).next_back();
        let named = self.backend() == Some(ERST) && part.name.is_some();
        let in_order = |older: &Part, newer: &Part| {
            let times = last_uptime(&older.text).zip(first_uptime(&newer.text));
            let follows = |(end, start)| end <= start + OUT_OF_ORDER_SECONDS || end < EARLY_SECONDS;
            named || times.is_none_or(follows)
        };
        !self.parts.contains_key(&number)
            && self.parts.len() < MAX_PARTS
            && older.is_none_or(|(_, older)| in_order(older, part))
            && newer.is_none_or(|(_, newer)| in_order(part, newer))
    }
}

/// Joins parts, given in any order, into dumps, oldest first. Reason, number, the times in the
/// names and the times in the text decide what belongs together. A part that exists twice with
/// different texts starts another dump.
#[must_use]
pub fn join(mut parts: Vec<Part>) -> Vec<Dump> {
    // A ramoops slot does not show the order, only its time does. Parts without a name may be
    // copies of those that have one.
    parts.sort_by(|one, two| order(one).cmp(&order(two)));
    let mut dumps: Vec<Open> = Vec::new();
    for part in parts {
        let time = part.name.as_ref().and_then(Name::unix_seconds);
        let mut fitting = dumps.iter_mut().rev().filter(|dump| dump.concerns(&part));
        let mut open = None;
        let known = loop {
            match fitting.next() {
                Some(dump) if dump.has(&part) => break true,
                Some(dump) if open.is_none() && dump.has_room(&part) => open = Some(dump),
                Some(_) => {}
                None => break false,
            }
        };
        match open {
            _ if known => {}
            Some(dump) => {
                dump.time = time.or(dump.time);
                dump.parts.insert(part.header.part, part);
            }
            None => dumps.push(Open {
                time,
                parts: BTreeMap::from([(part.header.part, part)]),
            }),
        }
    }
    let anchors: Vec<_> = dumps.iter().map(anchor).collect();
    let boot = |dump: &Open| (dump.backend() == Some(ERST)).then_some(dump.time)?;
    let boots: Vec<_> = dumps.iter().map(boot).collect();
    let of_boot = |boot: Option<u64>| {
        let mut same = boots.iter().zip(&anchors);
        same.find_map(|(other, anchor)| (boot.is_some() && *other == boot).then_some(*anchor)?)
    };
    let dumps = dumps.into_iter().zip(anchors.iter().zip(&boots));
    dumps
        .map(|(open, (anchor, boot))| dump(open.parts, anchor.or_else(|| of_boot(*boot))))
        .collect()
}

fn order(part: &Part) -> (bool, Option<&str>, Option<u64>, Option<u64>, u32) {
    let name = part.name.as_ref();
    let time = name.and_then(Name::unix_seconds).or(part.written);
    (
        name.is_none(),
        name.map(|name| name.backend.as_str()),
        time,
        name.map(|name| name.id),
        part.header.number,
    )
}

/// Both clocks at a moment shortly after a dump's newest line.
fn anchor(open: &Open) -> Option<Anchor> {
    let newest = open.parts.get(&1)?;
    let named = newest.name.as_ref().and_then(Name::unix_seconds);
    let unix_seconds = match newest.name.as_ref().map(|name| name.backend.as_str()) {
        // Its number is that of the first dump of the boot; its own time is not earlier.
        Some(ERST) => {
            let written = newest
                .written
                .filter(|written| named.is_none_or(|at| *written >= at));
            written.or(named.filter(|_| newest.header.number == 1))
        }
        Some(EFI | EFI_OLD) => named,
        _ => newest.written,
    };
    let unix_seconds = u32::try_from(unix_seconds?).ok().filter(|time| *time > 0)?;
    Some(Anchor {
        unix_seconds: f64::from(unix_seconds),
        uptime_seconds: last_uptime(&newest.text)?,
    })
}

fn dump(parts: BTreeMap<u32, Part>, anchor: Option<Anchor>) -> Dump {
    let last = parts.keys().next_back().copied().unwrap_or(0);
    let there = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let complete_end = parts.contains_key(&1);
    let (mut reason, mut number) = (String::new(), 0);
    let mut backend = None;
    let mut text = Vec::new();
    let mut files: Vec<String> = Vec::new();
    for part in parts.into_values().rev() {
        text.extend_from_slice(&part.text);
        // Unless it was cut off, a part does not end in the middle of a line.
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        if files.last() != Some(&part.file) {
            files.push(part.file);
        }
        (reason, number) = (part.header.reason, part.header.number);
        backend = part.name.map(|name| name.backend).or(backend);
    }
    Dump {
        backend,
        reason,
        number,
        text,
        anchor,
        missing: last.saturating_sub(there),
        parts: there,
        complete_end,
        files,
    }
}
