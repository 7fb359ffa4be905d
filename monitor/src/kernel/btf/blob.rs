//! The blob: its header, its sections, and the offset of each type in it.

use std::cell::RefCell;

use super::{Btf, BtfError};

pub(super) const MAGIC: u16 = 0xeb9f;
pub(super) const VERSION: u8 = 1;
/// `struct btf_header`: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len.
pub(super) const HEADER_LEN: usize = 24;
/// `struct btf_header` with layout_off and layout_len.
pub(super) const HEADER_LEN_WITH_LAYOUT: usize = 32;
/// `struct btf_type`: name_off, info, and size or type.
pub(super) const TYPE_LEN: usize = 12;

pub(super) const KIND_INT: u32 = 1;
pub(super) const KIND_POINTER: u32 = 2;
pub(super) const KIND_ARRAY: u32 = 3;
pub(super) const KIND_STRUCT: u32 = 4;
pub(super) const KIND_UNION: u32 = 5;
pub(super) const KIND_ENUM: u32 = 6;
pub(super) const KIND_FUNC: u32 = 12;
pub(super) const KIND_ENUM64: u32 = 19;

/// A part of the blob. It is checked to lie within the blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The bytes, and the byte order that the magic number shows.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) bytes: Vec<u8>,
    pub(super) big_endian: bool,
}

impl Blob {
    pub(super) fn u32_at(&self, offset: usize) -> Option<u32> {
        let bytes = *self.bytes.get(offset..)?.first_chunk::<4>()?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    /// A number as the blob holds it.
    pub(super) const fn word(&self, value: u32) -> [u8; 4] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    /// The same for a number of two bytes.
    pub(super) const fn half_word(&self, value: u16) -> [u8; 2] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    /// A field of the header.
    fn field(&self, offset: usize) -> Result<usize, BtfError> {
        self.u32_at(offset)
            .and_then(|value| usize::try_from(value).ok())
            .ok_or(BtfError::Malformed {
                offset,
                what: "the header is cut short",
            })
    }

    /// The section whose offset (from the header's end) and length are at `field`.
    fn section(&self, header_len: usize, field: usize) -> Result<Span, BtfError> {
        let (offset, len) = (self.field(field)?, self.field(field + 4)?);
        let start = header_len.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(len));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.bytes.len() => Ok(Span { start, end }),
            _ => Err(BtfError::Malformed {
                offset: field,
                what: "a section ends past the end of the blob",
            }),
        }
    }
}

/// The fixed part of a type, and the offset of the rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    pub(super) name: u32,
    pub(super) kind: u32,
    /// For structures and unions: member offsets include bit field sizes.
    pub(super) flagged: bool,
    pub(super) len: usize,
    /// Size in bytes or the number of another type, depending on the kind.
    pub(super) size_or_type: u32,
    pub(super) body: usize,
}

impl Btf {
    /// Checks the blob's structure and records the offset of each type, in one pass. Uses at most a
    /// third of the blob's size in addition.
    ///
    /// # Errors
    /// [`BtfError::Malformed`], [`BtfError::UnknownKind`].
    pub fn parse(blob: impl Into<Vec<u8>>) -> Result<Self, BtfError> {
        let bytes: Vec<u8> = blob.into();
        let malformed = |offset, what| BtfError::Malformed { offset, what };
        let big_endian = match bytes.first_chunk::<2>() {
            Some(magic) if u16::from_le_bytes(*magic) == MAGIC => false,
            Some(magic) if u16::from_be_bytes(*magic) == MAGIC => true,
            _ => return Err(malformed(0, "the magic number is missing")),
        };
        if bytes.get(2) != Some(&VERSION) {
            return Err(malformed(2, "the version is not 1"));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(malformed(0, "the blob is longer than its offsets reach"));
        }
        let blob = Blob { bytes, big_endian };
        let header_len = blob.field(4)?;
        if header_len < HEADER_LEN || header_len > blob.bytes.len() {
            return Err(malformed(4, "the header's length is invalid"));
        }
        let types = blob.section(header_len, 8)?;
        let strings = blob.section(header_len, 16)?;
        let names = blob
            .bytes
            .get(strings.start..strings.end)
            .unwrap_or_default();
        if names.first() != Some(&0) || names.last() != Some(&0) {
            return Err(malformed(
                strings.start,
                "the names do not start and end with a NUL",
            ));
        }
        let layout = if header_len >= HEADER_LEN_WITH_LAYOUT {
            blob.section(header_len, HEADER_LEN)?
        } else {
            Span { start: 0, end: 0 }
        };
        let mut btf = Self {
            blob,
            types,
            strings,
            offsets: Vec::new(),
            asked: RefCell::default(),
        };
        btf.index(layout)?;
        Ok(btf)
    }

