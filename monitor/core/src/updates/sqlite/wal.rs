//! The frames of the write-ahead log: section 4 of the format.

use std::collections::HashMap;

use super::{Database, ReadAt, SqliteError, be32};

pub(super) const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// Bytes of a WAL that are read: SQLite folds it in at 4 MiB by default.
const MAX_WAL: u64 = 256 << 20;

impl<R: ReadAt> Database<R> {
    /// Finds the newest committed frame of each page. Frames behind the last commit, of an
    /// earlier run of the WAL (other salts) or with a wrong checksum do not count.
    pub(super) fn index_wal(&mut self) -> Result<(), SqliteError> {
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
