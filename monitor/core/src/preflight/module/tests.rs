#![expect(clippy::disallowed_methods, reason = "tests read recorded inputs")]

use object::{
    Architecture, BinaryFormat, Endianness as Order, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
    elf::R_X86_64_64,
    write::{
        Object as Writer, Relocation, RelocationFlags, SectionId, Symbol, SymbolId, SymbolSection,
    },
};
use proptest::prelude::*;

use super::*;

/// tests/modules/lpm_replace.c of this repository, built for Debian's 6.12 and stripped.
const RECORDED: &[u8] = include_bytes!("../../../../../tests/fixtures/preflight/lpm_replace.ko");

fn parse(bytes: &[u8]) -> Result<Module, ModuleError> {
    Module::parse(bytes, &KlpLayout::KNOWN)
}

/// `(object, function, sympos)` of each.
fn functions(module: &Module) -> Vec<(&str, &str, u64)> {
    module
        .functions()
        .map(|(object, function)| (object, function.name.as_str(), function.sympos))
        .collect()
}

#[test]
fn reads_a_recorded_module() {
    let module = parse(RECORDED).unwrap();
    assert_eq!(module.name, "lpm_replace");
    assert!(module.livepatch && !module.signed);
    assert_eq!(module.release(), Some("6.12.95+deb12-cloud-amd64"));
    assert_eq!(module.srcversion.as_ref().map(String::len), Some(23));
    assert_eq!(module.replace, Some(true));
    assert_eq!(module.source, Source::KlpPatch);
    assert_eq!(module.depends, [""; 0]);
    assert_eq!(
        functions(&module),
        [
            ("lpm_late", "lpm_late_version", 0),
            ("lpm_target", "lpm_hold", 0),
            ("lpm_target", "lpm_kthread_sleep", 0),
            ("lpm_target", "lpm_spin", 0),
            ("lpm_target", "lpm_version", 0),
            ("vmlinux", "cmdline_proc_show", 0),
        ]
    );
}

#[test]
fn what_is_no_module_is_said() {
    assert!(matches!(parse(b""), Err(ModuleError::NotElf(_))));
    assert!(matches!(parse(b"#!/bin/sh\n"), Err(ModuleError::NotElf(_))));
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(parse(&program), Err(ModuleError::NotRelocatable));
    let empty = Made::new(&[]).bytes();
    assert_eq!(parse(&empty), Err(ModuleError::NoSection(".modinfo")));
}

/// A module in the making.
struct Made {
    writer: Writer<'static>,
    strings: SectionId,
    code: SymbolId,
}

impl Made {
    fn new(facts: &[&str]) -> Self {
        let mut writer = Writer::new(BinaryFormat::Elf, Architecture::X86_64, Order::Little);
        if !facts.is_empty() {
            let section =
                writer.add_section(vec![], b".modinfo".to_vec(), SectionKind::ReadOnlyData);
            let facts = facts.join("\0") + "\0";
            writer.append_section_data(section, facts.as_bytes(), 1);
        }
        let strings = writer.add_section(
            vec![],
            b".rodata.str1.1".to_vec(),
            SectionKind::ReadOnlyData,
        );
        let text = writer.section_id(object::write::StandardSection::Text);
        writer.append_section_data(text, &[0xc3; 16], 16);
        let code = writer.section_symbol(text);
        Self {
            writer,
            strings,
            code,
        }
    }

    fn section(&mut self, name: &str, size: usize) -> SectionId {
        let name = name.as_bytes().to_vec();
        let section = self.writer.add_section(vec![], name, SectionKind::Data);
        self.writer.append_section_data(section, &vec![0; size], 8);
        section
    }

