use super::*;
use proptest::prelude::*;

/// In the form of an x86-64 kernel: per-CPU data at zero, the sorted image, a hole, then modules
/// and generated code in no order.
const SMALL: &str = "\
0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_debug_store
ffffffff81000000 T srso_alias_untrain_ret
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 t helper
ffffffff81000200 T klp_enable_patch
ffffffff81000300 t helper
ffffffff81000400 W weak_one
ffffffff81000480 T _etext
ffffffff81200000 D klp_transition_patch
ffffffff81200008 d klp_target_state
ffffffff81300000 B _end
ffffffffc0201000 t target_sleep\t[klp_target]
ffffffffc0201040 T helper\t[klp_target]
ffffffffc0203000 d target_data\t[klp_target]
ffffffffc0100000 t livepatch_sleep\t[klp_patch_one]
ffffffffc0400000 t bpf_trampoline_6442536467\t[bpf]
ffffffffc0400800 t bpf_prog_0123456789abcdef_probe\t[bpf]
ffffffffc0500000 t ftrace_trampoline\t[__builtin__ftrace]
ffffffffc0600000 t kprobe_optinsn_page\t[__builtin__kprobes]
";

fn procfs(content: impl AsRef<[u8]>) -> tempfile::TempDir {
    let procfs = tempfile::tempdir().unwrap();
    std::fs::write(procfs.path().join("kallsyms"), content).unwrap();
    procfs
}

fn table(content: impl AsRef<[u8]>) -> Kallsyms {
    Kallsyms::open(procfs(content).path()).unwrap()
}

fn name_of(content: &str, address: u64) -> Option<CodePlace> {
    resolve(&mut table(content), &BTreeSet::from([address]))
        .unwrap()
        .remove(&address)
}

#[test]
fn an_open_table_answers_anew() {
    let procfs = procfs(SMALL);
    let mut table = Kallsyms::open(procfs.path()).unwrap();
    let address = 0xffff_ffff_c100_0004;
    let asked = BTreeSet::from([address]);
    assert!(resolve(&mut table, &asked).unwrap().is_empty());
    // A module has been loaded in between.
    let more = format!("{SMALL}ffffffffc1000000 t late\t[klp_late]\n");
    std::fs::write(procfs.path().join("kallsyms"), more).unwrap();
    let found = resolve(&mut table, &asked).unwrap();
    assert_eq!(found[&address].name, "late");
}

#[test]
fn names_have_all_their_places() {
    let procfs = procfs(SMALL);
    let wanted = [
        "klp_enable_patch",
        "helper",
        "klp_transition_patch",
        "livepatch_sleep",
        "absent",
    ];
    let found = find(procfs.path(), &wanted).unwrap();
    assert_eq!(
        found.in_vmlinux("klp_enable_patch"),
        Some(0xffff_ffff_8100_0200)
    );
    assert_eq!(
        found.in_vmlinux("klp_transition_patch"),
        Some(0xffff_ffff_8120_0000)
    );
    assert_eq!(found.all("helper").len(), 3);
    assert_eq!(found.all("helper")[2].module.as_deref(), Some("klp_target"));
    assert_eq!(
        found.in_vmlinux("helper"),
        None,
        "two functions have this name"
    );
    assert_eq!(
        found.in_vmlinux("livepatch_sleep"),
        None,
        "it is in a module"
    );
    assert_eq!(found.all("livepatch_sleep").len(), 1);
    assert!(found.all("absent").is_empty() && found.all("_text").is_empty());
}

#[test]
fn addresses_get_the_function_they_lie_in() {
    let image = |symbol: &str, offset, size| {
        Some(CodePlace {
            name: symbol.to_owned(),
            module: None,
            offset: Some(offset),
            size: Some(size),
        })
    };
    assert_eq!(
        name_of(SMALL, 0xffff_ffff_8100_0000),
        image("srso_alias_untrain_ret", 0, 0x100)
    );
    assert_eq!(
        name_of(SMALL, 0xffff_ffff_8100_01ff),
        image("helper", 0xff, 0x100)
    );
    assert_eq!(
        name_of(SMALL, 0xffff_ffff_8100_047f),
        image("weak_one", 0x7f, 0x80)
    );
    let module = name_of(SMALL, 0xffff_ffff_c020_1010).unwrap();
    assert_eq!(
        (module.name.as_str(), module.offset),
        ("target_sleep", Some(0x10))
    );
    assert_eq!(
        (module.module.as_deref(), module.size),
        (Some("klp_target"), Some(0x40))
    );
    assert!(!is_generated(&module));
    // The last function of a module: data closes the range, but does not size it.
    let last = name_of(SMALL, 0xffff_ffff_c020_1050).unwrap();
    assert_eq!((last.name.as_str(), last.size), ("helper", None));
}

#[test]
fn an_address_outside_all_text_gets_no_name() {
    for address in [
        0,
        0x1100,                // per-CPU data, or a user address
        0xffff_ffff_80ff_ffff, // before the image
        0xffff_ffff_8100_0490, // past the end of text
        0xffff_ffff_8120_0004, // in data
        0xffff_ffff_8130_1000, // past the image
        0xffff_ffff_c020_3010, // in a module's data
        0xffff_ffff_c011_0000, // far past a module's last function
        0xffff_ffff_c0ff_ffff,
        u64::MAX,
    ] {
        assert_eq!(name_of(SMALL, address), None, "{address:#x}");
    }
}

