use super::*;

fn all(path: &Path) -> (Vec<String>, Vec<String>) {
    let mut found = Vec::new();
    let errors = read(path, &mut |one| {
        found.push(match one {
            Found::Log { path, text } => {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                format!("log {name} {}", text.len())
            }
            Found::Part(part) => format!("part {:?} {:?}", part.header.part, part.text.len()),
        });
    });
    (found, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn what_cannot_be_used_is_named_and_the_rest_is_read() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(root.path().join(name), content).unwrap();
    write("a.log", b"[ 1.0] x\n");
    write("dmesg-erst-4294967297", b"Panic#1 Part2\n<4>[ 1.0] x\n");
    write("dmesg-erst-4294967298.enc.z", b"Panic#1 Part1\nx");
    write("empty", b"");
    write("vmcore", b"KDUMP   \0\0\0");
    write("x.gz", b"\x1f\x8b\x08");
    write("z", &[1; 100]);
    fs::create_dir(root.path().join("below")).unwrap();
    write("below/dmesg.txt", b"y");
    std::os::unix::fs::symlink("/etc/passwd", root.path().join("link")).unwrap();

    let (found, errors) = all(root.path());
    assert_eq!(
        found,
        ["log a.log 9", "log dmesg.txt 1", "part 2 12", "log empty 0"]
    );
    let named = [".enc.z", "vmcore", "x.gz", "/z "];
    assert_eq!(errors.len(), named.len(), "{errors:?}");
    for (error, name) in errors.iter().zip(named) {
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_huge_file_is_read_at_its_end() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("huge");
    // Spaces, or the sample says that it is binary.
    let mut text = vec![b' '; usize::try_from(MAX_FILE).unwrap()];
    text.extend(b"\nend\n");
    fs::write(&path, &text).unwrap();
    let mut ended = false;
    let errors = read(&path, &mut |found| {
        let Found::Log { text, .. } = found else {
            panic!("a part");
        };
        assert_eq!(u64::try_from(text.len()).unwrap(), MAX_FILE);
        ended = text.ends_with(b"\nend\n");
    });
    assert!(ended);
    assert!(
        matches!(errors.as_slice(), [DumpError::Long { .. }]),
        "{errors:?}"
    );
}

#[test]
fn nothing_there() {
    let (found, errors) = all(Path::new("/nowhere/at/all"));
    assert!(found.is_empty());
    assert!(
        errors
            .first()
            .unwrap()
            .contains("cannot read /nowhere/at/all")
    );
}
