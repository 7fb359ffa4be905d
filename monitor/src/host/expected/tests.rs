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

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, bytes).unwrap();
    packed.finish().unwrap()
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
    let compared = expectations.compare(&loaded(&[("other", true, "A")]), &Beside::default());
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
    let packed = module("license=GPL\0");
    install(&further, RELEASE, "packed-one.ko.gz", &gzip(&packed));
    let names = ["by-name".to_owned()];
    let mut expectations =
        Expectations::new(root.path(), RELEASE, std::slice::from_ref(&further), &names);

    let states = |expectations: &mut Expectations, set: &PatchSet| {
        let (compared, problems) = expectations.compare(set, &Beside::default());
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
    let (compared, _) = expectations.compare(&good, &Beside::default());
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
    let (compared, problems) = expectations.compare(&loaded(&[]), &Beside::default());
    assert_eq!(compared[0].patch, "broken_one");
    assert!(problems[0].contains("broken-one.ko"), "{problems:?}");
}

/// The state of each installed patch. `replaces` is what the kernel reports about the patches
/// that are loaded; the files are of any bytes, as if from a vendor that this reader does
/// not know.
fn states(
    installed: &[&str],
    names: &[&str],
    in_force: &[(&str, Option<bool>)],
    left_over: &[&str],
) -> Vec<(String, State)> {
    let root = tempfile::tempdir().unwrap();
    let directory = format!("lib/modules/{RELEASE}/livepatch");
    for file in installed {
        install(root.path(), &directory, file, b"any bytes");
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut set = loaded(&[]);
    set.patches = in_force
        .iter()
        .map(|(name, replace)| Patch {
            name: (*name).to_owned(),
            enabled: Some(true),
            replace: *replace,
            ..Patch::default()
        })
        .collect();
    let beside = Beside {
        left_over: left_over.iter().map(|name| (*name).to_owned()).collect(),
        mechanisms: Vec::new(),
    };
    let mut expectations = Expectations::new(root.path(), RELEASE, &[], &names);
    let (compared, _) = expectations.compare(&set, &beside);
    compared
        .into_iter()
        .map(|one| (one.patch, one.state))
        .collect()
}

fn superseded(by: &str, in_force: bool) -> State {
    let by = by.to_owned();
    State::Superseded { by, in_force }
}

#[test]
fn a_newer_cumulative_version_supersedes_the_older_ones() {
    const BOTH: [&str; 2] = ["kpatch-fix-v1.ko.xz", "kpatch-fix-v2.ko.xz"];
    let of = |name: &str, state: State| (name.to_owned(), state);
    let (v1, v2) = ("kpatch_fix_v1", "kpatch_fix_v2");
    // The new one is in force; kernels before 6.11 do not report whether it replaces.
    for replace in [Some(true), None] {
        for left_over in [&[][..], &[v1]] {
            assert_eq!(
                states(&BOTH, &[], &[(v2, replace)], left_over),
                [of(v1, superseded(v2, true)), of(v2, State::InForce)]
            );
        }
    }
    // It is loaded next to the old one, which is therefore missing.
    assert_eq!(
        states(&BOTH, &[], &[(v2, Some(false))], &[]),
        [of(v1, State::Missing), of(v2, State::InForce)]
    );
    // Only the newest installed is expected; the old one in force is not the newest.
    assert_eq!(
        states(&BOTH, &[], &[(v1, Some(true))], &[]),
        [of(v1, State::InForce), of(v2, State::Missing)]
    );
    assert_eq!(
        states(&BOTH, &[], &[], &[]),
        [of(v1, superseded(v2, false)), of(v2, State::Missing)]
    );
    // By number, not by letter; SUSE's names.
    let suse = ["livepatch-9_1.ko", "livepatch-10_1.ko", "livepatch-10_2.ko"];
    assert_eq!(
        states(&suse, &[], &[("livepatch_10_2", Some(true))], &[]),
        [
            of("livepatch_10_1", superseded("livepatch_10_2", true)),
            of("livepatch_10_2", State::InForce),
            of("livepatch_9_1", superseded("livepatch_10_2", true)),
        ]
    );
    // Who expects a version by name does so until a newer one is in force.
    assert_eq!(
        states(&BOTH, &[v1], &[], &[]),
        [of(v1, State::Missing), of(v2, State::Missing)]
    );
    assert_eq!(
        states(&[], &[v1], &[(v2, Some(true))], &[]),
        [of(v1, superseded(v2, true))]
    );
}

#[test]
fn a_patch_that_is_no_newer_version_supersedes_nothing() {
    let of = |name: &str, state: State| (name.to_owned(), state);
    let hotfix = [("hotfix", Some(true))];
    let by = Some("hotfix".to_owned());
    assert_eq!(
        states(&["kpatch-fix-v1.ko"], &[], &hotfix, &["kpatch_fix_v1"]),
        [of("kpatch_fix_v1", State::NotInForce { by })]
    );
    assert_eq!(
        states(&["kpatch-fix-v1.ko"], &[], &hotfix, &[]),
        [of("kpatch_fix_v1", State::Missing)]
    );
    // Two CVEs are not versions of one another.
    let cves = ["livepatch-CVE_2020_1.ko", "livepatch-CVE_2020_2.ko"];
    assert_eq!(
        states(
            &cves,
            &[],
            &[("livepatch_CVE_2020_2", None)],
            &["livepatch_CVE_2020_1"]
        ),
        [
            of("livepatch_CVE_2020_1", State::NotInForce { by: None }),
            of("livepatch_CVE_2020_2", State::InForce),
        ]
    );
}

#[test]
fn cves_are_those_that_the_file_names() {
    let root = tempfile::tempdir().unwrap();
    let information = "description=Fixes CVE-2026-1234, (CVE-2025-98765) and CVE-2026-1234; not CVE-26-1 \
                       xCVE-2026-1111 CVE-2026-12\0name=fix\0intree=Y\0odd=ÿ\0";
    install(
        root.path(),
        &format!("var/lib/kpatch/{RELEASE}"),
        "fix.ko",
        &module(information),
    );
    let mut expectations = Expectations::new(root.path(), RELEASE, &[], &[]);
    let (compared, _) = expectations.compare(&loaded(&[]), &Beside::default());
    assert_eq!(compared[0].cves, ["CVE-2025-98765", "CVE-2026-1234"]);
}
