//! The kernel's type information (/sys/kernel/btf/vmlinux): the offsets of members, and which
//! functions and enumerators this kernel has.
//!
//! The format is include/uapi/linux/btf.h. Its "layout" section, which describes how to skip kinds
//! that a reader does not know, and the wider `vlen` and kind fields were added between 6.12 and
//! 7.2; older kernels leave those bits zero.

use std::{cell::RefCell, collections::HashMap, path::Path};

use crate::bounded_read;

use self::blob::{Blob, KIND_ENUM, KIND_ENUM64, KIND_FUNC, KIND_STRUCT, KIND_UNION, Span, Type};

pub use error::BtfError;

mod blob;
mod error;
mod functions;
mod members;
#[cfg(test)]
pub(super) mod tests;

/// Most bytes read. Kernels ship 4 to 8 MB; the format itself allows at most 16 MiB of names.
const MAX_BLOB: u64 = 128 << 20;
/// The type information: the blob and the offset of every type in it.
///
/// Drop it after use: it keeps the whole blob (4 to 8 MB) and four bytes per type.
#[derive(Debug)]
pub struct Btf {
    blob: Blob,
    types: Span,
    strings: Span,
    /// The offset of each type in the blob, starting with type 1.
    offsets: Vec<u32>,
    /// The structures and unions of each requested name: finding one takes a pass over all types,
    /// and several members are requested of most.
    asked: RefCell<HashMap<String, Vec<Type>>>,
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

    fn types(&self) -> impl Iterator<Item = Type> + '_ {
        self.offsets
            .iter()
            .filter_map(|offset| self.type_at(usize::try_from(*offset).ok()?))
    }

    /// Whether the string at this offset of the string section is `name`. Does not search for its
    /// end first.
    fn is_named(&self, offset: u32, name: &[u8]) -> bool {
        let names = self.blob.bytes.get(self.strings.start..self.strings.end);
        let rest = names.and_then(|names| names.get(usize::try_from(offset).ok()?..));
        rest.and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn composites(&self, name: &str) -> impl Iterator<Item = Type> + use<> {
        if let Some(known) = self.asked.borrow().get(name) {
            return known.clone().into_iter();
        }
        let found = self.types().filter(|ty| {
            matches!(ty.kind, KIND_STRUCT | KIND_UNION) && self.is_named(ty.name, name.as_bytes())
        });
        let found: Vec<Type> = found.collect();
        let mut asked = self.asked.borrow_mut();
        asked.insert(name.to_owned(), found.clone());
        found.into_iter()
    }

    /// Whether the kernel is a big-endian one.
    #[must_use]
    pub const fn is_big_endian(&self) -> bool {
        self.blob.big_endian
    }

    /// Whether a structure or union of this name is defined (not only declared).
    #[must_use]
    pub fn has_struct(&self, name: &str) -> bool {
        !name.is_empty() && self.composites(name).next().is_some()
    }

    /// The size of a structure or union in bytes; `None` if none is defined or several of this name
    /// disagree.
    #[must_use]
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        let mut sizes = self.composites(name).map(|ty| ty.size_or_type);
        let first = sizes.next().filter(|_| !name.is_empty())?;
        sizes.all(|other| other == first).then_some(first)
    }

    /// Whether BTF describes a function of this name. It describes those that tracing programs may
    /// attach to.
    #[must_use]
    pub fn has_func(&self, name: &str) -> bool {
        self.types()
            .any(|ty| ty.kind == KIND_FUNC && self.is_named(ty.name, name.as_bytes()))
    }

    /// The type ids of the functions of this name.
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

    /// Whether an enumeration of this name (32 or 64 bits) has this enumerator.
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
}
