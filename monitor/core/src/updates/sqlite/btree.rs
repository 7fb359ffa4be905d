//! The b-tree of a table: sections 1.6 and 1.7 of the format.

use std::ops::ControlFlow;

use super::{
    Database, ReadAt, SqliteError, Table, be16, be32,
    record::{Value, record, varint},
};

/// Levels of a b-tree; SQLite's own limit is 20 (`BTCURSOR_MAX_DEPTH`).
const MAX_DEPTH: usize = 20;
/// Pages visited by one call: a bound on what a tree of loops can cost.
const MAX_PAGES: u32 = 4 << 20;
/// Bytes of one value.
const MAX_PAYLOAD: usize = 64 << 20;

impl<R: ReadAt> Database<R> {
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

    /// The rowid of a leaf's cell, and the position of its payload.
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
        // How much is in the leaf itself: section 1.6 of the format.
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

/// Position of a row's bytes.
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