    fn put(&mut self, section: SectionId, at: usize, bytes: &[u8]) {
        self.writer.section_mut(section).data_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn point(&mut self, section: SectionId, at: u64, symbol: SymbolId, addend: i64) {
        let relocation = Relocation {
            offset: at,
            symbol,
            addend,
            flags: RelocationFlags::Elf {
                r_type: R_X86_64_64,
            },
        };
        self.writer.add_relocation(section, relocation).unwrap();
    }

    fn point_at_string(&mut self, section: SectionId, at: u64, string: &str) {
        let bytes = [string.as_bytes(), b"\0"].concat();
        let offset = self.writer.append_section_data(self.strings, &bytes, 1);
        let symbol = self.writer.section_symbol(self.strings);
        self.point(section, at, symbol, i64::try_from(offset).unwrap());
    }

    fn point_at_code(&mut self, section: SectionId, at: u64) {
        self.point(section, at, self.code, 0);
    }

    fn bytes(self) -> Vec<u8> {
        self.writer.write().unwrap()
    }
}

/// A module with a `struct klp_patch` of one function.
fn of_one_function(replace: bool, sympos: u64) -> Made {
    let mut made = Made::new(&["name=one", "livepatch=Y", "depends=a-b,c"]);
    let this_module = made.section(".gnu.linkonce.this_module", 64);
    let module = made.writer.section_symbol(this_module);
    let data = made.section(".data", 1200);
    let here = made.writer.section_symbol(data);
    // What begins like a patch and is none: file_operations.
    made.point(data, 0, module, 0);
    made.point_at_code(data, 8);
    // Like a patch for longer: its objects' functions are text.
    made.point(data, 40, module, 0);
    made.point(data, 48, here, 1000);
    // The patch at 100, its objects at 300, their functions at 700.
    made.point(data, 104, module, 0);
    made.point(data, 112, here, 304);
    made.put(data, 104 + 24, &[u8::from(replace)]);
    made.point(data, 304 + 8, here, 704);
    made.point_at_string(data, 704, "one_show");
    made.point_at_code(data, 704 + 8);
    made.put(data, 704 + 16, &sympos.to_le_bytes());
    made
}

#[test]
fn finds_the_patch_among_what_looks_like_it() {
    let module = parse(&of_one_function(false, 2).bytes()).unwrap();
    assert_eq!(functions(&module), [("vmlinux", "one_show", 2)]);
    assert_eq!(
        (module.replace, module.source),
        (Some(false), Source::KlpPatch)
    );
    assert_eq!(module.depends, ["a_b", "c"]);
    assert_eq!(module.vermagic, None);
    let module = parse(&of_one_function(true, 0).bytes()).unwrap();
    assert_eq!(module.replace, Some(true));
}

#[test]
fn a_signature_is_seen() {
    let mut bytes = of_one_function(true, 0).bytes();
    bytes.extend_from_slice(b"xxx~Module signature appended~\n");
    assert!(parse(&bytes).unwrap().signed);
}

#[test]
fn without_structures_the_functions_are_nowhere() {
    let mut made = Made::new(&["name=code", "livepatch=Y"]);
    made.section(".gnu.linkonce.this_module", 64);
    let module = parse(&made.bytes()).unwrap();
    assert_eq!((module.source, module.replace), (Source::Nowhere, None));
}

#[test]
fn the_name_may_stand_in_struct_module() {
    let mut made = Made::new(&["livepatch=Y"]);
    let section = made.section(".gnu.linkonce.this_module", 64);
    made.put(section, 24, b"linked\0");
    assert_eq!(parse(&made.bytes()).unwrap().name, "linked");
    let mut made = Made::new(&["name=../../etc/passwd"]);
    made.section(".gnu.linkonce.this_module", 64);
    assert_eq!(parse(&made.bytes()), Err(ModuleError::NoName));
}

#[test]
fn reads_what_kpatch_build_makes() {
    let mut made = Made::new(&["name=kpatch_x", "livepatch=Y"]);
    let funcs = made.section(".kpatch.funcs", 112);
    for (base, object, sympos) in [(0_u8, "vmlinux", 3_u8), (56, "ext4", 0)] {
        let at = u64::from(base);
        made.point_at_code(funcs, at);
        made.put(funcs, usize::from(base) + 32, &[sympos]);
        made.point_at_string(funcs, at + 40, "f");
        made.point_at_string(funcs, at + 48, object);
    }
    let module = parse(&made.bytes()).unwrap();
    assert_eq!((module.source, module.replace), (Source::KpatchBuild, None));
    assert_eq!(functions(&module), [("ext4", "f", 0), ("vmlinux", "f", 3)]);
}

#[test]
fn reads_what_klp_build_makes() {
    for (objects, funcs) in structures::KLP_BUILD {
        let mut made = Made::new(&["name=klp_x", "livepatch=Y"]);
        let funcs = made.section(funcs, 48);
        for (base, name) in [(0, "first"), (24, "second")] {
            made.point_at_string(funcs, base, name);
            made.point_at_code(funcs, base + 8);
        }
        made.put(funcs, 24 + 16, &[1]);
        let here = made.writer.section_symbol(funcs);
        let objects = made.section(objects, 64);
        made.point_at_string(objects, 0, "ext4");
        made.point(objects, 8, here, 0);
        made.put(objects, 56, &[2]);
        let bytes = made.bytes();
        let module = parse(&bytes).unwrap();
        assert_eq!((module.source, module.replace), (Source::KlpBuild, None));
        assert_eq!(
            functions(&module),
            [("ext4", "first", 0), ("ext4", "second", 1)]
        );
    }
}

#[test]
fn more_functions_than_there_are_is_damage() {
    let mut made = Made::new(&["name=klp_x", "livepatch=Y"]);
    let funcs = made.section("__klp_funcs", 24);
    let here = made.writer.section_symbol(funcs);
    let objects = made.section("__klp_objects", 64);
    made.point(objects, 8, here, 0);
    made.put(objects, 56, &[0xff; 4]);
    let error = parse(&made.bytes()).unwrap_err();
    assert!(matches!(error, ModuleError::Damaged { .. }), "{error}");
}

#[test]
fn symbols_that_relocations_need() {
    let needed = parse_needed(".klp.sym.nf_tables.nft_do.part.0,12").unwrap();
    assert_eq!(
        (needed.object.as_str(), needed.name.as_str(), needed.sympos),
        ("nf_tables", "nft_do.part.0", 12)
    );
    for none in [
        ".klp.sym.vmlinux",
        ".klp.sym.vmlinux.x",
        ".klp.sym..x,0",
        "x",
        ".klp.sym.a.,1",
    ] {
        assert_eq!(parse_needed(none), None, "{none}");
    }
    let mut made = of_one_function(true, 0);
    made.writer.add_symbol(Symbol {
        name: b".klp.sym.vmlinux.needed,0".to_vec(),
        value: 0,
        size: 0,
        kind: SymbolKind::Text,
        scope: SymbolScope::Unknown,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    });
    let mut bytes = made.bytes();
    assert_eq!(parse(&bytes).unwrap().needed, []);
    // As kpatch-build and klp-build do: SHN_LIVEPATCH in place of SHN_UNDEF.
    let at = {
        let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).unwrap();
        let named = |symbol: &object::read::elf::ElfSymbol64<'_, '_>| {
            symbol
                .name()
                .is_ok_and(|name| name.starts_with(".klp.sym."))
        };
        let symbol = file.symbols().find(named).unwrap();
        let table = file
            .section_by_name(".symtab")
            .unwrap()
            .file_range()
            .unwrap()
            .0;
        usize::try_from(table).unwrap() + 24 * symbol.index().0 + 6
    };
    bytes[at..at + 2].copy_from_slice(&SHN_LIVEPATCH.to_le_bytes());
    assert_eq!(parse(&bytes).unwrap().needed[0].name, "needed");
}

#[test]
fn no_cut_panics() {
    for length in (0..RECORDED.len()).step_by(7) {
        let _ = parse(&RECORDED[..length]);
    }
}

proptest! {
    #[test]
    fn never_panics_when_damaged(
        changes in proptest::collection::vec((0..RECORDED.len(), any::<u8>()), 1..20)
    ) {
        let mut bytes = RECORDED.to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(module) = parse(&bytes) {
            prop_assert!(module.functions().count() <= MAX_FUNCTIONS);
            prop_assert!(is_module_name(&module.name));
        }
    }

    #[test]
    fn never_panics_with_another_layout(offsets in proptest::array::uniform11(any::<u64>())) {
        let [a, b, c, d, e, f, g, h, i, j, k] = offsets;
        let layout = KlpLayout {
            patch_mod: a, patch_objs: b, patch_replace: c, object_name: d, object_funcs: e,
            object_size: f, func_old_name: g, func_new_func: h, func_old_sympos: i,
            func_size: j, module_name: k,
        };
        let _ = Module::parse(RECORDED, &layout);
    }
}
