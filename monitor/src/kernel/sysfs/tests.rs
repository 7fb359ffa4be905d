use super::*;
use proptest::prelude::*;
use tempfile::TempDir;

/// A sysfs like that of 7.2, with these files and contents.
fn sysfs(files: &[(&str, &str)]) -> TempDir {
    let sysfs = tempfile::tempdir().unwrap();
    fs::create_dir_all(sysfs.path().join("kernel/livepatch")).unwrap();
    for (path, value) in files {
        let path = sysfs.path().join(path);
        if value.is_empty() {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
    }
    sysfs
}

const ONE: &str = "kernel/livepatch/klp_one";

fn two_patches() -> TempDir {
    let sysfs = sysfs(&[
        ("kernel/livepatch/klp_two/enabled", "0\n"),
        ("kernel/livepatch/klp_one/enabled", "1\n"),
        ("kernel/livepatch/klp_one/transition", "1\n"),
        ("kernel/livepatch/klp_one/replace", "0\n"),
        ("kernel/livepatch/klp_one/vmlinux/patched", "1\n"),
        ("kernel/livepatch/klp_one/vmlinux/do_exit,1", ""),
        ("kernel/livepatch/klp_one/vmlinux/c_start,10", ""),
        ("kernel/livepatch/klp_one/vmlinux/c_start,2", ""),
        ("kernel/livepatch/klp_one/nf_tables/patched", "0\n"),
        ("module/klp_one/srcversion", "533BB7E5866E52F63B9ACCB\n"),
    ]);
    // Opening either of these hangs, which fails the test.
    for name in ["stack_order", "force"] {
        let path = sysfs.path().join(ONE).join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    }
    sysfs
}

#[test]
fn a_patch_is_read_with_all_it_has() {
    let sysfs = two_patches();
    let (set, problems) = read_patches(sysfs.path()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    assert!(set.supported);
    let function = |name: &str, sympos| Function {
        name: name.to_owned(),
        sympos,
    };
    let one = Patch {
        name: "klp_one".to_owned(),
        enabled: Some(true),
        transition: Some(true),
        replace: Some(false),
        srcversion: Some("533BB7E5866E52F63B9ACCB".to_owned()),
        version: None,
        build_id: None,
        objects: vec![
            Object {
                name: "nf_tables".to_owned(),
                patched: Some(false),
                functions: vec![],
            },
            Object {
                name: "vmlinux".to_owned(),
                patched: Some(true),
                functions: vec![
                    function("c_start", 2),
                    function("c_start", 10),
                    function("do_exit", 1),
                ],
            },
        ],
    };
    // What an old kernel has: `enabled` alone.
    let two = Patch {
        name: "klp_two".to_owned(),
        enabled: Some(false),
        ..Patch::default()
    };
    assert_eq!(set.patches, [one, two]);
    assert_eq!(set.in_transition().unwrap().name, "klp_one");
}

#[test]
fn a_patch_has_the_version_and_the_build_id_of_its_module() {
    let sysfs = two_patches();
    let module = sysfs.path().join("module/klp_one");
    fs::create_dir_all(module.join("notes")).unwrap();
    let note = module.join("notes/.note.gnu.build-id");
    let read = || {
        let (set, problems) = read_patches(sysfs.path()).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let patch = set.get("klp_one").unwrap();
        (patch.version.clone(), patch.build_id.clone())
    };
    fs::write(module.join("version"), "1.2-rc1\n").unwrap();
    let words = |words: [u32; 3]| words.map(u32::to_ne_bytes).concat();
    let good = [&words([4, 4, 3])[..], b"GNU\0", b"\x01\xab\xff\x00"].concat();
    fs::write(&note, &good).unwrap();
    let version = Some("1.2-rc1".to_owned());
    assert_eq!(read(), (version.clone(), Some("01abff00".to_owned())));
    for odd in [
        &b""[..],
        &good[..18],
        &[&words([4, 0, 3])[..], b"GNU\0"].concat(),
        &[&words([4, 4, 1])[..], b"GNU\0abcd"].concat(),
        &[&words([4, u32::MAX, 3])[..], b"GNU\0abcd"].concat(),
    ] {
        fs::write(&note, odd).unwrap();
        assert_eq!(read(), (version.clone(), None), "{odd:?}");
    }
}

#[test]
fn absurd_values_are_none_and_are_reported() {
    for odd in ["2\n", "\n", "yes\n", "01\n", "1\n\n", "1\n0\n"] {
        let sysfs = two_patches();
        fs::write(sysfs.path().join(ONE).join("transition"), odd).unwrap();
        let (set, problems) = read_patches(sysfs.path()).unwrap();
        let patch = set.get("klp_one").unwrap();
        assert_eq!(
            (patch.transition, patch.enabled),
            (None, Some(true)),
            "{odd:?}"
        );
        assert_eq!(patch.objects.len(), 2, "the rest is still read");
        assert!(
            matches!(&problems[..], [SysfsError::Value { path, .. }] if path.ends_with("transition"))
        );
    }
    // An empty file, and one without an end.
    for odd in [Vec::new(), vec![b'1'; 1 << 20]] {
        let sysfs = two_patches();
        fs::write(sysfs.path().join(ONE).join("enabled"), &odd).unwrap();
        let (set, problems) = read_patches(sysfs.path()).unwrap();
        assert_eq!(set.get("klp_one").unwrap().enabled, None);
        assert!(
            matches!(&problems[..], [SysfsError::Value { value, .. }] if value.len() <= MAX_VALUE)
        );
    }
}

#[test]
fn an_unreadable_attribute_costs_only_itself() {
    let sysfs = two_patches();
    let path = sysfs.path().join(ONE).join("replace");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap(); // reading it is EISDIR, for root too
    let (set, problems) = read_patches(sysfs.path()).unwrap();
    assert_eq!(set.get("klp_one").unwrap().replace, None);
    assert_eq!(set.get("klp_one").unwrap().transition, Some(true));
    assert!(matches!(&problems[..], [SysfsError::Read { path, .. }] if path.ends_with("replace")));
}

#[test]
fn a_patch_on_its_way_out_is_left_out() {
    let sysfs = two_patches();
    fs::remove_file(sysfs.path().join(ONE).join("enabled")).unwrap();
    // Its other problems do not matter any more.
    fs::write(sysfs.path().join(ONE).join("transition"), "odd").unwrap();
    let (set, problems) = read_patches(sysfs.path()).unwrap();
    assert_eq!(set.patches.len(), 1);
    assert!(set.get("klp_one").is_none() && problems.is_empty());
}

#[test]
fn a_kernel_without_livepatch_is_distinguished_from_a_wrong_path() {
    let sysfs = two_patches();
    fs::remove_dir_all(sysfs.path().join("kernel/livepatch")).unwrap();
    let (set, problems) = read_patches(sysfs.path()).unwrap();
    assert!(!set.supported && set.patches.is_empty() && problems.is_empty());
    let wrong = sysfs.path().join("kernel");
    assert!(matches!(
        read_patches(&wrong),
        Err(SysfsError::NotSysfs { .. })
    ));
    // Something other than a directory.
    fs::write(sysfs.path().join("kernel/livepatch"), "").unwrap();
    assert!(matches!(
        read_patches(sysfs.path()),
        Err(SysfsError::Read { .. })
    ));
}

#[test]
fn odd_directories_are_reported() {
    let sysfs = two_patches();
    for name in [
        "plain",
        "no_digits,",
        ",1",
        "f,+1",
        "f,99999999999999999999",
    ] {
        fs::create_dir(sysfs.path().join(ONE).join("vmlinux").join(name)).unwrap();
    }
    fs::create_dir_all(sysfs.path().join("module/klp_two")).unwrap();
    fs::write(sysfs.path().join("module/klp_two/srcversion"), "a b\n").unwrap();
    let (set, problems) = read_patches(sysfs.path()).unwrap();
    assert_eq!(set.get("klp_one").unwrap().objects[1].functions.len(), 3);
    assert_eq!(set.get("klp_two").unwrap().srcversion, None);
    assert_eq!(problems.len(), 6, "{problems:?}");
}

#[test]
fn absurdly_many_entries_are_cut_and_reported() {
    let sysfs = two_patches();
    for object in 0..MAX_OBJECTS {
        fs::create_dir(sysfs.path().join(ONE).join(format!("o{object}"))).unwrap();
    }
    let (set, problems) = read_patches(sysfs.path()).unwrap();
    assert_eq!(set.get("klp_one").unwrap().objects.len(), MAX_OBJECTS);
    assert!(matches!(
        &problems[..],
        [SysfsError::TooMany {
            limit: MAX_OBJECTS,
            ..
        }]
    ));
}

proptest! {
    #[test]
    fn function_names_come_back(name in "[a-zA-Z_.,$][a-zA-Z0-9_.,$]{0,40}", sympos: u64) {
        let function = parse_function(&format!("{name},{sympos}"));
        prop_assert_eq!(function, Some(Function { name, sympos }));
    }

    #[test]
    fn arbitrary_directory_names_are_survived(name: String) {
        if let Some(function) = parse_function(&name) {
            prop_assert!(name.starts_with(&function.name));
        }
    }
}
