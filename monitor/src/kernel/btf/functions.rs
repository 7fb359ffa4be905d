//! Type information of some functions only.

use std::collections::BTreeSet;

use super::{
    Btf,
    blob::{HEADER_LEN, KIND_FUNC, MAGIC, TYPE_LEN, VERSION},
};

/// `BTF_KIND_FWD`: a declaration, of nothing here.
const KIND_DECLARATION: u32 = 7;

impl Btf {
    /// A blob of the same byte order in which every type has its number, but only these functions
    /// exist: the others are declarations without a name.
    ///
    /// The kernel identifies a function to attach to by its number, and aya finds that by the name.
    /// For the whole blob aya would make hundreds of thousands of small allocations, some 80
    /// million instructions, and if there are kinds that it does not know, it fails.
    #[must_use]
    pub fn functions_alone(&self, names: &[&str]) -> Vec<u8> {
        let wanted: BTreeSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let mut strings = vec![0];
        let mut blob = Vec::with_capacity(HEADER_LEN + self.offsets.len() * TYPE_LEN);
        blob.resize(HEADER_LEN, 0);
        let declaration = [0, KIND_DECLARATION << 24, 0].map(|word| self.blob.word(word));
        for ty in self.types() {
            let name = (ty.kind == KIND_FUNC).then(|| self.name(ty.name)).flatten();
            let Some(name) = name.filter(|name| wanted.contains(name)) else {
                blob.extend(declaration.as_flattened());
                continue;
            };
            let at = u32::try_from(strings.len()).unwrap_or_default();
            strings.extend(name);
            strings.push(0);
            let function = [at, KIND_FUNC << 24, 0].map(|word| self.blob.word(word));
            blob.extend(function.as_flattened());
        }
        let length = |bytes: usize| self.blob.word(u32::try_from(bytes).unwrap_or_default());
        let types = length(blob.len() - HEADER_LEN);
        let [first, second] = self.blob.half_word(MAGIC);
        let header = [
            // magic, version, flags
            [first, second, VERSION, 0],
            length(HEADER_LEN),
            length(0),
            types,
            types,
            length(strings.len()),
        ];
        if let Some(start) = blob.first_chunk_mut::<HEADER_LEN>() {
            start.copy_from_slice(header.as_flattened());
        }
        blob.extend(strings);
        blob
    }

    /// The name at this offset of the names.
    fn name(&self, offset: u32) -> Option<&[u8]> {
        let names = self.blob.bytes.get(self.strings.start..self.strings.end)?;
        let rest = names.get(usize::try_from(offset).ok()?..)?;
        rest.split(|byte| *byte == 0).next()
    }
}

#[cfg(test)]
mod tests {
    use aya::{Btf as AyaBtf, Endianness};

    use super::*;
    use crate::kernel::btf::{blob::Type, tests::all_kinds_in};

    #[test]
    fn functions_have_the_byte_order_of_the_blob() {
        for big_endian in [false, true] {
            let builder = all_kinds_in(big_endian);
            let blob = builder.btf().functions_alone(&["klp_enable_patch"]);
            let alone = Btf::parse(blob).unwrap();
            assert_eq!(alone.blob.big_endian, big_endian);
            assert!(alone.has_func("klp_enable_patch"));
            assert_eq!(alone.offsets.len(), builder.btf().offsets.len());
        }
    }

    /// The kernel's own type information, if this machine has any.
    #[test]
    fn functions_keep_their_numbers() {
        const NAMES: [&str; 3] = ["schedule", "bpf_iter_task", "kfree"];
        let Ok(btf) = Btf::from_sysfs("/sys".as_ref()) else {
            println!("not compared: no type information here");
            return;
        };
        let blob = btf.functions_alone(&NAMES);
        AyaBtf::parse(&blob, Endianness::default()).unwrap();
        let alone = Btf::parse(blob).unwrap();
        let number = |btf: &Btf, name: &str| {
            let is_it = |ty: Type| ty.kind == KIND_FUNC && btf.is_named(ty.name, name.as_bytes());
            btf.types().position(is_it)
        };
        for name in NAMES {
            assert!(number(&btf, name).is_some(), "{name}");
            assert_eq!(number(&alone, name), number(&btf, name), "{name}");
        }
        assert!(btf.has_func("vfs_read") && !alone.has_func("vfs_read"));
        assert_eq!(alone.offsets.len(), btf.offsets.len());
    }
}
