//! The members of structures and unions: their offsets and sizes.

use std::collections::HashSet;

use super::{
    Btf, BtfError,
    blob::{KIND_ARRAY, KIND_INT, KIND_POINTER, KIND_STRUCT, KIND_UNION, Type},
};

/// Most typedefs and qualifiers followed; a longer chain is taken to be a loop.
const MAX_MODIFIERS: usize = 64;

/// In bytes: only 64-bit kernels are supported.
const POINTER_SIZE: u32 = 8;

/// A member of a structure or union.
#[derive(Clone, Copy, Debug)]
struct Member {
    name: u32,
    id: u32,
    bit_offset: u32,
    bit_field: bool,
}

/// The result of looking for a member in a structure or union.
enum Search {
    Found { byte: u32, id: u32 },
    BitField,
    Absent,
}

impl Btf {
    /// The offset of a member in its structure or union, in bytes. `path` is a member or a path
    /// `a.b` through nested structures. Members of anonymous structures and unions belong to the
    /// enclosing type, as in C; pointers and arrays are not followed.
    ///
    /// # Errors
    /// [`BtfError::NoStruct`], [`BtfError::NoMember`], [`BtfError::NotAStruct`],
    /// [`BtfError::BitField`], and [`BtfError::Ambiguous`] if structures of the same name disagree.
    pub fn member_offset(&self, struct_name: &str, path: &str) -> Result<u32, BtfError> {
        let mut found: Option<u32> = None;
        let mut refusal = None;
        // A kernel may have several definitions with one name.
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

    /// The size of a member in bytes; `None` if there is no such member or its type has no size.
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

    /// The offset of a member and the number of its type.
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

    /// Looks for a member in a structure or union and in its anonymous members. Each anonymous type
    /// is entered once, which bounds the work on a malformed blob whose types contain themselves.
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

    /// Whether this is an integer with fewer bits than its bytes have. Bit fields were written like
    /// this before the kind flag was added (4.20).
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

    /// Skips typedefs, qualifiers and type tags.
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
