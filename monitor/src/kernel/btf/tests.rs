use super::blob::{HEADER_LEN, HEADER_LEN_WITH_LAYOUT, KIND_INT, MAGIC, TYPE_LEN, VERSION};
use super::*;
use proptest::prelude::*;

/// Builds blobs: types in the order of their numbers, names in the order of use.
pub(in crate::kernel) struct Builder {
    types: Vec<u8>,
    names: Vec<u8>,
    layout: Vec<[u8; 4]>,
    big_endian: bool,
}

impl Builder {
    fn new() -> Self {
        Self {
            types: Vec::new(),
            names: vec![0],
            layout: Vec::new(),
            big_endian: false,
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let offset = u32::try_from(self.names.len()).unwrap();
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
        offset
    }

    fn word(&self, word: u32) -> [u8; 4] {
        if self.big_endian {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    }

    /// A type: its fixed part, then `words`.
    fn add(&mut self, name: &str, info: u32, size_or_type: u32, words: &[u32]) -> &mut Self {
        let name = self.name(name);
        for word in [name, info, size_or_type].iter().chain(words) {
            self.types.extend(self.word(*word));
        }
        self
    }

    fn composite(
        &mut self,
        kind: u32,
        name: &str,
        flagged: bool,
        members: &[(&str, u32, u32)],
    ) -> &mut Self {
        let mut words = Vec::new();
        for (name, id, offset) in members {
            words.extend([self.name(name), *id, *offset]);
        }
        let len = u32::try_from(members.len()).unwrap();
        self.add(
            name,
            u32::from(flagged) << 31 | kind << 24 | len,
            64,
            &words,
        )
    }

    fn int(&mut self, name: &str, size: u32, bits: u32) -> &mut Self {
        self.add(name, KIND_INT << 24, size, &[bits])
    }

    fn enumeration(&mut self, kind: u32, name: &str, values: &[&str]) -> &mut Self {
        let mut words = Vec::new();
        for value in values {
            let offset = self.name(value);
            words.extend([offset, 0]);
            words.extend((kind == KIND_ENUM64).then_some(0));
        }
        self.add(
            name,
            kind << 24 | u32::try_from(values.len()).unwrap(),
            4,
            &words,
        )
    }

    fn blob(&self) -> Vec<u8> {
        let magic = if self.big_endian {
            MAGIC.to_be_bytes()
        } else {
            MAGIC.to_le_bytes()
        };
        let mut blob = magic.to_vec();
        blob.extend([VERSION, 0]);
        let (types, names) = (self.types.len(), self.names.len());
        let layout = self.layout.concat();
        let header = if layout.is_empty() {
            HEADER_LEN
        } else {
            HEADER_LEN_WITH_LAYOUT
        };
        let mut fields = vec![header, 0, types, types, names];
        if !layout.is_empty() {
            fields.extend([types + names, layout.len()]);
        }
        for field in fields {
            blob.extend(self.word(u32::try_from(field).unwrap()));
        }
        blob.extend([&self.types[..], &self.names[..], &layout[..]].concat());
        blob
    }

    pub(in crate::kernel) fn btf(&self) -> Btf {
        Btf::parse(self.blob()).unwrap()
    }
}

/// A type of every kind, so that a wrong size of any of them shifts the ones after it.
fn all_kinds() -> Builder {
    let mut builder = Builder::new();
    builder
        .int("int", 4, 32) // 1
        .add("", 2 << 24, 1, &[]) // 2 PTR
        .add("", 3 << 24, 0, &[1, 1, 8]) // 3 ARRAY
        .composite(KIND_UNION, "", false, &[("low", 1, 0), ("high", 1, 0)]) // 4
        .composite(KIND_STRUCT, "", false, &[("pad", 2, 0), ("", 4, 64)]) // 5
        .add("alias_t", 8 << 24, 5, &[]) // 6 TYPEDEF
        .add("", 9 << 24, 6, &[]) // 7 VOLATILE
        .add("", 10 << 24, 7, &[]) // 8 CONST
        .add("", 11 << 24, 8, &[]) // 9 RESTRICT
        .add("tag", 18 << 24, 9, &[]) // 10 TYPE_TAG
        .add("only_declared", 7 << 24, 0, &[]) // 11 FWD
        .add("", 13 << 24 | 1, 0, &[0, 1]) // 12 FUNC_PROTO
        .add("klp_enable_patch", 12 << 24, 12, &[]) // 13 FUNC
        .add("variable", 14 << 24, 1, &[0]) // 14 VAR
        .add(".data", 15 << 24 | 1, 0, &[14, 0, 4]) // 15 DATASEC
        .add("float", 16 << 24, 4, &[]) // 16 FLOAT
        .add("decl", 17 << 24, 13, &[0]) // 17 DECL_TAG
        .enumeration(KIND_ENUM, "small", &["SMALL_A", "SMALL_B"]) // 18
        .enumeration(KIND_ENUM64, "wide", &["WIDE_A", "WIDE_B"]) // 19
        .composite(
            KIND_STRUCT,
            "holder",
            false,
            &[
                ("first", 1, 0),
                ("", 5, 64),
                ("inner", 10, 192),
                ("array", 3, 320),
            ],
        )
        .composite(
            KIND_STRUCT,
            "packed",
            true,
            &[("plain", 1, 32), ("bits", 1, 3 << 24 | 64), ("", 4, 96)],
        );
    builder
}

/// The same in either byte order.
pub(in crate::kernel) fn all_kinds_in(big_endian: bool) -> Builder {
    let mut builder = all_kinds();
    if big_endian {
        // The types consist of whole words, so swapping the bytes of each gives the big-endian
        // blob.
        builder.types.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        builder.big_endian = true;
    }
    builder
}

#[test]
fn every_kind_is_passed_and_members_are_found() {
    for big_endian in [false, true] {
        let builder = all_kinds_in(big_endian);
        let btf = builder.btf();
        assert_eq!(btf.offsets.len(), 21);
        assert_eq!(btf.member_offset("holder", "first").unwrap(), 0);
        assert_eq!(btf.member_offset("holder", "pad").unwrap(), 8);
        assert_eq!(btf.member_offset("holder", "high").unwrap(), 16);
        assert_eq!(btf.member_offset("holder", "inner").unwrap(), 24);
        assert_eq!(btf.member_offset("holder", "inner.low").unwrap(), 32);
        assert_eq!(btf.member_offset("holder", "array").unwrap(), 40);
        assert_eq!(btf.member_offset("packed", "plain").unwrap(), 4);
        assert_eq!(btf.member_offset("packed", "low").unwrap(), 12);
        assert!(
            btf.has_func("klp_enable_patch")
                && !btf.has_func("klp_enable")
                && !btf.has_func("variable")
        );
        assert!(btf.has_struct("holder") && !btf.has_struct("hold") && !btf.has_struct(""));
        assert!(!btf.has_struct("only_declared") && !btf.has_struct("alias_t"));
        assert!(btf.has_enumerator("small", "SMALL_B") && btf.has_enumerator("wide", "WIDE_B"));
        assert!(!btf.has_enumerator("small", "WIDE_B") && !btf.has_enumerator("tiny", "SMALL_B"));
    }
}

#[test]
fn kinds_of_missing_things_are_distinguished() {
    let btf = all_kinds().btf();
    let error = |name: &str, path: &str| btf.member_offset(name, path).unwrap_err();
    assert!(matches!(error("nothing", "first"), BtfError::NoStruct { name } if name == "nothing"));
    assert!(matches!(error("", "low"), BtfError::NoStruct { .. }));
    assert!(matches!(
        error("holder", "second"),
        BtfError::NoMember { .. }
    ));
    assert!(matches!(error("holder", ""), BtfError::NoMember { .. }));
    assert!(
        matches!(error("holder", "inner.second"), BtfError::NoMember { member, .. } if member == "inner.second")
    );
    assert!(
        matches!(error("holder", "first.x"), BtfError::NotAStruct { member, .. } if member == "first")
    );
    // A pointer is not followed: its target has no fixed place in the holder.
    assert!(matches!(
        error("holder", "pad.low"),
        BtfError::NotAStruct { .. }
    ));
    assert!(matches!(error("packed", "bits"), BtfError::BitField { .. }));
}

#[test]
fn bit_fields_of_before_the_kind_flag_are_refused() {
    let mut builder = Builder::new();
    builder.int("narrow", 4, 3).int("int", 4, 32).composite(
        KIND_STRUCT,
        "old",
        false,
        &[("by_type", 1, 0), ("by_place", 2, 3), ("whole", 2, 32)],
    );
    let btf = builder.btf();
    assert!(matches!(
        btf.member_offset("old", "by_type"),
        Err(BtfError::BitField { .. })
    ));
    assert!(matches!(
        btf.member_offset("old", "by_place"),
        Err(BtfError::BitField { .. })
    ));
    assert_eq!(btf.member_offset("old", "whole").unwrap(), 4);
}

#[test]
fn definitions_of_one_name_must_agree() {
    let mut builder = Builder::new();
    builder
        .int("int", 4, 32)
        .composite(
            KIND_STRUCT,
            "twice",
            false,
            &[("same", 1, 0), ("moved", 1, 32)],
        )
        .composite(
            KIND_STRUCT,
            "twice",
            false,
            &[("same", 1, 0), ("moved", 1, 64), ("only_here", 1, 96)],
        );
    let btf = builder.btf();
    assert_eq!(btf.member_offset("twice", "same").unwrap(), 0);
    assert_eq!(btf.member_offset("twice", "only_here").unwrap(), 12);
    assert!(matches!(
        btf.member_offset("twice", "moved"),
        Err(BtfError::Ambiguous {
            first: 4,
            second: 8,
            ..
        })
    ));
    assert!(matches!(
        btf.member_offset("twice", "absent"),
        Err(BtfError::NoMember { .. })
    ));
}

#[test]
fn types_that_hold_themselves_end() {
    let mut builder = Builder::new();
    // 1: a typedef of itself; 2 and 3 hold each other a thousand times, nameless.
    builder.add("loop_t", 8 << 24, 1, &[]);
    builder.composite(KIND_STRUCT, "left", false, &[("", 3, 8); 1000]);
    builder.composite(
        KIND_STRUCT,
        "right",
        false,
        &[("", 2, 8), ("", 1, 0), ("", 99, 0), ("in", 1, 0)],
    );
    let btf = builder.btf();
    assert!(matches!(
        btf.member_offset("left", "absent"),
        Err(BtfError::NoMember { .. })
    ));
    assert_eq!(btf.member_offset("left", "in").unwrap(), 1);
    assert!(matches!(
        btf.member_offset("left", "in.x"),
        Err(BtfError::NotAStruct { .. })
    ));
}

#[test]
fn unknown_kinds_are_skipped_by_the_layout_only() {
    let mut builder = Builder::new();
    builder
        .add("later", 25 << 24 | 2, 0, &[7, 7, 7])
        .add("after", 12 << 24, 0, &[]);
    assert!(matches!(
        Btf::parse(builder.blob()),
        Err(BtfError::UnknownKind { id: 1, kind: 25 })
    ));
    // Four bytes once, four bytes for each of two elements.
    builder.layout = vec![[0; 4]; 25];
    builder.layout.push([4, 4, 0, 0]);
    assert!(builder.btf().has_func("after"));
    builder.layout.pop();
    assert!(matches!(
        Btf::parse(builder.blob()),
        Err(BtfError::UnknownKind { .. })
    ));
}

/// A composite longer than the 16 bits that kernels up to 6.12 write.
#[test]
fn the_wider_member_count_is_read() {
    let mut builder = Builder::new();
    let mut members = vec![("pad", 1, 0); 0x1_0000];
    members.push(("last", 1, 32));
    builder
        .int("int", 4, 32)
        .composite(KIND_STRUCT, "long", false, &members)
        .add("after", 12 << 24, 0, &[]);
    let btf = builder.btf();
    assert_eq!(btf.member_offset("long", "last").unwrap(), 4);
    assert!(btf.has_func("after"));
}

#[test]
fn broken_blobs_are_refused() {
    let good = all_kinds().blob();
    assert!(Btf::parse(&good[..]).is_ok());
    for len in 0..good.len() {
        // Any cut loses part of a section that the header promises.
        assert!(
            matches!(Btf::parse(&good[..len]), Err(BtfError::Malformed { .. })),
            "cut at {len}"
        );
    }
    for (at, value) in [
        (0, 0),
        (2, 2),
        (4, 1),
        (7, 0xff),
        (11, 0xff),
        (12, 1),
        (15, 0xff),
        (23, 0xff),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(Btf::parse(bad).is_err(), "byte {at} set to {value}");
    }
}

#[test]
fn reads_from_sysfs_and_names_the_file_it_lacks() {
    let sysfs = tempfile::tempdir().unwrap();
    let error = Btf::from_sysfs(sysfs.path()).unwrap_err();
    assert!(error.to_string().contains("kernel/btf/vmlinux"), "{error}");
    std::fs::create_dir_all(sysfs.path().join("kernel/btf")).unwrap();
    std::fs::write(sysfs.path().join("kernel/btf/vmlinux"), all_kinds().blob()).unwrap();
    assert!(Btf::from_sysfs(sysfs.path()).unwrap().has_struct("holder"));
}

/// A blob that pahole wrote, as it writes the kernel's; see shapes.c in the same directory.
const SHAPES: &[u8] = include_bytes!("../../../../tests/fixtures/btf/shapes.btf");

#[test]
fn what_pahole_wrote_is_read() {
    let btf = Btf::parse(SHAPES).unwrap();
    for (name, member, offset) in [
        ("task_struct", "thread_info", 0),
        ("task_struct", "thread_info.cpu", 8),
        ("task_struct", "__state", 16),
        ("task_struct", "stack", 24),
        ("task_struct", "usage.counter", 32),
        ("task_struct", "on_cpu", 36),
        ("task_struct", "high", 38),
        ("task_struct", "nested", 40),
        ("task_struct", "comm", 48),
        ("task_struct", "patch_state", 64),
        ("klp_patch", "mod", 0),
        ("klp_patch", "replace", 8),
        ("klp_patch", "list.prev", 24),
        ("klp_patch", "kobj.entry.prev", 48),
        ("klp_patch", "enabled", 56),
    ] {
        assert_eq!(
            btf.member_offset(name, member).unwrap(),
            offset,
            "{name}.{member}"
        );
    }
    assert!(matches!(
        btf.member_offset("klp_patch", "first"),
        Err(BtfError::BitField { .. })
    ));
    assert!(matches!(
        btf.member_offset("klp_patch", "second"),
        Err(BtfError::BitField { .. })
    ));
    assert!(btf.has_func("klp_enable_patch"));
    assert!(btf.has_enumerator(
        "ftrace_ops_cmd",
        "FTRACE_OPS_CMD_ENABLE_SHARE_IPMODIFY_SELF"
    ));
    assert!(btf.has_enumerator("wide", "WIDE_HIGH"));
    assert!(!btf.has_struct("module"), "module is only declared");
}

/// Calls every function on a blob; only that they return matters.
fn ask(blob: Vec<u8>) {
    let len = blob.len();
    if let Ok(btf) = Btf::parse(blob) {
        assert!(btf.offsets.len() <= len / TYPE_LEN);
        for name in ["holder", "packed", "task_struct", "klp_patch"] {
            for path in [
                "first",
                "inner.low",
                "bits",
                "comm",
                "kobj.entry.prev",
                "absent",
                "",
            ] {
                let _ = btf.member_offset(name, path);
            }
            let _ = (
                btf.has_struct(name),
                btf.has_func(name),
                btf.has_enumerator(name, "WIDE_B"),
            );
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        ask(bytes.clone());
        // The same bytes after a valid start, to get past the first check.
        for (byte, good) in bytes.iter_mut().zip(all_kinds().blob().into_iter().take(8)) {
            *byte = good;
        }
        ask(bytes);
    }

    #[test]
    fn damaged_blobs_are_survived(
        real in any::<bool>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut blob = if real { SHAPES.to_vec() } else { all_kinds().blob() };
        for (at, value) in damage {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        ask(blob);
    }
}

#[test]
fn members_have_the_sizes_that_pahole_prints() {
    let btf = Btf::parse(SHAPES).unwrap();
    for (structure, member, size) in [
        ("klp_patch", "mod", Some(8)),
        ("klp_patch", "replace", Some(1)),
        ("klp_patch", "list", Some(16)),
        ("task_struct", "on_cpu", Some(4)),
        ("task_struct", "low", Some(2)),
        ("task_struct", "usage", Some(4)),
        ("task_struct", "comm", Some(16)),
        ("task_struct", "nested", Some(8)),
        ("task_struct", "absent", None),
        ("absent", "comm", None),
    ] {
        assert_eq!(
            btf.member_size(structure, member),
            size,
            "{structure}.{member}"
        );
    }
}
