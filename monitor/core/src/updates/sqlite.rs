//! Reads the tables of an SQLite database without locking it and without writing beside it.
//!
//! An SQLite library cannot do that: opened read-only it fails where the `-shm` file of a
//! database in WAL mode is missing, and where it may write it leaves `-shm` and `-wal` files
//! beside a foreign database. Opened with `immutable=1` it ignores the WAL, which dnf 4 does
//! not fold into the database even after a good exit, and shows the transaction before the
//! last one. Hence this reader: b-trees of tables, varints, overflow pages, and the frames of
//! the WAL up to its last commit. No indexes, no `WITHOUT ROWID`, no query language.
//!
//! Source: <https://www.sqlite.org/fileformat2.html>, format version 1 and 2.

use std::{collections::HashMap, ops::ControlFlow};

/// Where a file's bytes come from.
pub trait ReadAt {
    /// The file's length in bytes.
    fn len(&self) -> u64;

    /// Whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills the buffer from this offset.
    ///
    /// # Errors
    /// The bytes cannot be read, or the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), String>;
}

impl ReadAt for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        let start = usize::try_from(offset).map_err(|_| "offset out of range".to_owned())?;
        let bytes = self
            .get(start..)
            .and_then(|rest| rest.get(..buffer.len()))
            .ok_or_else(|| format!("the file ends before byte {offset}"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// Why a database is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteError {
    /// The file does not begin as an SQLite database does.
    #[error("not an SQLite database")]
    NotSqlite,
    /// The bytes cannot be read.
    #[error("{0}")]
    Read(String),
    /// A value in the file is out of range.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// The table is not there.
    #[error("no table {0}")]
    NoTable(String),
    /// More than this reader takes in.
    #[error("the database has more than {0}")]
    TooLarge(&'static str),
}

/// A column's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text, as its bytes: not every writer keeps to UTF-8.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The integer.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, with U+FFFD for what is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }
}

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// Bytes of a WAL that are read: SQLite folds it in at 4 MiB by default.
const MAX_WAL: u64 = 256 << 20;
/// Levels of a b-tree; SQLite's own limit is 20 (`BTCURSOR_MAX_DEPTH`).
const MAX_DEPTH: usize = 20;
/// Pages visited by one call: a bound on what a tree of loops can cost.
const MAX_PAGES: u32 = 4 << 20;
/// Bytes of one value.
const MAX_PAYLOAD: usize = 64 << 20;
/// Columns of a row.
const MAX_COLUMNS: usize = 512;

/// A database, and the WAL beside it.
#[derive(Debug)]
pub struct Database<R> {
    main: R,
    wal: Option<R>,
    /// Where the newest committed copy of a page is in the WAL.
    frames: HashMap<u32, u64>,
    page_size: usize,
    usable: usize,
    pages: u32,
}

/// A table: its first page and the names of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    root: u32,
    /// Its columns, in order, in lower case.
    pub columns: Vec<String>,
}

