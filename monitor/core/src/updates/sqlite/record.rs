//! A row: its varints and its values, section 2.1 of the format.

use super::SqliteError;

/// Columns of a row.
const MAX_COLUMNS: usize = 512;

/// A value of a column (https://sqlite.org/fileformat2.html#record_format).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value (`NULL`).
    Null,
    /// A signed integer of up to 64 bits.
    Integer(i64),
    /// A floating-point number of 64 bits.
    Real(f64),
    /// Text, as its bytes: not every writer keeps to UTF-8.
    Text(Vec<u8>),
    /// A value that is not text: raw bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The value if it is an integer.
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

/// A varint and its length in bytes.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
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

/// The values of a row.
pub(super) fn record(bytes: &[u8]) -> Result<Vec<Value>, SqliteError> {
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
