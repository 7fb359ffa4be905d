//! The kernel's own type information (/sys/kernel/btf/vmlinux): where members
//! lie, and which functions and enumerators this kernel has.
//!
//! The format is include/uapi/linux/btf.h. Its "layout" section, which describes how to
//! skip kinds that a reader does not know, and the wider `vlen` and kind fields came
//! between 6.12 and 7.2; older kernels leave those bits zero.

use std::collections::HashSet;
use std::path::Path;

use crate::bounded_read;

pub use error::BtfError;

mod error;
#[cfg(test)]
mod tests;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// magic, version, flags, hdr_len, type_off, type_len, str_off, str_len.
const HEADER_LEN: usize = 24;
/// `HEADER_LEN` with layout_off, layout_len.
const HEADER_LEN_WITH_LAYOUT: usize = 32;
/// `struct btf_type`: name_off, info, size or type.
const TYPE_LEN: usize = 12;
/// Kernels ship 4 to 8 MB; the format itself ends at 16 MiB of names.
const MAX_BLOB: u64 = 128 << 20;
/// Typedefs and qualifiers seen through before a chain is taken for a loop.
const MAX_MODIFIERS: usize = 64;

const KIND_INT: u32 = 1;
const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC: u32 = 12;
const KIND_ENUM64: u32 = 19;

/// The kernels that this is built for have 64 bits.
const POINTER_SIZE: u32 = 8;

/// Type information: the blob and the place of every type in it.
///
/// Look up what is needed and drop it: it holds the whole blob (5 to 8 MB) and
/// four bytes per type.
#[derive(Debug)]
pub struct Btf {
    blob: Blob,
    types: Span,
    strings: Span,
    /// Of each type, from number 1, its offset in the blob.
    offsets: Vec<u32>,
}

/// A part of the blob, checked to lie within it.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

/// Bytes in the byte order given by their magic number.
#[derive(Debug)]
struct Blob {
    bytes: Vec<u8>,
    big_endian: bool,
}

impl Blob {
    fn u32_at(&self, offset: usize) -> Option<u32> {
        let bytes = *self.bytes.get(offset..)?.first_chunk::<4>()?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
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

    /// The section whose offset (from the header's end) and length stand at `field`.
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

/// A type's fixed part, and where the rest of it begins.
#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    kind: u32,
    /// For composites: member offsets carry bit field sizes.
    flagged: bool,
    len: usize,
    /// Size in bytes or number of another type, by kind.
    size_or_type: u32,
    body: usize,
}

/// A member of a composite.
#[derive(Clone, Copy, Debug)]
struct Member {
    name: u32,
    id: u32,
    bit_offset: u32,
    bit_field: bool,
}

/// What a search of one composite for one member came to.
enum Search {
    Found { byte: u32, id: u32 },
    BitField,
    Absent,
}

impl Btf {
    /// Reads `SYSFS/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// [`BtfError::Read`] when the file cannot be read (kernels without
    /// `CONFIG_DEBUG_INFO_BTF` have none), otherwise as [`Btf::parse`].
    pub fn from_sysfs(sysfs: &Path) -> Result<Self, BtfError> {
        let path = sysfs.join("kernel/btf/vmlinux");
        Self::parse(
            bounded_read::read(&path, MAX_BLOB).map_err(|source| BtfError::Read {
                path: path.clone(),
                source,
            })?,
        )
    }

    /// Checks the blob's structure and notes where its types are. One pass; the
    /// memory used is the blob and at most a third of it.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] and [`BtfError::UnknownKind`].
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
    fn type_at(&self, offset: usize) -> Option<Type> {
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

    /// The type of this number; none for 0 (`void`) and numbers past the last.
    fn type_by_id(&self, id: u32) -> Option<Type> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        self.type_at(usize::try_from(*self.offsets.get(index)?).ok()?)
    }

    fn types(&self) -> impl Iterator<Item = Type> + '_ {
        self.offsets
            .iter()
            .filter_map(|offset| self.type_at(usize::try_from(*offset).ok()?))
    }

    /// Whether the name at this offset of the names is `name`, without looking
    /// for the end of the stored one first.
    fn is_named(&self, offset: u32, name: &[u8]) -> bool {
        let names = self.blob.bytes.get(self.strings.start..self.strings.end);
        let rest = names.and_then(|names| names.get(usize::try_from(offset).ok()?..));
        rest.and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn composites<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        self.types().filter(move |ty| {
            matches!(ty.kind, KIND_STRUCT | KIND_UNION) && self.is_named(ty.name, name.as_bytes())
        })
    }

