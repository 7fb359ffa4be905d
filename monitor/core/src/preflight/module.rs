//! Reads a livepatch module's file: its metadata (`.modinfo`) and the functions it
//! replaces.
//!
//! The file is untrusted: every read is checked and every list is bounded.

use std::collections::{BTreeMap, HashMap};

use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationKind,
    RelocationTarget, SectionIndex, SectionKind,
    read::elf::{ElfFile64, ElfSection64},
};
use serde::Serialize;

pub use crate::patch::Function;
pub use layout::KlpLayout;

mod layout;
mod structures;
#[cfg(test)]
mod tests;

/// `KSYM_NAME_LEN` (include/linux/kallsyms.h) is 512 since 6.1.
const MAX_NAME: usize = 512;
/// `MODULE_NAME_LEN`: 64 less the size of a pointer (include/linux/moduleparam.h).
const MAX_MODULE_NAME: usize = 55;
/// Most functions a module may replace; cumulative patches have some hundreds.
const MAX_FUNCTIONS: usize = 65_536;
/// Most pointers in a module's data that are examined.
const MAX_POINTERS: usize = 1 << 20;
/// `SHN_LIVEPATCH` (include/uapi/linux/elf.h): a symbol that livepatch resolves.
const SHN_LIVEPATCH: u16 = 0xff20;
/// The end of an appended signature (include/linux/module_signature.h).
const SIGNATURE: &[u8] = b"~Module signature appended~\n";

/// A file is not a module that can be checked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The file is not a 64-bit ELF file.
    #[error("not a kernel module: not a 64-bit ELF file ({0})")]
    NotElf(String),
    /// The file is an ELF file of another type.
    #[error("not a kernel module: an ELF file, but not a relocatable one (modules end in .ko)")]
    NotRelocatable,
    /// A required section is missing.
    #[error("not a kernel module: it has no section {0}")]
    NoSection(&'static str),
    /// The module's name is missing or invalid.
    #[error("its name in .modinfo and .gnu.linkonce.this_module is missing or invalid")]
    NoName,
    /// A list in the file has implausibly many entries.
    #[error("it has more than {limit} {what}: it is damaged or not a livepatch")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// Most entries that are read.
        limit: usize,
    },
    /// A structure in the file is invalid.
    #[error("its {section} is damaged at byte {offset}: {what}")]
    Damaged {
        /// Name of the section.
        section: String,
        /// Offset within the section, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

/// A module as described by its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Name that the module will have in the kernel.
    pub name: String,
    /// Whether `.modinfo` has `livepatch=Y`, without which the kernel refuses to enable a
    /// patch.
    pub livepatch: bool,
    /// `vermagic`: release and configuration of the kernel it was built for.
    pub vermagic: Option<String>,
    /// `srcversion`: a hash of its sources.
    pub srcversion: Option<String>,
    /// Names of the modules it depends on, as the kernel writes them.
    pub depends: Vec<String>,
    /// Whether a signature is appended. Whether the kernel trusts its key is not known from
    /// the file.
    pub signed: bool,
    /// Whether it replaces all other livepatches; `None` if its code decides that.
    pub replace: Option<bool>,
    /// Where in the file the functions were found.
    pub source: Source,
    /// Functions that it replaces, by object; `vmlinux` is the kernel itself.
    pub objects: Vec<Object>,
    /// Symbols that livepatch must resolve for its relocations.
    pub needed: Vec<NeededSymbol>,
}

/// Where in a module's file its functions were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `struct klp_patch`, `klp_object` and `klp_func` in its data.
    KlpPatch,
    /// From kpatch-build: the functions are in `.kpatch.funcs`.
    KpatchBuild,
    /// `__klp_objects` or `.init.klp_objects`, from the kernel's own klp-build
    /// (include/linux/livepatch_external.h: in 7.2, not in 6.12).
    KlpBuild,
    /// Nowhere: its code builds them when it loads, or it replaces none.
    Nowhere,
}

/// The functions that a module replaces in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Name of the object: `vmlinux` or a module.
    pub name: String,
    /// Functions replaced in the object.
    pub functions: Vec<Function>,
}

/// A symbol named `.klp.sym.OBJECT.NAME,POSITION`: without it in OBJECT, the module
/// does not load (klp_resolve_symbols, kernel/livepatch/core.c).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NeededSymbol {
    /// Name of the object: `vmlinux` or a module.
    pub object: String,
    /// Name of the symbol.
    pub name: String,
    /// Which of several symbols of this name, from 1; 0 means the only one.
    pub sympos: u64,
}