#[test]
fn generated_code_is_distinguished_from_modules() {
    for (address, symbol) in [
        (0xffff_ffff_c040_0123, "bpf_trampoline_6442536467"),
        (0xffff_ffff_c040_0801, "bpf_prog_0123456789abcdef_probe"),
        (0xffff_ffff_c050_0010, "ftrace_trampoline"),
        (0xffff_ffff_c060_0010, "kprobe_optinsn_page"),
    ] {
        let resolved = name_of(SMALL, address).unwrap();
        assert_eq!(resolved.name, symbol);
        assert!(is_generated(&resolved), "{symbol}");
    }
}

#[test]
fn hidden_addresses_are_an_error_of_their_own() {
    let hidden = procfs("0000000000000000 T _text\n0000000000000000 t helper\n");
    assert!(matches!(
        find(hidden.path(), &["helper"]),
        Err(KallsymsError::Hidden { .. })
    ));
    let asked = BTreeSet::from([1]);
    assert!(matches!(
        resolve(&mut Kallsyms::open(hidden.path()).unwrap(), &asked),
        Err(KallsymsError::Hidden { .. })
    ));
    for content in ["", "\n\n", "this is not the file\n"] {
        let odd = procfs(content);
        assert!(matches!(
            find(odd.path(), &[]),
            Err(KallsymsError::NoSymbols { .. })
        ));
    }
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(
        find(nothing.path(), &[]),
        Err(KallsymsError::Read { .. })
    ));
}

#[test]
fn odd_lines_cost_only_themselves() {
    let mut content = b"zz T bad\nffffffff81000000\n 10 T x\n11112222333344445 T long\n".to_vec();
    content.extend(b"20 T \n30 T caf\xc3\xa9\n40 T bad\xff\t[m\xff]\n50 T open\t[m\n");
    content.extend(vec![b'f'; 3 * MAX_LINE]);
    content.extend(b" 60 T tail\n70 T last");
    let procfs = procfs(&content);
    let found = find(procfs.path(), &["café", "bad", "last", "tail", "long", "x"]).unwrap();
    assert_eq!(found.in_vmlinux("café"), Some(0x30));
    assert_eq!(found.in_vmlinux("last"), Some(0x70));
    for absent in ["bad", "tail", "long", "x"] {
        assert!(found.all(absent).is_empty(), "{absent}");
    }
}

/// 7.2 may print data with the letters of text.
#[test]
fn a_symbol_is_found_whatever_its_letter() {
    for letter in ["t", "T", "d", "B"] {
        let procfs = procfs(format!("ffffffff82000000 {letter} klp_target_state\n"));
        let found = find(procfs.path(), &["klp_target_state"]).unwrap();
        assert_eq!(
            found.in_vmlinux("klp_target_state"),
            Some(0xffff_ffff_8200_0000)
        );
    }
}

/// A slow implementation to compare with.
fn slow_resolve(symbols: &[(u64, u8, usize, Option<usize>)], address: u64) -> Option<String> {
    let place = symbols
        .iter()
        .map(|symbol| symbol.0)
        .filter(|at| *at <= address)
        .max()?;
    let here = || symbols.iter().filter(|symbol| symbol.0 == place);
    let before = here()
        .find(|symbol| is_text(symbol.1))
        .or_else(|| here().next())?;
    let after = symbols
        .iter()
        .filter(|symbol| symbol.0 > address)
        .min_by_key(|symbol| symbol.0);
    let same = after.filter(|after| after.3 == before.3);
    let text = same.is_some_and(|after| is_text(after.1));
    let limit = if text {
        MAX_DISTANCE
    } else {
        MAX_DISTANCE_OPEN
    };
    let named =
        is_text(before.1) && (before.3.is_some() || same.is_some()) && address - before.0 < limit;
    named.then(|| format!("s{}", before.2))
}

proptest! {
    #[test]
    fn one_pass_agrees_with_a_full_search(
        symbols in proptest::collection::vec(
            (0_u64..0x40, prop::sample::select(vec![b't', b'T', b'd', b'W']), prop::option::of(0_usize..3)),
            1..40,
        ),
        asked in proptest::collection::btree_set(0_u64..0x41_0000, 0..40),
    ) {
        // In steps of pages, so that both limits are crossed.
        let symbols: Vec<_> = symbols.into_iter().enumerate()
            .map(|(index, (page, kind, module))| (page * 0x1_0000 + 1, kind, index, module))
            .collect();
        let mut content = String::new();
        for (address, kind, index, module) in &symbols {
            let module = module.map(|module| format!("\t[m{module}]")).unwrap_or_default();
            content += &format!("{address:016x} {} s{index}{module}\n", char::from(*kind));
        }
        let resolved = resolve(&mut table(&content), &asked).unwrap();
        for address in &asked {
            // If symbols of different owners have one address, any of them may be the next symbol.
            let ours = resolved.get(address).map(|resolved| resolved.name.clone());
            prop_assert_eq!(ours, slow_resolve(&symbols, *address), "{:#x}", address);
        }
    }

    #[test]
    fn arbitrary_bytes_are_survived(content in proptest::collection::vec(any::<u8>(), 0..600), address: u64) {
        let procfs = procfs(&content);
        let _ = find(procfs.path(), &["a"]);
        let _ = resolve(&mut Kallsyms::open(procfs.path()).unwrap(), &BTreeSet::from([0, address]));
    }

    #[test]
    fn arbitrary_lines_are_survived(line in "[0-9a-f]{0,18} ?[a-zA-Z] ?[a-z.\\x00]{0,9}\t?\\[?[a-z]{0,3}\\]?") {
        if let Some(parsed) = parse_line(line.as_bytes()) {
            prop_assert!(!parsed.name.is_empty() && !parsed.name.contains(&b'\t'));
        }
    }
}