    fn index(&mut self, layout: Span) -> Result<(), BtfError> {
        let mut at = self.types.start;
        while at < self.types.end {
            let malformed = |what| BtfError::Malformed { offset: at, what };
            let ty = self
                .type_at(at)
                .ok_or_else(|| malformed("a type is cut short"))?;
            let body = self.body_len(ty, layout)?;
            // Checked against the section, so the index cannot outgrow the blob.
            let end = ty
                .body
                .checked_add(body)
                .filter(|end| *end <= self.types.end);
            let end = end.ok_or_else(|| malformed("a type runs past the end of the types"))?;
            self.offsets
                .push(u32::try_from(at).map_err(|_| malformed("an offset past 4 GiB"))?);
            at = end;
        }
        self.offsets.shrink_to_fit();
        Ok(())
    }

    /// Bytes that follow the fixed part of this type.
    fn body_len(&self, ty: Type, layout: Span) -> Result<usize, BtfError> {
        let (fixed, each) = match ty.kind {
            2 | 7..=12 | 16 | 18 => (0, 0), // PTR, FWD, TYPEDEF … FUNC, FLOAT, TYPE_TAG
            KIND_INT | 14 | 17 => (4, 0),   // VAR, DECL_TAG
            3 => (12, 0),                   // ARRAY
            KIND_STRUCT | KIND_UNION | 15 | KIND_ENUM64 => (0, 12), // DATASEC
            KIND_ENUM | 13 => (0, 8),       // FUNC_PROTO
            kind => {
                // `struct btf_layout`: u8 info_sz, u8 elem_sz, u16 flags, one per kind.
                let entry = usize::try_from(kind)
                    .ok()
                    .and_then(|kind| layout.start.checked_add(kind * 4));
                let sizes = entry
                    .filter(|entry| kind != 0 && entry + 4 <= layout.end)
                    .and_then(|entry| self.blob.bytes.get(entry..)?.first_chunk::<2>());
                let id = u32::try_from(self.offsets.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(1);
                let [fixed, each] = *sizes.ok_or(BtfError::UnknownKind { id, kind })?;
                (usize::from(fixed), usize::from(each))
            }
        };
        Ok(each.saturating_mul(ty.len).saturating_add(fixed))
    }

    /// The fixed part of the type at this offset of the blob.
    pub(super) fn type_at(&self, offset: usize) -> Option<Type> {
        let body = offset
            .checked_add(TYPE_LEN)
            .filter(|end| *end <= self.types.end)?;
        let info = self.blob.u32_at(offset + 4)?;
        Some(Type {
            name: self.blob.u32_at(offset)?,
            kind: info >> 24 & 0x7f,
            flagged: info >> 31 == 1,
            len: usize::try_from(info & 0x00ff_ffff).ok()?,
            size_or_type: self.blob.u32_at(offset + 8)?,
            body,
        })
    }

    /// The type with this number; `None` for 0 (`void`) and numbers that do not exist.
    pub(super) fn type_by_id(&self, id: u32) -> Option<Type> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        self.type_at(usize::try_from(*self.offsets.get(index)?).ok()?)
    }
}