impl Module {
    /// Reads a decompressed module.
    ///
    /// # Errors
    /// [`ModuleError`]: the file is not a module, or it is damaged.
    pub fn parse(bytes: &[u8], layout: &KlpLayout) -> Result<Self, ModuleError> {
        let image = Image::new(bytes)?;
        let facts = image.facts()?;
        let first = |key: &str| facts.get(key).and_then(|values| values.first()).cloned();
        let name = match first("name") {
            Some(name) => name,
            None => image.linked_name(layout).ok_or(ModuleError::NoName)?,
        };
        if !is_module_name(&name) {
            return Err(ModuleError::NoName);
        }
        let found = structures::find(&image, layout)?;
        let depends = first("depends").unwrap_or_default();
        Ok(Self {
            name,
            // get_modinfo(info, "livepatch"): whatever its value.
            livepatch: facts.contains_key("livepatch"),
            vermagic: first("vermagic").map(|vermagic| vermagic.trim_end().to_owned()),
            srcversion: first("srcversion"),
            depends: depends
                .split(',')
                .filter(|name| !name.is_empty())
                .map(|name| name.replace('-', "_"))
                .collect(),
            signed: bytes.ends_with(SIGNATURE),
            replace: found.replace,
            source: found.source,
            objects: found.objects,
            needed: image.needed()?,
        })
    }

    /// Release of the kernel it was built for, as `uname -r` prints it there.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.vermagic.as_deref()?.split(' ').next()
    }

    /// Number of functions it replaces in all objects.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &Function)> {
        self.objects.iter().flat_map(|object| {
            let functions = object.functions.iter();
            functions.map(|function| (object.name.as_str(), function))
        })
    }
}

/// Target of a pointer in the module's data once the module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A place within the module.
    Here(SectionIndex, u64),
    /// A place outside the module.
    Elsewhere,
}

/// The ELF file, and the pointers in its data: zero in the file, made by relocations.
struct Image<'a> {
    file: ElfFile64<'a, Endianness>,
    pointers: HashMap<(SectionIndex, u64), Target>,
}

