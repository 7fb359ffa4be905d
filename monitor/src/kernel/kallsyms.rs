//! The kernel's symbols (/proc/kallsyms): finds the addresses of names and the names of addresses.
//!
//! The file has 150,000 lines and more, so both lookups take one pass with one line in memory.
//! Lines are `address type name`, followed by `\t[module]` for symbols outside the kernel image
//! (s_show, kernel/kallsyms.c). The image's symbols come first and are sorted by address; the rest
//! is not sorted.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{PROC_SUPER_MAGIC, statfs};
use tracing::debug;

use crate::bounded_read;
use livepatch_core::function_ref::CodePlace;

mod lookup;

#[cfg(test)]
mod tests;

/// Most bytes of a line. `KSYM_NAME_LEN` is 512 since 6.1; address, type and module add less than
/// 100.
const MAX_LINE: usize = 4096;

/// How far after a symbol an address may be, in bytes, if another text symbol of the same owner
/// follows and closes the range.
const MAX_DISTANCE: u64 = 1 << 20;

/// The same limit for the last text symbol of an owner, whose end is unknown.
const MAX_DISTANCE_OPEN: u64 = 64 << 10;

/// Pseudo-modules under which the kernel lists generated code: BPF programs (since 5.2) and
/// trampolines (5.7), ftrace trampolines and kprobe slots (both 5.8).
const GENERATED: [&str; 3] = ["bpf", "__builtin__ftrace", "__builtin__kprobes"];

/// Why symbols could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KallsymsError {
    /// The file could not be read.
    #[error("cannot read the kernel's symbols {}: {source}", path.display())]
    Read {
        /// The file that could not be read.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// Every address reads as zero, because the reader is not allowed to see them.
    #[error(
        "the kernel hides the addresses in {}: give CAP_SYSLOG and set kernel.kptr_restrict below 2",
        path.display()
    )]
    Hidden {
        /// The file in which every address is zero.
        path: PathBuf,
    },
    /// No line looks like a symbol.
    #[error("{} holds no symbol in its {lines} lines", path.display())]
    NoSymbols {
        /// The file without symbols.
        path: PathBuf,
        /// Number of lines that were read.
        lines: u64,
    },
}

/// A symbol with the requested name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Address of the symbol in the kernel's memory.
    pub address: u64,
    /// The module it is in; `None` for the kernel image.
    pub module: Option<String>,
}

/// The symbols found for the requested names.
#[derive(Clone, Debug, Default)]
pub struct Found {
    symbols: HashMap<String, Vec<Symbol>>,
}

impl Found {
    /// All symbols with this name, in the file's order: several static functions may share a name.
    #[must_use]
    pub fn all(&self, name: &str) -> &[Symbol] {
        self.symbols.get(name).map_or(&[], Vec::as_slice)
    }

    /// All names with their symbols.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Symbol)> {
        self.symbols
            .iter()
            .flat_map(|(name, places)| places.iter().map(move |place| (name.as_str(), place)))
    }

    /// The address of this name in the kernel image; `None` if it is not there or several symbols
    /// have the name.
    #[must_use]
    pub fn in_vmlinux(&self, name: &str) -> Option<u64> {
        let mut places = self
            .all(name)
            .iter()
            .filter(|symbol| symbol.module.is_none());
        let first = places.next()?;
        places
            .all(|other| other.address == first.address)
            .then_some(first.address)
    }
}

/// Whether the kernel generated this code at run time: a BPF program or
/// trampoline, an ftrace trampoline, a kprobe slot. The ORC unwinder of 6.1
/// and 6.12 has no entry for a BPF trampoline (7.2 knows such frames), so
/// livepatch takes a stack that passes through one for unreliable.
#[must_use]
pub fn is_generated(place: &CodePlace) -> bool {
    let module = place.module.as_deref();
    module.is_some_and(|module| GENERATED.contains(&module))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    address: u64,
    kind: u8,
    name: &'a [u8],
    module: Option<&'a [u8]>,
}

fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (digits, rest) = line.split_at_checked(space)?;
    let [b' ', kind, b' ', rest @ ..] = rest else {
        return None;
    };
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let address = digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })?;
    let (name, module) = match rest.iter().position(|byte| *byte == b'\t') {
        Some(tab) => {
            let (name, module) = rest.split_at_checked(tab)?;
            (name, Some(module.strip_prefix(b"\t[")?.strip_suffix(b"]")?))
        }
        None => (rest, None),
    };
    (!name.is_empty()).then_some(Line {
        address,
        kind: *kind,
        name,
        module,
    })
}

