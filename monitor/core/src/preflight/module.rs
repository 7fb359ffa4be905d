//! What a livepatch module's file says of itself: its facts (`.modinfo`), and the
//! functions it replaces.
//!
//! The file may come from anywhere and hold anything: every read is checked, every
//! list bounded.

use std::collections::{BTreeMap, HashMap};

use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationKind,
    RelocationTarget, SectionIndex, SectionKind,
    read::elf::{ElfFile64, ElfSection64},
};
use serde::Serialize;

pub use layout::KlpLayout;

mod layout;
mod structures;
#[cfg(test)]
mod tests;

/// `KSYM_NAME_LEN` (include/linux/kallsyms.h) is 512 since 6.1.
const MAX_NAME: usize = 512;
/// `MODULE_NAME_LEN`: 64 less the size of a pointer (include/linux/moduleparam.h).
const MAX_MODULE_NAME: usize = 55;
/// Functions a module may replace; cumulative patches have some hundreds.
const MAX_FUNCTIONS: usize = 65_536;
/// Pointers in a module's data that are looked at.
const MAX_POINTERS: usize = 1 << 20;
/// `SHN_LIVEPATCH` (include/uapi/linux/elf.h): a symbol that livepatch resolves.
const SHN_LIVEPATCH: u16 = 0xff20;
/// What an appended signature ends with (include/linux/module_signature.h).
const SIGNATURE: &[u8] = b"~Module signature appended~\n";

/// Why a file is not a module that can be judged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// It is no ELF file of 64 bits.
    #[error("it is no kernel module: not an ELF file of 64 bits ({0})")]
    NotElf(String),
    /// It is another kind of ELF file.
    #[error(
        "it is no kernel module: an ELF file, but not a relocatable one (a module ends in .ko)"
    )]
    NotRelocatable,
    /// It has no facts.
    #[error("it is no kernel module: it has no {0}")]
    NoSection(&'static str),
    /// Its name is missing or none.
    #[error(
        "its name in .modinfo and .gnu.linkonce.this_module is missing, or not one a module can have"
    )]
    NoName,
    /// Something in it has more entries than is believable.
    #[error("it has more than {limit} {what}: it is damaged, or no livepatch")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are looked at.
        limit: usize,
    },
    /// A structure in it makes no sense.
    #[error("its {section} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The section.
        section: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A module, as its file tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// The name it will have in the kernel.
    pub name: String,
    /// It says `livepatch=Y`: without that, the kernel lets it enable nothing.
    pub livepatch: bool,
    /// The kernel it was built for, and how that is configured.
    pub vermagic: Option<String>,
    /// The fingerprint of its sources.
    pub srcversion: Option<String>,
    /// The modules it needs, by their names in the kernel.
    pub depends: Vec<String>,
    /// A signature is appended. Whether this kernel trusts its key the file cannot tell.
    pub signed: bool,
    /// It replaces all other livepatches; `None` where its code decides that.
    pub replace: Option<bool>,
    /// Where its functions were read.
    pub source: Source,
    /// The functions it replaces, by object, `vmlinux` for the kernel itself.
    pub objects: Vec<Object>,
    /// Symbols that livepatch must find for its relocations.
    pub needed: Vec<NeededSymbol>,
}

/// Where the functions of a module stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `struct klp_patch`, `klp_object` and `klp_func` in its data.
    KlpPatch,
    /// `.kpatch.funcs`, from kpatch-build.
    KpatchBuild,
    /// `__klp_objects` or `.init.klp_objects`, from the kernel's own klp-build (6.19).
    KlpBuild,
    /// Nowhere: its code makes them up as it loads, or it has none.
    Nowhere,
}

/// The functions that a module replaces in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    /// `vmlinux` or a module.
    pub name: String,
    /// The functions.
    pub functions: Vec<Function>,
}

/// A function that a module replaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Which of several symbols of this name, from 1; 0: the only one.
    pub sympos: u64,
}

/// A symbol named `.klp.sym.OBJECT.NAME,POSITION`: without it in OBJECT, the module
/// does not load (klp_resolve_symbols, kernel/livepatch/core.c).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NeededSymbol {
    /// `vmlinux` or a module.
    pub object: String,
    /// The symbol's name.
    pub name: String,
    /// Which of several of this name, from 1; 0: the only one.
    pub sympos: u64,
}

impl Module {
    /// Reads a module, decompressed.
    ///
    /// # Errors
    /// [`ModuleError`]: it is no module, or damaged.
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

    /// The kernel release it was built for: what `uname -r` says there.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.vermagic.as_deref()?.split(' ').next()
    }

    /// The functions it replaces, in all objects.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &Function)> {
        self.objects.iter().flat_map(|object| {
            let functions = object.functions.iter();
            functions.map(|function| (object.name.as_str(), function))
        })
    }
}

/// Where a pointer in the module's data leads once the module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A place in the module.
    Here(SectionIndex, u64),
    /// Somewhere else.
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

    /// A symbol's or module's name; none where there is no such thing.
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

    /// `.modinfo`: `key=value`, NUL-terminated.
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
            // Of these each is there once; others (alias) are of no interest here.
            if values.is_empty() {
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(facts)
    }

    /// The name that the linker put into `struct module`.
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

/// Data in which `struct klp_patch` and its like can lie.
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
