//! The file format of journal entries. Pure.
//!
//! A file begins with [`HEADER`]. Version 1, which 0.1.0 wrote, differs in that it has no entry
//! [`super::entry::Entry::State`]. A frame is the word `LPMN`, the length of its content and that
//! content's CRC-32 (both little-endian, 32 bits), and the content, an entry as JSON. Everything
//! else is skipped up to the next valid frame.

use super::entry::TimedEntry;

/// The version that this program writes. It also reads all earlier ones.
pub const VERSION: u32 = 2;
/// The first bytes of a file.
pub const HEADER: [u8; 12] = header();
/// The longest content of a frame.
pub const MAX_CONTENT: usize = 64 << 10;

const FILE_MAGIC: &[u8; 8] = b"LPM-RECO";
const MAGIC: &[u8; 4] = b"LPMN";
/// Magic, length and checksum.
const HEAD: usize = 12;

const fn header() -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = *FILE_MAGIC;
    let [v, w, x, y] = VERSION.to_le_bytes();
    [a, b, c, d, e, f, g, h, v, w, x, y]
}

/// Why bytes are not a journal, or an entry cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The file does not begin with the journal's magic number.
    #[error("not a journal")]
    Foreign,
    /// A later version of the program wrote the file: its format version.
    #[error(
        "it has format version {0} and this program reads up to {VERSION}: run the newer program"
    )]
    Newer(u32),
    /// An entry does not fit a frame: its length in bytes.
    #[error("an entry has {0} bytes, more than the {MAX_CONTENT} that a frame holds")]
    Long(usize),
    /// An entry cannot be written as JSON.
    #[error("an entry cannot be written as JSON: {0}")]
    Json(String),
}

/// What could be decoded from a journal file's bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The file's version; `None` if the file is empty.
    pub version: Option<u32>,
    /// The complete entries, in order.
    pub entries: Vec<TimedEntry>,
    /// Number of bytes up to the end of the last entry.
    pub good: usize,
    /// Number of places before that end that contain something other than a frame.
    pub damaged: usize,
    /// Number of bytes after it, left by a torn write.
    pub torn: usize,
}

/// Encodes an entry as a frame.
///
/// # Errors
/// The entry is too long.
pub fn encode(recorded: &TimedEntry) -> Result<Vec<u8>, FrameError> {
    let content =
        serde_json::to_vec(recorded).map_err(|error| FrameError::Json(error.to_string()))?;
    let length = u32::try_from(content.len()).ok();
    let Some(length) = length.filter(|_| content.len() <= MAX_CONTENT) else {
        return Err(FrameError::Long(content.len()));
    };
    let mut frame = Vec::with_capacity(HEAD + content.len());
    frame.extend(MAGIC);
    frame.extend(length.to_le_bytes());
    frame.extend(crc32fast::hash(&content).to_le_bytes());
    frame.extend(content);
    Ok(frame)
}

/// Decodes a file's bytes. No bytes are an empty file.
///
/// # Errors
/// The file is not a journal, or of a newer version.
pub fn decode(bytes: &[u8]) -> Result<Decoded, FrameError> {
    if bytes.len() < HEADER.len() && HEADER.starts_with(bytes) {
        // The very first write was torn.
        return Ok(Decoded {
            torn: bytes.len(),
            ..Decoded::default()
        });
    }
    let version = bytes
        .strip_prefix(FILE_MAGIC)
        .and_then(|rest| word(rest, 0))
        .ok_or(FrameError::Foreign)?;
    if version > VERSION {
        return Err(FrameError::Newer(version));
    }
    let mut decoded = Decoded {
        version: Some(version),
        good: HEADER.len(),
        ..Decoded::default()
    };
    let mut at = HEADER.len();
    let mut skipping = false;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some((recorded, length)) = frame(rest) {
            decoded.entries.push(recorded);
            decoded.damaged += usize::from(skipping);
            skipping = false;
            at += length;
            decoded.good = at;
        } else {
            skipping = true;
            let next = rest
                .iter()
                .skip(1)
                .position(|byte| Some(byte) == MAGIC.first());
            at = next.map_or(bytes.len(), |next| at + 1 + next);
        }
    }
    decoded.torn = bytes.len() - decoded.good;
    Ok(decoded)
}

/// The frame at the start of the bytes, and its length.
fn frame(bytes: &[u8]) -> Option<(TimedEntry, usize)> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let length = usize::try_from(word(bytes, 4)?).ok()?;
    if length > MAX_CONTENT {
        return None;
    }
    let content = bytes.get(HEAD..HEAD + length)?;
    if crc32fast::hash(content) != word(bytes, 8)? {
        return None;
    }
    Some((serde_json::from_slice(content).ok()?, HEAD + length))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
