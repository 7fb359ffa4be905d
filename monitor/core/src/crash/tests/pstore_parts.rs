use super::*;

fn part(id: u64, reason: &str, number: u32, part: u32, text: &str) -> Part {
    Part {
        name: Name::parse(&format!("dmesg-erst-{id}")),
        header: Header {
            reason: reason.to_owned(),
            number,
            part,
        },
        written: None,
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

/// The record's number is assigned for a boot's first dump; a panic an hour after an oops has the
/// same time in its number.
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

fn efi(second: u64, reason: &str, number: u32, part: u32, text: &str) -> Part {
    let id = format!("{second}{part:02}{number:03}");
    Part {
        name: Name::parse(&format!("dmesg-efi_pstore-{id}")),
        file: id,
        ..self::part(0, reason, number, part, text)
    }
}

/// Firmware is slow: the names of one dump's parts contain two seconds, and those of the panic that
/// follows the oops two more.
#[test]
fn a_dump_of_two_seconds_is_one() {
    let mut parts = Vec::new();
    for (reason, number, from) in [("Oops", 1, 1_000_000), ("Panic", 2, 1_000_004)] {
        for part in 1..=6 {
            let second = from + u64::from(part > 2);
            let text = format!("[ {}.0] {reason}\n", 100 + 10 * number - part);
            parts.push(efi(second, reason, number, part, &text));
        }
    }
    parts.reverse();
    let dumps = pstore::join(parts.clone());
    let shown: Vec<_> = dumps
        .iter()
        .map(|dump| {
            let anchor = dump.anchor.unwrap();
            (
                dump.reason.as_str(),
                dump.parts,
                dump.missing,
                anchor.unix_seconds,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [("Oops", 6, 0, 1_000_000.0), ("Panic", 6, 0, 1_000_004.0)]
    );
    // The same with systemd-pstore's copies in addition.
    let copies: Vec<_> = parts
        .iter()
        .map(|part| Part {
            name: None,
            file: "dmesg.txt".into(),
            ..part.clone()
        })
        .collect();
    let both = parts
        .iter()
        .cloned()
        .chain(copies.iter().cloned())
        .collect();
    assert_eq!(pstore::join(both), dumps);
    // And with nothing but the copies, in two files.
    let joined = pstore::join(copies);
    assert_eq!(joined.len(), 2);
    for (copy, dump) in joined.iter().zip(&dumps) {
        assert_eq!((&copy.text, copy.missing), (&dump.text, 0));
    }
}

#[test]
fn two_crashes_within_a_minute_stay_two() {
    let boot = |second: u64, uptime: u32| {
        [3, 1, 2].map(|part| {
            efi(
                second,
                "Panic",
                1,
                part,
                &format!("[ {}.0] x{second}\n", uptime - part),
            )
        })
    };
    let mut parts: Vec<_> = boot(1_000_000, 90).into();
    parts.extend(boot(1_000_040, 30));
    let dumps = pstore::join(parts);
    let all: Vec<_> = dumps
        .iter()
        .map(|dump| (dump.parts, dump.missing))
        .collect();
    assert_eq!(all, [(3, 0), (3, 0)]);
    // The store had room for only one part of the first: a part that is later on the boot's clock
    // than the part before it is of another boot.
    let dumps = pstore::join(vec![
        efi(1_000_000, "Panic", 1, 1, "[ 90.0] a\n"),
        efi(1_000_040, "Panic", 1, 2, "[ 95.0] b\n"),
    ]);
    assert_eq!(dumps.len(), 2);
}

/// A slot of ramoops is used again after a boot: two files of one name, in pstore and
/// where systemd-pstore has put the first.
#[test]
fn a_slot_that_is_used_again_is_another_dump() {
    let slot = |id: u64, written: u64, text: &str| Part {
        name: Name::parse(&format!("dmesg-ramoops-{id}")),
        written: Some(written),
        ..part(id, "Panic", 1, 1, text)
    };
    let dumps = pstore::join(vec![
        slot(0, 2_000_000, "[ 8.0] second\n"),
        slot(0, 1_000_000, "[ 7.0] first\n"),
        slot(1, 1_500_000, "[ 7.0] between\n"),
        // The same record, moved.
        slot(0, 1_000_000, "[ 7.0] first\n"),
    ]);
    let shown: Vec<_> = dumps
        .iter()
        .map(|dump| (dump.anchor.unwrap().unix_seconds, dump.parts))
        .collect();
    assert_eq!(shown, [(1e6, 1), (1.5e6, 1), (2e6, 1)]);
}

/// A later dump of a boot has its own time in the file's date.
#[test]
fn the_records_own_time_dates_a_later_dump() {
    let id = (1_000_000_u64 << 32) + 2;
    let written = |seconds| Part {
        written: Some(seconds),
        ..part(id, "Panic", 2, 1, "[ 3700.0] late\n")
    };
    let seconds = |part| {
        let dumps = pstore::join(vec![part]);
        dumps.first().unwrap().anchor.map(|it| it.unix_seconds)
    };
    assert_eq!(seconds(written(1_003_600)), Some(1_003_600.0));
    // It cannot be earlier than the first dump of its boot.
    assert_eq!(seconds(written(900_000)), None);
}

#[test]
fn a_part_without_the_report_is_still_a_crash() {
    let one = |reason, part| {
        let part = self::part(1, reason, 1, part, "[ 901.2] livepatch: x\n");
        let dumps = pstore::join(vec![part]);
        let dump = dumps.first().unwrap();
        let record = dump.without_report();
        let shown = record.map(|it| (it.kind, it.headline, it.when.uptime_seconds));
        (dump.ended_boot(), shown)
    };
    let panic = "a panic of which pstore kept one part of 5".to_owned();
    assert_eq!(
        one("Panic", 5),
        (Some(true), Some((Kind::Panic, panic, Some(901.2))))
    );
    let oops = "an oops of which pstore kept no report".to_owned();
    assert_eq!(
        one("Oops", 1),
        (None, Some((Kind::Oops, oops, Some(901.2))))
    );
    assert_eq!(one("Shutdown", 1), (None, None));
}

/// The kernel gives pstore the end of its log, or all of it: if there is less, it did not fit.
#[test]
fn a_dump_that_was_cut_short_shows_a_full_store() {
    let full = |parts: Vec<Part>| {
        let dumps = pstore::join(parts);
        dumps.first().unwrap().did_not_fit(10240)
    };
    let text = "[ 9.0] x\n".repeat(500);
    let one = |number, text: &str| efi(1_000_000, "Panic", 1, number, text);
    let said = full(vec![one(1, &text)]).unwrap();
    assert!(
        said.contains("efi_pstore") && said.contains("4500"),
        "{said}"
    );
    let older = "[ 8.0] x\n".repeat(700);
    assert_eq!(full(vec![one(1, &text), one(2, &older)]), None);
    let start = "[ 0.0] Linux version 6.1.0 (x)\n";
    assert_eq!(full(vec![one(1, &text), one(2, start)]), None);
    // Ramoops has room for one part, and overwrites the oldest.
    let ramoops = Part {
        name: Name::parse("dmesg-ramoops-0"),
        ..one(1, &text)
    };
    assert_eq!(full(vec![ramoops]), None);
    for kernel in KERNELS {
        assert_eq!(full(parts(kernel, "oops")), None, "{kernel}");
    }
}