    /// Whether a structure or union of this name is defined (not only declared).
    #[must_use]
    pub fn has_struct(&self, name: &str) -> bool {
        !name.is_empty() && self.composites(name).next().is_some()
    }

    /// Bytes that a structure or union takes; `None` where none is defined, or
    /// several of the name disagree.
    #[must_use]
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        let mut sizes = self.composites(name).map(|ty| ty.size_or_type);
        let first = sizes.next().filter(|_| !name.is_empty())?;
        sizes.all(|other| other == first).then_some(first)
    }

    /// Whether a function of this name is described: the kernel describes those
    /// that tracing programs may attach to.
    #[must_use]
    pub fn has_func(&self, name: &str) -> bool {
        self.types()
            .any(|ty| ty.kind == KIND_FUNC && self.is_named(ty.name, name.as_bytes()))
    }

    /// The numbers of the functions of this name.
    #[must_use]
    pub fn func_ids(&self, name: &str) -> Vec<u32> {
        let is_it = |offset: u32| {
            let ty = usize::try_from(offset).ok().and_then(|at| self.type_at(at));
            ty.is_some_and(|ty| ty.kind == KIND_FUNC && self.is_named(ty.name, name.as_bytes()))
        };
        let numbered = (1..).zip(&self.offsets);
        let found = numbered.filter(|(_, offset)| is_it(**offset));
        found.map(|(id, _)| id).collect()
    }

    /// Whether an enumeration of this name has this value, of 32 or 64 bits.
    #[must_use]
    pub fn has_enumerator(&self, enum_name: &str, value_name: &str) -> bool {
        self.types().any(|ty| {
            let stride = match ty.kind {
                KIND_ENUM => 8,
                KIND_ENUM64 => 12,
                _ => return false,
            };
            self.is_named(ty.name, enum_name.as_bytes())
                && (0..ty.len).any(|index| {
                    let name = self.blob.u32_at(ty.body + index * stride);
                    name.is_some_and(|name| self.is_named(name, value_name.as_bytes()))
                })
        })
    }

    /// Bytes from the start of the structure (or union) to a member: `member`, or
    /// a path `a.b` through structures that lie in one another. Members of
    /// anonymous structures and unions are members of what holds them, as in C;
    /// pointers and arrays are not followed.
    ///
    /// # Errors
    /// [`BtfError::NoStruct`], [`BtfError::NoMember`], [`BtfError::NotAStruct`],
    /// [`BtfError::BitField`], and [`BtfError::Ambiguous`] when structures of the
    /// same name disagree.
    pub fn member_offset(&self, struct_name: &str, path: &str) -> Result<u32, BtfError> {
        let mut found: Option<u32> = None;
        let mut refusal = None;
        // A kernel may hold several definitions under one name.
        for composite in self
            .composites(struct_name)
            .filter(|_| !struct_name.is_empty())
        {
            let place = self.path_place(composite, struct_name, path);
            match (place.map(|(offset, _)| offset), found) {
                (Ok(second), Some(first)) if first != second => {
                    let (name, member) = (struct_name.to_owned(), path.to_owned());
                    return Err(BtfError::Ambiguous {
                        name,
                        member,
                        first,
                        second,
                    });
                }
                (Ok(offset), _) => found = Some(offset),
                (Err(error), _) => refusal = Some(error),
            }
        }
        found.ok_or_else(|| {
            refusal.unwrap_or_else(|| BtfError::NoStruct {
                name: struct_name.to_owned(),
            })
        })
    }

    /// Bytes that a member takes; `None` where there is no such member or its
    /// type has no size.
    #[must_use]
    pub fn member_size(&self, struct_name: &str, path: &str) -> Option<u32> {
        self.composites(struct_name).find_map(|composite| {
            let (_, id) = self.path_place(composite, struct_name, path).ok()?;
            self.size_of(id)
        })
    }

    fn size_of(&self, id: u32) -> Option<u32> {
        let ty = self.behind_modifiers(id)?;
        match ty.kind {
            KIND_POINTER => Some(POINTER_SIZE),
            KIND_ARRAY => {
                // `struct btf_array`: type, index_type, nelems.
                let element = self.behind_modifiers(self.blob.u32_at(ty.body)?)?;
                let size = match element.kind {
                    KIND_POINTER => POINTER_SIZE,
                    KIND_ARRAY => return None,
                    _ => element.size_or_type,
                };
                size.checked_mul(self.blob.u32_at(ty.body + 8)?)
            }
            _ => Some(ty.size_or_type),
        }
    }

    /// Where a member lies, and its type.
    fn path_place(
        &self,
        composite: Type,
        struct_name: &str,
        path: &str,
    ) -> Result<(u32, u32), BtfError> {
        let mut here = composite;
        let (mut offset, mut last) = (0_u32, 0_u32);
        let mut walked = 0;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            walked += part.len() + usize::from(walked > 0);
            let name = || struct_name.to_owned();
            let member = || path.get(..walked).unwrap_or(path).to_owned();
            let (byte, id) = match self.search(here, part.as_bytes()) {
                Search::Found { byte, id } => (byte, id),
                Search::BitField => {
                    return Err(BtfError::BitField {
                        name: name(),
                        member: member(),
                    });
                }
                Search::Absent => {
                    return Err(BtfError::NoMember {
                        name: name(),
                        member: member(),
                    });
                }
            };
            offset = offset.checked_add(byte).ok_or(BtfError::Malformed {
                offset: here.body,
                what: "a member past 4 GiB",
            })?;
            last = id;
            if parts.peek().is_some() {
                here = self
                    .composite_behind(id)
                    .ok_or_else(|| BtfError::NotAStruct {
                        name: name(),
                        member: member(),
                    })?;
            }
        }
        Ok((offset, last))
    }

    /// Looks for a member in a composite and in its anonymous members. Each
    /// anonymous type is entered once, which bounds the work on a blob whose
    /// types hold themselves.
    fn search(&self, composite: Type, name: &[u8]) -> Search {
        let mut entered = HashSet::new();
        let mut open = vec![(composite, 0_u32)];
        while let Some((composite, base)) = open.pop() {
            for member in self.members(composite) {
                let Some(bit) = base.checked_add(member.bit_offset) else {
                    continue;
                };
                if !name.is_empty() && self.is_named(member.name, name) {
                    return if member.bit_field || bit % 8 != 0 {
                        Search::BitField
                    } else {
                        Search::Found {
                            byte: bit / 8,
                            id: member.id,
                        }
                    };
                }
                if self.is_named(member.name, b"")
                    && let Some(inner) = self.composite_behind(member.id)
                    && entered.insert(inner.body)
                {
                    open.push((inner, bit));
                }
            }
        }
        Search::Absent
    }

    fn members(&self, composite: Type) -> impl Iterator<Item = Member> + '_ {
        // `struct btf_member`: name_off, type, offset.
        (0..composite.len).filter_map(move |index| {
            let at = composite.body + index * 12;
            let (name, id) = (self.blob.u32_at(at)?, self.blob.u32_at(at + 4)?);
            let offset = self.blob.u32_at(at + 8)?;
            Some(if composite.flagged {
                Member {
                    name,
                    id,
                    bit_offset: offset & 0x00ff_ffff,
                    bit_field: offset >> 24 != 0,
                }
            } else {
                Member {
                    name,
                    id,
                    bit_offset: offset,
                    bit_field: self.is_narrow_int(id),
                }
            })
        })
    }

    /// Whether this is an integer of fewer bits than its bytes hold: how bit
    /// fields were written before the kind flag (4.20).
    fn is_narrow_int(&self, id: u32) -> bool {
        self.behind_modifiers(id)
            .filter(|ty| ty.kind == KIND_INT)
            .is_some_and(|ty| {
                let bits = self.blob.u32_at(ty.body).unwrap_or(0) & 0xff;
                ty.size_or_type
                    .checked_mul(8)
                    .is_some_and(|full| bits < full)
            })
    }

    fn composite_behind(&self, id: u32) -> Option<Type> {
        self.behind_modifiers(id)
            .filter(|ty| matches!(ty.kind, KIND_STRUCT | KIND_UNION))
    }

    /// The type behind typedefs, qualifiers and type tags.
    fn behind_modifiers(&self, id: u32) -> Option<Type> {
        let mut ty = self.type_by_id(id)?;
        for _ in 0..MAX_MODIFIERS {
            match ty.kind {
                8..=11 | 18 => ty = self.type_by_id(ty.size_or_type)?,
                _ => return Some(ty),
            }
        }
        None
    }
}