/// The open file. The kernel decides when it is opened whether the reader may see addresses
/// (`kallsyms_open`, kernel/kallsyms.c), so it stays usable after CAP_SYSLOG has been given up.
/// Each lookup reads it again.
#[derive(Debug)]
pub struct Kallsyms {
    path: PathBuf,
    file: File,
}

impl Kallsyms {
    /// Opens `PROCFS/kallsyms`.
    ///
    /// # Errors
    /// [`KallsymsError::Read`]
    pub fn open(procfs: &Path) -> Result<Self, KallsymsError> {
        let path = procfs.join("kallsyms");
        match bounded_read::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(KallsymsError::Read { path, source }),
        }
    }
}

/// Passes every symbol to `visit` until that has enough. An invalid line is skipped: one odd line
/// must not cost all other symbols.
fn for_each(
    symbols: &mut Kallsyms,
    mut visit: impl FnMut(Line<'_>) -> ControlFlow<()>,
) -> Result<(), KallsymsError> {
    let path = symbols.path.clone();
    let failed = |source| KallsymsError::Read {
        path: path.clone(),
        source,
    };
    symbols.file.rewind().map_err(failed)?;
    let mut reader = BufReader::with_capacity(64 << 10, &mut symbols.file);
    let mut line = Vec::with_capacity(256);
    let (mut lines, mut symbols, mut visible, mut cut) = (0_u64, 0_u64, false, false);
    loop {
        line.clear();
        if (&mut reader)
            .take(MAX_LINE as u64)
            .read_until(b'\n', &mut line)
            .map_err(failed)?
            == 0
        {
            break;
        }
        // A line over the limit comes in pieces, none of which is a symbol.
        let piece = cut;
        cut = !line.ends_with(b"\n") && line.len() == MAX_LINE;
        if piece || cut {
            continue;
        }
        lines += 1;
        if let Some(parsed) = parse_line(line.strip_suffix(b"\n").unwrap_or(&line)) {
            symbols += 1;
            visible |= parsed.address != 0;
            if visit(parsed).is_break() {
                break;
            }
        }
    }
    match (symbols, visible) {
        (0, _) => Err(KallsymsError::NoSymbols { path, lines }),
        (_, false) => Err(KallsymsError::Hidden { path }),
        _ => Ok(()),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The addresses of these names, whatever their type letter: from 7.2 on it no longer distinguishes
/// data from text.
///
/// # Errors
/// [`KallsymsError`]; [`KallsymsError::Hidden`] if the kernel hides the addresses.
pub fn find(procfs: &Path, wanted: &[&str]) -> Result<Found, KallsymsError> {
    read_names(procfs, wanted, false)
}

/// Like [`find`], for the kernel image only: from the kernel itself if it answers, otherwise from
/// the file up to the first symbol of a module.
///
/// # Errors
/// Like [`find`].
pub fn find_in_image(procfs: &Path, wanted: &[&str]) -> Result<Found, KallsymsError> {
    if !is_procfs(procfs) {
        return read_names(procfs, wanted, true);
    }
    match lookup::addresses(wanted) {
        Ok(addresses) => {
            let found = wanted.iter().zip(addresses).filter_map(|(name, address)| {
                let (address, module) = (address?, None);
                Some(((*name).to_owned(), vec![Symbol { address, module }]))
            });
            Ok(Found {
                symbols: found.collect(),
            })
        }
        Err(error) => {
            debug!("reading the kernel's symbols from /proc/kallsyms: {error}");
            read_names(procfs, wanted, true)
        }
    }
}

/// Whether this is the running kernel's.
fn is_procfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|status| status.f_type == PROC_SUPER_MAGIC)
}

fn read_names(procfs: &Path, wanted: &[&str], image_only: bool) -> Result<Found, KallsymsError> {
    let names: HashMap<&[u8], &str> = wanted.iter().map(|name| (name.as_bytes(), *name)).collect();
    let mut found = Found::default();
    for_each(&mut Kallsyms::open(procfs)?, |line| {
        if image_only && line.module.is_some() {
            return ControlFlow::Break(());
        }
        if let Some(name) = names.get(line.name) {
            let symbol = Symbol {
                address: line.address,
                module: line.module.map(lossy),
            };
            found
                .symbols
                .entry((*name).to_owned())
                .or_default()
                .push(symbol);
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The nearest symbol before an address, and the nearest after it.
#[derive(Clone, Debug, Default)]
struct Nearest {
    before: Option<Edge>,
    after: Option<Edge>,
}

#[derive(Clone, Debug)]
struct Edge {
    address: u64,
    kind: u8,
    name: Vec<u8>,
    module: Option<Vec<u8>>,
}

impl Edge {
    fn of(line: Line<'_>) -> Self {
        let module = line.module.map(<[u8]>::to_vec);
        Self {
            address: line.address,
            kind: line.kind,
            name: line.name.to_vec(),
            module,
        }
    }

    /// Replaces the symbol, reusing the allocations.
    fn replace(&mut self, line: Line<'_>) {
        self.address = line.address;
        self.kind = line.kind;
        self.name.clear();
        self.name.extend_from_slice(line.name);
        self.module = line.module.map(<[u8]>::to_vec);
    }
}

/// Whether the type letter means text, as in `nm`: local, global or weak.
fn is_text(kind: u8) -> bool {
    matches!(kind, b't' | b'T' | b'w' | b'W')
}

/// Linker symbols of the image that mark the end of a text section and are not a function
/// (include/asm-generic/vmlinux.lds.h).
fn is_end_marker(name: &[u8]) -> bool {
    matches!(name, b"_end" | b"_etext" | b"_einittext") || name.ends_with(b"_text_end")
}

/// The functions that contain these addresses, in one pass over the file (N log M for N symbols and
/// M addresses). An address gets no name rather than a doubtful one, if it is outside every owner's
/// text or too far after the last symbol of a module.
///
/// # Errors
/// [`KallsymsError`]; [`KallsymsError::Hidden`] if the kernel hides the addresses.
pub fn resolve(
    symbols: &mut Kallsyms,
    addresses: &BTreeSet<u64>,
) -> Result<HashMap<u64, CodePlace>, KallsymsError> {
    let asked: Vec<u64> = addresses.iter().copied().collect();
    let mut nearest = vec![Nearest::default(); asked.len()];
    for_each(symbols, |line| {
        // A symbol is stored only with the two addresses around it; `carry` passes it on to
        // addresses that have none closer.
        let index = asked.partition_point(|address| *address < line.address);
        if let Some(slot) = nearest.get_mut(index) {
            match &mut slot.before {
                Some(edge) if is_nearer_before(edge, line) => edge.replace(line),
                Some(_) => {}
                None => slot.before = Some(Edge::of(line)),
            }
        }
        if let Some(slot) = index
            .checked_sub(1)
            .and_then(|index| nearest.get_mut(index))
        {
            match &mut slot.after {
                Some(edge) if line.address < edge.address => edge.replace(line),
                Some(_) => {}
                None => slot.after = Some(Edge::of(line)),
            }
        }
        ControlFlow::Continue(())
    })?;
    carry(nearest.iter_mut().map(|slot| &mut slot.before));
    carry(nearest.iter_mut().rev().map(|slot| &mut slot.after));
    let named = asked.iter().zip(&nearest);
    Ok(named
        .filter_map(|(address, slot)| Some((*address, judge(*address, slot)?)))
        .collect())
}

/// Whether `line` is a better symbol to name an address by than `edge`.
fn is_nearer_before(edge: &Edge, line: Line<'_>) -> bool {
    // Of several symbols at one address, the first that can be a function's name is used.
    let names = |kind, name| is_text(kind) && !is_end_marker(name);
    line.address > edge.address
        || line.address == edge.address
            && !names(edge.kind, &edge.name)
            && names(line.kind, line.name)
}

/// Fills empty slots with the symbol of the slot before, in this order.
///
/// A filled slot already has the nearest symbol: every symbol is stored with the address next to
/// it, so a symbol carried from another slot is further away.
fn carry<'a>(slots: impl Iterator<Item = &'a mut Option<Edge>>) {
    let mut last: Option<Edge> = None;
    for slot in slots {
        match slot {
            Some(edge) => last = Some(edge.clone()),
            None => slot.clone_from(&last),
        }
    }
}

fn judge(address: u64, slot: &Nearest) -> Option<CodePlace> {
    let before = slot.before.as_ref()?;
    if !is_text(before.kind) {
        return None;
    }
    let closing = slot
        .after
        .as_ref()
        .filter(|after| after.module == before.module);
    // The image's symbols end with `_end`: without a symbol after it, the address is outside the
    // image.
    if before.module.is_none() && (closing.is_none() || is_end_marker(&before.name)) {
        return None;
    }
    let closing = closing.filter(|after| is_text(after.kind));
    let limit = if closing.is_some() {
        MAX_DISTANCE
    } else {
        MAX_DISTANCE_OPEN
    };
    let offset = address.checked_sub(before.address)?;
    let size = closing.and_then(|after| after.address.checked_sub(before.address));
    (offset < limit).then(|| CodePlace {
        name: lossy(&before.name),
        module: before.module.as_deref().map(lossy),
        offset: Some(offset),
        size: size.filter(|size| *size <= MAX_DISTANCE),
    })
}
