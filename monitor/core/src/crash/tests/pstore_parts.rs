use super::*;

fn part(id: u64, reason: &str, number: u32, part: u32, text: &str) -> Part {
    Part {
        name: Name::parse(&format!("dmesg-erst-{id}")),
        header: Header {
            reason: reason.to_owned(),
            number,
            part,
        },
        text: text.as_bytes().to_owned(),
        file: id.to_string(),
    }
}

#[test]
fn names() {
    let erst = Name::parse("dmesg-erst-7711347904312508417").unwrap();
    assert_eq!(erst.unix_seconds(), Some(1_795_438_096));
    let efi = Name::parse("dmesg-efi_pstore-179543809602001").unwrap();
    assert_eq!(efi.unix_seconds(), Some(1_795_438_096));
    let ramoops = Name::parse("dmesg-ramoops-0").unwrap();
    assert_eq!(ramoops.unix_seconds(), None);
    assert!(Name::parse("dmesg-erst-1.enc.z").unwrap().compressed);
    for other in [
        "console-ramoops-0",
        "dmesg-erst",
        "dmesg-erst-x",
        "dmesg.txt",
    ] {
        assert_eq!(Name::parse(other), None, "{other}");
    }
}

#[test]
fn headers() {
    let (header, text) = Header::parse(b"Panic#2 Part13\n<4>x").unwrap();
    assert_eq!(
        (header.reason.as_str(), header.number, header.part),
        ("Panic", 2, 13)
    );
    assert_eq!(text, b"<4>x");
    for other in [
        "Panic#2 Part1",
        "Panic#x Part1\n",
        "#1 Part1\n",
        "Panic 1\n",
        "",
    ] {
        assert_eq!(Header::parse(other.as_bytes()), None, "{other}");
    }
}

/// The record's number is made for a boot's first dump; a panic an hour after an
/// oops has the same time in its number.
#[test]
fn a_later_dump_is_dated_by_the_first() {
    let boot = 1_000_000_u64 << 32;
    let dumps = pstore::join(vec![
        part(boot + 2, "Panic", 2, 1, "[ 3700.0] late\n"),
        part(boot + 1, "Oops", 1, 1, "[ 100.0] early\n"),
    ]);
    let shown: Vec<_> = dumps
        .iter()
        .map(|dump| {
            let anchor = dump.anchor.unwrap();
            (dump.number, anchor.unix_seconds, anchor.uptime_seconds)
        })
        .collect();
    assert_eq!(shown, [(1, 1e6, 100.0), (2, 1e6, 100.0)]);
    let alone = pstore::join(vec![part(boot + 2, "Panic", 2, 1, "[ 3700.0] late\n")]);
    assert_eq!(alone.first().unwrap().anchor, None);
}

#[test]
fn two_boots_and_a_missing_part() {
    let dumps = pstore::join(vec![
        part((20 << 32) + 1, "Panic", 1, 1, "c"),
        part((10 << 32) + 3, "Panic", 1, 3, "a"),
        part((10 << 32) + 1, "Panic", 1, 1, "b"),
    ]);
    let shown: Vec<_> = dumps
        .iter()
        .map(|dump| (dump.text.as_slice(), dump.missing))
        .collect();
    assert_eq!(shown, [(&b"a\nb\n"[..], 1), (b"c\n", 0)]);
}

#[test]
fn ramoops_counts_from_nought() {
    let one = |id| Part {
        name: Name::parse(&format!("dmesg-ramoops-{id}")),
        ..part(id, "Panic", 1, 1, "x\n")
    };
    assert_eq!(pstore::join(vec![one(0), one(1)]).len(), 2);
}

/// As systemd-pstore puts them together, and as `cat *` does.
#[test]
fn parts_in_one_file() {
    for kernel in KERNELS {
        let mut parts = parts(kernel, "transition");
        parts.sort_by_key(|part| part.header.part);
        let expected = pstore::join(parts.clone());
        for _ in 0..2 {
            let mut file = Vec::new();
            for part in &parts {
                let header = &part.header;
                let line = format!("{}#{} Part{}\n", header.reason, header.number, header.part);
                file.extend(line.into_bytes());
                file.extend(&part.text);
                if !file.ends_with(b"\n") {
                    file.push(b'\n');
                }
            }
            let joined = pstore::join(pstore::split(&file, None, "dmesg.txt"));
            assert_eq!(joined.len(), 1);
            let texts = |dumps: &[pstore::Dump]| dumps.first().unwrap().text.clone();
            assert_eq!(texts(&joined), texts(&expected));
            parts.reverse();
        }
    }
    assert!(pstore::split(b"[ 1.0] x\nPanic#1 Part1\n", None, "x").is_empty());
}