impl Table {
    /// The position of a column.
    ///
    /// # Errors
    /// The table has no such column: the schema is another one than expected.
    pub fn column(&self, name: &str) -> Result<usize, SqliteError> {
        self.columns
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| SqliteError::NoTable(format!("column {name}")))
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes(bytes.try_into().ok()?)))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A varint and its length in bytes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        if index == 8 {
            return Some(((value << 8) | u64::from(byte), 9));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

impl<R: ReadAt> Database<R> {
    /// Opens a database; `wal` is the file `NAME-wal` beside it, if there is one.
    ///
    /// # Errors
    /// The file is not an SQLite database, or cannot be read.
    pub fn open(main: R, wal: Option<R>) -> Result<Self, SqliteError> {
        let mut header = [0_u8; 100];
        let wal = wal.filter(|wal| wal.len() > WAL_HEADER);
        if main.is_empty() && wal.is_none() {
            return Err(SqliteError::NotSqlite);
        }
        let mut database = Self {
            main,
            wal,
            frames: HashMap::new(),
            page_size: 0,
            usable: 0,
            pages: 0,
        };
        // In WAL mode a new database may still be empty, and all of it in the WAL.
        if !database.main.is_empty() {
            database
                .main
                .read_at(0, &mut header)
                .map_err(SqliteError::Read)?;
            if !header.starts_with(MAGIC) {
                return Err(SqliteError::NotSqlite);
            }
            database.page_size = match be16(&header, 16) {
                Some(1) => 65_536,
                Some(size) => size,
                None => 0,
            };
        }
        database.index_wal()?;
        if !database.page_size.is_power_of_two() || !(512..=65_536).contains(&database.page_size) {
            return Err(SqliteError::Damaged("its page size is none"));
        }
        if database.pages == 0 {
            let pages = database.main.len() / database.page_size as u64;
            database.pages = u32::try_from(pages).unwrap_or(u32::MAX);
        }
        database.usable = database.page_size;
        let first = database.page(1)?;
        if !first.starts_with(MAGIC) {
            return Err(SqliteError::NotSqlite);
        }
        let reserved = first.get(20).copied().map_or(0, usize::from);
        database.usable = database.page_size - reserved;
        if database.usable < 480 {
            return Err(SqliteError::Damaged("its page size is none"));
        }
        Ok(database)
    }

    /// Finds the newest committed frame of each page. Frames behind the last commit, of an
    /// earlier run of the WAL (other salts) or with a wrong checksum do not count.
    fn index_wal(&mut self) -> Result<(), SqliteError> {
        let Some(wal) = &self.wal else {
            return Ok(());
        };
        if wal.len() > MAX_WAL {
            return Err(SqliteError::TooLarge("256 MiB in its WAL"));
        }
        let mut header = [0_u8; 32];
        wal.read_at(0, &mut header).map_err(SqliteError::Read)?;
        let magic = be32(&header, 0);
        // The lowest bit says in which byte order the checksums are reckoned.
        let big_endian = match magic {
            Some(0x377f_0682) => false,
            Some(0x377f_0683) => true,
            // Not a WAL, or one of which the header was never written: SQLite ignores it.
            _ => return Ok(()),
        };
        let page_size = be32(&header, 8).unwrap_or(0) as usize;
        if !page_size.is_power_of_two()
            || !(512..=65_536).contains(&page_size)
            || (self.page_size != 0 && self.page_size != page_size)
        {
            return Ok(());
        }
        let salts = header.get(16..24).unwrap_or_default().to_vec();
        let mut sum = checksum((0, 0), header.get(..24).unwrap_or_default(), big_endian);
        if Some(sum.0) != be32(&header, 24) || Some(sum.1) != be32(&header, 28) {
            return Ok(());
        }
        let step = FRAME_HEADER + page_size as u64;
        let mut frame = vec![0_u8; 24 + page_size];
        let mut pending: HashMap<u32, u64> = HashMap::new();
        let mut at = WAL_HEADER;
        while at + step <= wal.len() {
            wal.read_at(at, &mut frame).map_err(SqliteError::Read)?;
            if frame.get(8..16) != Some(salts.as_slice()) {
                break;
            }
            sum = checksum(sum, frame.get(..8).unwrap_or_default(), big_endian);
            sum = checksum(sum, frame.get(24..).unwrap_or_default(), big_endian);
            if Some(sum.0) != be32(&frame, 16) || Some(sum.1) != be32(&frame, 20) {
                break;
            }
            let (Some(number), Some(size)) = (be32(&frame, 0), be32(&frame, 4)) else {
                break;
            };
            pending.insert(number, at + FRAME_HEADER);
            if size != 0 {
                self.frames.extend(pending.drain());
                self.pages = size;
                self.page_size = page_size;
            }
            at += step;
        }
        Ok(())
    }

    fn page(&self, number: u32) -> Result<Vec<u8>, SqliteError> {
        if number == 0 || (self.pages != 0 && number > self.pages) {
            return Err(SqliteError::Damaged("a page lies outside of the file"));
        }
        let mut page = vec![0_u8; self.page_size];
        match (self.frames.get(&number), &self.wal) {
            (Some(&at), Some(wal)) => wal.read_at(at, &mut page),
            _ => self
                .main
                .read_at(u64::from(number - 1) * self.page_size as u64, &mut page),
        }
        .map_err(SqliteError::Read)?;
        Ok(page)
    }

    /// The table of this name.
    ///
    /// # Errors
    /// There is none, or the database is damaged.
    pub fn table(&self, name: &str) -> Result<Table, SqliteError> {
        let schema = Table {
            root: 1,
            columns: ["type", "name", "tbl_name", "rootpage", "sql"]
                .map(str::to_owned)
                .to_vec(),
        };
        let mut found = None;
        self.rows(&schema, &mut |_, row| {
            let text = |at: usize| row.get(at).and_then(Value::text).unwrap_or_default();
            if text(0) == "table" && text(1).eq_ignore_ascii_case(name) {
                let root = row.get(3).and_then(Value::integer);
                found = root
                    .and_then(|root| u32::try_from(root).ok())
                    .map(|root| Table {
                        root,
                        columns: columns(&text(4)),
                    });
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        found.ok_or_else(|| SqliteError::NoTable(name.to_owned()))
    }

    /// Visits the rows of a table in the order of their rowids, until the visitor breaks.
    /// A column that is the rowid's alias comes as NULL, as it is stored.
    ///
    /// # Errors
    /// The database is damaged or cannot be read.
    pub fn rows(
        &self,
        table: &Table,
        visit: &mut dyn FnMut(i64, Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), SqliteError> {
        let mut left = MAX_PAGES;
        self.walk(table.root, MAX_DEPTH, false, &mut left, visit)
            .map(|_| ())
    }

    /// As [`Self::rows`], from the last row to the first.
    ///
    /// # Errors
    /// The database is damaged or cannot be read.
    pub fn rows_from_the_last(
        &self,
        table: &Table,
        visit: &mut dyn FnMut(i64, Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), SqliteError> {
        let mut left = MAX_PAGES;
        self.walk(table.root, MAX_DEPTH, true, &mut left, visit)
            .map(|_| ())
    }

    /// The row with this rowid.
    ///
    /// # Errors
    /// The database is damaged or cannot be read.
    pub fn row(&self, table: &Table, rowid: i64) -> Result<Option<Vec<Value>>, SqliteError> {
        let mut number = table.root;
        for _ in 0..MAX_DEPTH {
            let page = self.page(number)?;
            let start = if number == 1 { 100 } else { 0 };
            let (kind, cells) = header(&page, start)?;
            let mut next = None;
            for index in 0..cells {
                let at = cell(&page, start, kind, index)?;
                let bytes = page.get(at..).unwrap_or_default();
                match kind {
                    INTERIOR => {
                        let (key, _) = varint(bytes.get(4..).unwrap_or_default())
                            .ok_or(SqliteError::Damaged("a cell is cut short"))?;
                        if rowid <= key.cast_signed() {
                            next = be32(bytes, 0);
                            break;
                        }
                    }
                    _ => {
                        let (key, payload) = self.leaf_cell(&page, at)?;
                        if key == rowid {
                            return self
                                .payload(&page, payload)
                                .and_then(|it| record(&it))
                                .map(Some);
                        }
                    }
                }
            }
            if kind != INTERIOR {
                return Ok(None);
            }
            number = match next {
                Some(next) => next,
                None => be32(&page, start + 8)
                    .ok_or(SqliteError::Damaged("a page's header is cut short"))?,
            };
        }
        Err(SqliteError::Damaged("its tree is too deep"))
    }

    fn walk(
        &self,
        number: u32,
        depth: usize,
        backwards: bool,
        left: &mut u32,
        visit: &mut dyn FnMut(i64, Vec<Value>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, SqliteError> {
        if depth == 0 {
            return Err(SqliteError::Damaged("its tree is too deep"));
        }
        *left = left
            .checked_sub(1)
            .ok_or(SqliteError::TooLarge("4 million pages"))?;
        let page = self.page(number)?;
        let start = if number == 1 { 100 } else { 0 };
        let (kind, cells) = header(&page, start)?;
        let last = be32(&page, start + 8);
        let child = |index: usize| -> Result<u32, SqliteError> {
            let child = if index == cells {
                last
            } else {
                be32(&page, cell(&page, start, kind, index)?)
            };
            child.ok_or(SqliteError::Damaged("a cell is cut short"))
        };
        let count = if kind == INTERIOR { cells + 1 } else { cells };
        for step in 0..count {
            let index = if backwards { count - 1 - step } else { step };
            let flow = if kind == INTERIOR {
                self.walk(child(index)?, depth - 1, backwards, left, visit)?
            } else {
                let at = cell(&page, start, kind, index)?;
                let (rowid, payload) = self.leaf_cell(&page, at)?;
                visit(rowid, record(&self.payload(&page, payload)?)?)
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The rowid of a leaf's cell, and where its payload lies.
    fn leaf_cell(&self, page: &[u8], at: usize) -> Result<(i64, Payload), SqliteError> {
        let cut = || SqliteError::Damaged("a cell is cut short");
        let bytes = page.get(at..).ok_or_else(cut)?;
        let (length, one) = varint(bytes).ok_or_else(cut)?;
        let (rowid, two) = varint(bytes.get(one..).unwrap_or_default()).ok_or_else(cut)?;
        let length =
            usize::try_from(length).map_err(|_| SqliteError::Damaged("a value is too long"))?;
        if length > MAX_PAYLOAD {
            return Err(SqliteError::TooLarge("64 MiB in a value"));
        }
        // How much lies in the leaf itself: section 1.6 of the format.
        let usable = self.usable;
        let most = usable - 35;
        let here = if length <= most {
            length
        } else {
            let least = (usable - 12) * 32 / 255 - 23;
            let rest = least + (length - least) % (usable - 4);
            if rest <= most { rest } else { least }
        };
        Ok((
            rowid.cast_signed(),
            Payload {
                at: at + one + two,
                here,
                length,
            },
        ))
    }

    fn payload(&self, page: &[u8], payload: Payload) -> Result<Vec<u8>, SqliteError> {
        let cut = || SqliteError::Damaged("a cell is cut short");
        let end = payload.at + payload.here;
        let mut bytes = page.get(payload.at..end).ok_or_else(cut)?.to_vec();
        if payload.here == payload.length {
            return Ok(bytes);
        }
        let mut next = be32(page, end).ok_or_else(cut)?;
        while bytes.len() < payload.length {
            let overflow = self.page(next)?;
            let part = (payload.length - bytes.len()).min(self.usable - 4);
            bytes.extend(overflow.get(4..4 + part).ok_or_else(cut)?);
            next = be32(&overflow, 0).ok_or_else(cut)?;
        }
        Ok(bytes)
    }
}

/// Where a row's bytes lie.
#[derive(Clone, Copy)]
struct Payload {
    at: usize,
    /// Bytes in the leaf; the others are on overflow pages.
    here: usize,
    length: usize,
}

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// The kind of a table's page, and its number of cells.
fn header(page: &[u8], start: usize) -> Result<(u8, usize), SqliteError> {
    let kind = page.get(start).copied().unwrap_or_default();
    if kind != INTERIOR && kind != LEAF {
        return Err(SqliteError::Damaged("a page of a table is of another kind"));
    }
    let cells =
        be16(page, start + 3).ok_or(SqliteError::Damaged("a page's header is cut short"))?;
    Ok((kind, cells))
}

fn cell(page: &[u8], start: usize, kind: u8, index: usize) -> Result<usize, SqliteError> {
    let head = if kind == INTERIOR { 12 } else { 8 };
    be16(page, start + head + 2 * index).ok_or(SqliteError::Damaged("a page's cells are cut short"))
}

/// The values of a row.
fn record(bytes: &[u8]) -> Result<Vec<Value>, SqliteError> {
    let cut = || SqliteError::Damaged("a row is cut short");
    let (header, mut at) = varint(bytes).ok_or_else(cut)?;
    let header = usize::try_from(header).map_err(|_| cut())?;
    let mut body = header;
    let mut values = Vec::new();
    while at < header {
        if values.len() == MAX_COLUMNS {
            return Err(SqliteError::TooLarge("512 columns in a row"));
        }
        let (kind, length) = varint(bytes.get(at..header).ok_or_else(cut)?).ok_or_else(cut)?;
        at += length;
        let mut take = |length: usize| {
            let part = bytes.get(body..body.checked_add(length)?);
            body += length;
            part
        };
        let value = match kind {
            0 => Value::Null,
            1..=6 => {
                let width = [1, 2, 3, 4, 6, 8][usize::try_from(kind - 1).unwrap_or(0)];
                let part = take(width).ok_or_else(cut)?;
                let negative = part.first().is_some_and(|byte| *byte >= 0x80);
                let number = part
                    .iter()
                    .fold(if negative { -1_i64 } else { 0 }, |number, byte| {
                        (number << 8) | i64::from(*byte)
                    });
                Value::Integer(number)
            }
            7 => {
                let part = take(8)
                    .and_then(|part| part.try_into().ok())
                    .ok_or_else(cut)?;
                Value::Real(f64::from_be_bytes(part))
            }
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            10 | 11 => return Err(SqliteError::Damaged("a value is of no known type")),
            kind => {
                let length = usize::try_from((kind - 12) / 2).map_err(|_| cut())?;
                let part = take(length).ok_or_else(cut)?.to_vec();
                if kind % 2 == 0 {
                    Value::Blob(part)
                } else {
                    Value::Text(part)
                }
            }
        };
        values.push(value);
    }
    Ok(values)
}

/// The checksum of the WAL: section 4.2 of the format.
fn checksum((mut one, mut two): (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
        if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    for pair in bytes.chunks_exact(8) {
        let (first, second) = pair.split_at(4);
        one = one.wrapping_add(word(first)).wrapping_add(two);
        two = two.wrapping_add(word(second)).wrapping_add(one);
    }
    (one, two)
}

/// The names of the columns of a `CREATE TABLE`, in order: each item's first word, but for
/// those of constraints on the table.
fn columns(sql: &str) -> Vec<String> {
    let sql = without_comments(sql);
    let Some((_, body)) = sql.split_once('(') else {
        return Vec::new();
    };
    let mut columns = Vec::new();
    let mut depth = 0_usize;
    let mut item = String::new();
    for character in body.chars() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                columns.extend(column(&item));
                item.clear();
                continue;
            }
            _ => {}
        }
        item.push(character);
    }
    columns.extend(column(&item));
    columns
}

fn column(item: &str) -> Option<String> {
    let word = item.split_whitespace().next()?;
    let word = word.trim_matches(['"', '\'', '`', '[', ']']).to_lowercase();
    let constraint = ["constraint", "primary", "unique", "check", "foreign"];
    let is_constraint = constraint.iter().any(|kind| {
        word == *kind
            || word
                .strip_prefix(kind)
                .is_some_and(|rest| rest.starts_with('('))
    });
    (!is_constraint).then_some(word)
}

fn without_comments(sql: &str) -> String {
    let mut rest = sql;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        text.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let lines = text
        .lines()
        .map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}
