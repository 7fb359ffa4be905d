use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

use super::*;
use livepatch_core::patch::Patch;

const RELEASE: &str = "6.1.0-50-amd64";

/// A module's file with nothing but information in it.
fn module(information: &str) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let segment = object.segment_name(StandardSegment::Data).to_vec();
    let section = object.add_section(segment, b".modinfo".to_vec(), SectionKind::ReadOnlyData);
    object.append_section_data(section, information.as_bytes(), 1);
    object.write().unwrap()
}

fn loaded(patches: &[(&str, bool, &str)]) -> PatchSet {
    let patches = patches.iter().map(|(name, enabled, srcversion)| Patch {
        name: (*name).to_owned(),
        enabled: Some(*enabled),
        srcversion: Some((*srcversion).to_owned()),
        ..Patch::default()
    });
    PatchSet {
        supported: true,
        patches: patches.collect(),
    }
}

fn install(root: &Path, directory: &str, file: &str, content: &[u8]) {
    let directory = root.join(directory);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(file), content).unwrap();
}

#[test]
fn nothing_is_expected_of_a_bare_host() {
    let root = tempfile::tempdir().unwrap();
    let mut expectations = Expectations::new(root.path(), RELEASE, &[], &[]);
    let compared = expectations.compare(&loaded(&[("other", true, "A")]));
    assert_eq!(compared, (vec![], vec![]));
}

#[test]
fn patches_on_disk_are_held_against_those_loaded() {
    let root = tempfile::tempdir().unwrap();
    let kpatch = format!("var/lib/kpatch/{RELEASE}");
    let fix = module("license=GPL\0name=kpatch_fix\0srcversion=AAA\0");
    install(root.path(), &kpatch, "kpatch-fix.ko", &fix);
    install(root.path(), &kpatch, "README", b"not a module");
    let other = format!("{kpatch}-other");
    install(root.path(), &other, "of-another-kernel.ko", &fix);
    let further = root.path().join("further");
    install(&further, RELEASE, "packed-one.ko.xz", b"\xfd7zXZ");
    let names = ["by-name".to_owned()];
    let mut expectations =
        Expectations::new(root.path(), RELEASE, std::slice::from_ref(&further), &names);

    let states = |expectations: &mut Expectations, set: &PatchSet| {
        let (compared, problems) = expectations.compare(set);
        assert!(problems.is_empty(), "{problems:?}");
        let states = compared.into_iter().map(|one| (one.patch, one.state));
        states.collect::<Vec<_>>()
    };
    let all = |fix: State, packed: State, named: State| {
        vec![
            ("by_name".to_owned(), named),
            ("kpatch_fix".to_owned(), fix),
            ("packed_one".to_owned(), packed),
        ]
    };
    assert_eq!(
        states(&mut expectations, &loaded(&[])),
        all(State::Missing, State::Missing, State::Missing)
    );
    let good = loaded(&[
        ("by_name", true, "C"),
        ("kpatch_fix", true, "AAA"),
        ("packed_one", true, "B"),
    ]);
    assert_eq!(
        states(&mut expectations, &good),
        all(State::InForce, State::InForce, State::InForce)
    );
    let bad = loaded(&[("kpatch_fix", true, "BBB"), ("packed_one", false, "B")]);
    let other_build = State::OtherBuild {
        disk: "AAA".into(),
        loaded: "BBB".into(),
    };
    assert_eq!(
        states(&mut expectations, &bad),
        all(other_build, State::Disabled, State::Missing)
    );

    // What is installed later is seen.
    install(root.path(), &kpatch, "more.ko", &module("name=more\0"));
    let (compared, _) = expectations.compare(&good);
    assert!(compared.iter().any(|one| one.patch == "more"));
}

#[test]
fn a_file_that_is_no_module_is_named_and_expected_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    let kpatch = format!("usr/lib/kpatch/{RELEASE}");
    install(
        root.path(),
        &kpatch,
        "broken-one.ko",
        b"\x7fELF and nothing more",
    );
    let mut expectations = Expectations::new(root.path(), RELEASE, &[], &[]);
    let (compared, problems) = expectations.compare(&loaded(&[]));
    assert_eq!(compared[0].patch, "broken_one");
    assert!(problems[0].contains("broken-one.ko"), "{problems:?}");
}
