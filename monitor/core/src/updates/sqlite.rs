//! Reads the tables of an SQLite database without locking it and without writing next to it.
//!
//! An SQLite library cannot do that: opened read-only it fails if the `-shm` file of a database in
//! WAL mode is missing, and where it may write it leaves `-shm` and `-wal` files next to a database
//! that belongs to another program. Opened with `immutable=1` it ignores the WAL, which dnf 4 does
//! not merge into the database even after a clean exit, and shows the transaction before the last
//! one. Hence this reader: b-trees of tables, varints, overflow pages, and the frames of the WAL up
//! to its last commit. No indexes, no `WITHOUT ROWID`, no query language.
//!
//! Source: <https://www.sqlite.org/fileformat2.html>, format version 1 and 2.

use std::{collections::HashMap, ops::ControlFlow};

use self::{schema::columns, wal::WAL_HEADER};

pub use self::record::Value;

mod btree;
mod record;
mod schema;
mod wal;

/// Source of a file's bytes.
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
    /// The bytes cannot be read, or the file is too short.
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

/// Why a database cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteError {
    /// The file is not an SQLite database.
    #[error("not an SQLite database")]
    NotSqlite,
    /// The bytes cannot be read.
    #[error("{0}")]
    Read(String),
    /// A value in the file is out of range.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// The table does not exist.
    #[error("no table {0}")]
    NoTable(String),
    /// More than this reader's limits.
    #[error("the database has more than {0}")]
    TooLarge(&'static str),
}

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A database and its WAL.
#[derive(Debug)]
pub struct Database<R> {
    main: R,
    wal: Option<R>,
    /// Position in the WAL of the newest committed copy of each page.
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
    /// The table has no such column: the schema is not the expected one.
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

impl<R: ReadAt> Database<R> {
    /// Opens a database; `wal` is the file `NAME-wal` next to it, if it exists.
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
            return Err(SqliteError::Damaged("its page size is not valid"));
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
            return Err(SqliteError::Damaged(
                "its pages have too little usable space",
            ));
        }
        Ok(database)
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
    /// It does not exist, or the database is damaged.
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
}