impl<'a> Image<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, ModuleError> {
        let file = ElfFile64::<Endianness>::parse(bytes)
            .map_err(|error| ModuleError::NotElf(error.to_string()))?;
        if file.kind() != object::ObjectKind::Relocatable {
            return Err(ModuleError::NotRelocatable);
        }
        let mut image = Self {
            file,
            pointers: HashMap::new(),
        };
        image.read_pointers()?;
        Ok(image)
    }

    fn read_pointers(&mut self) -> Result<(), ModuleError> {
        for section in self.file.sections() {
            if !holds_structures(&section) {
                continue;
            }
            for (offset, relocation) in section.relocations() {
                if relocation.kind() != RelocationKind::Absolute || relocation.size() != 64 {
                    continue;
                }
                if self.pointers.len() >= MAX_POINTERS {
                    return Err(ModuleError::TooMany {
                        what: "pointers in its data",
                        limit: MAX_POINTERS,
                    });
                }
                let target = self.target(relocation.target(), relocation.addend());
                self.pointers.insert((section.index(), offset), target);
            }
        }
        Ok(())
    }

    fn target(&self, target: RelocationTarget, addend: i64) -> Target {
        let RelocationTarget::Symbol(index) = target else {
            return Target::Elsewhere;
        };
        let Ok(symbol) = self.file.symbol_by_index(index) else {
            return Target::Elsewhere;
        };
        match symbol.section_index() {
            Some(section) => Target::Here(section, symbol.address().wrapping_add_signed(addend)),
            None => Target::Elsewhere,
        }
    }

    fn pointer(&self, section: SectionIndex, offset: u64) -> Option<Target> {
        self.pointers.get(&(section, offset)).copied()
    }

    fn section(&self, name: &str) -> Option<ElfSection64<'a, '_, Endianness>> {
        self.file.section_by_name(name)
    }

    fn name_of(&self, section: SectionIndex) -> String {
        let section = self.file.section_by_index(section);
        let name = section
            .ok()
            .and_then(|section| section.name().ok().map(str::to_owned));
        name.unwrap_or_else(|| "data".to_owned())
    }

    fn is_code(&self, section: SectionIndex) -> bool {
        self.file
            .section_by_index(section)
            .is_ok_and(|section| section.kind() == SectionKind::Text)
    }

    fn data(&self, section: SectionIndex) -> Option<&'a [u8]> {
        self.file.section_by_index(section).ok()?.data().ok()
    }

    fn bytes<const N: usize>(&self, section: SectionIndex, offset: u64) -> Option<[u8; N]> {
        let offset = usize::try_from(offset).ok()?;
        self.data(section)?.get(offset..)?.first_chunk().copied()
    }

    fn number(&self, section: SectionIndex, offset: u64) -> Option<u64> {
        let bytes = self.bytes(section, offset)?;
        Some(match self.file.endian() {
            Endianness::Little => u64::from_le_bytes(bytes),
            Endianness::Big => u64::from_be_bytes(bytes),
        })
    }

    fn short_number(&self, section: SectionIndex, offset: u64) -> Option<u32> {
        let bytes = self.bytes(section, offset)?;
        Some(match self.file.endian() {
            Endianness::Little => u32::from_le_bytes(bytes),
            Endianness::Big => u32::from_be_bytes(bytes),
        })
    }

    /// A name of a symbol or module; `None` if it is not valid as one.
    fn string(&self, target: Target) -> Option<String> {
        let Target::Here(section, offset) = target else {
            return None;
        };
        let rest = self.data(section)?.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
        let name = rest.get(..end)?;
        let plain = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        plain.then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// What `.modinfo` says (`key=value`, NUL-terminated). A key may occur more than once.
    fn facts(&self) -> Result<BTreeMap<String, Vec<String>>, ModuleError> {
        let section = self.section(".modinfo");
        let data = section.and_then(|section| section.data().ok());
        let data = data.ok_or(ModuleError::NoSection(".modinfo"))?;
        let mut facts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in data.split(|byte| *byte == 0) {
            let Some(at) = entry.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let (key, value) = entry.split_at(at);
            let value = value.get(1..MAX_NAME.min(value.len())).unwrap_or_default();
            let key = String::from_utf8_lossy(key).into_owned();
            let values = facts.entry(key).or_default();
            // The keys read here occur once; others, such as alias, are not used.
            if values.is_empty() {
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(facts)
    }

    /// The name in `struct module`, as the build put it there.
    fn linked_name(&self, layout: &KlpLayout) -> Option<String> {
        let section = self.section(".gnu.linkonce.this_module")?;
        self.string(Target::Here(section.index(), layout.module_name))
    }

    fn needed(&self) -> Result<Vec<NeededSymbol>, ModuleError> {
        let mut needed = Vec::new();
        for symbol in self.file.symbols() {
            if symbol.elf_symbol().st_shndx.get(self.file.endian()) != SHN_LIVEPATCH {
                continue;
            }
            let name = symbol.name().unwrap_or_default();
            let parsed = parse_needed(name).ok_or_else(|| ModuleError::Damaged {
                section: ".symtab".to_owned(),
                offset: u64::try_from(symbol.index().0).unwrap_or(u64::MAX),
                what: "a livepatch symbol is not named .klp.sym.OBJECT.NAME,POSITION",
            })?;
            if needed.len() >= MAX_FUNCTIONS {
                return Err(ModuleError::TooMany {
                    what: "livepatch symbols",
                    limit: MAX_FUNCTIONS,
                });
            }
            needed.push(parsed);
        }
        needed.sort_unstable();
        needed.dedup();
        Ok(needed)
    }
}

/// `.klp.sym.OBJECT.NAME,POSITION` (Documentation/livepatch/module-elf-format.rst);
/// the kernel takes the object up to the first dot.
fn parse_needed(name: &str) -> Option<NeededSymbol> {
    let (object, rest) = name.strip_prefix(".klp.sym.")?.split_once('.')?;
    let (name, sympos) = rest.rsplit_once(',')?;
    let plain = !name.is_empty() && name.len() < MAX_NAME && is_module_name(object);
    Some(NeededSymbol {
        object: object.to_owned(),
        name: name.to_owned(),
        sympos: sympos.parse().ok().filter(|_| plain)?,
    })
}

/// Whether a section can hold `struct klp_patch` and related structures.
fn holds_structures(section: &ElfSection64<'_, '_, Endianness>) -> bool {
    let name = section.name().unwrap_or_default();
    name.starts_with(".data")
        || name == structures::KPATCH_FUNCS
        || structures::KLP_BUILD
            .iter()
            .any(|(objects, funcs)| name == *objects || name == *funcs)
}

fn is_module_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= MAX_MODULE_NAME && name.bytes().all(plain)
}
