use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// Every recorded crash, in lines.
static LOGS: LazyLock<Vec<(Kind, Vec<String>)>> = LazyLock::new(|| {
    let all = KERNELS.iter().flat_map(|kernel| {
        CASES.iter().map(|case| {
            let text = String::from_utf8(console(kernel, case.name)).unwrap();
            let lines = text
                .replace('\r', "")
                .lines()
                .map(|line| format!("{line}\n"))
                .collect();
            (case.kind, lines)
        })
    });
    all.collect()
});

fn bounded(text: &[u8]) {
    let parsed = parser::read(text, &Reading::new(SOAK));
    assert!(parsed.records.len() <= 256 && parsed.non_fatal.len() <= 256);
    for record in &parsed.records {
        assert!(record.trace.len() <= 128 && record.patches.len() <= 2048);
        assert!(
            record
                .modules
                .as_ref()
                .is_none_or(|modules| modules.len() <= 1024)
        );
        assert!(record.headline.len() <= 1024);
        let names = record.comm.iter().chain(&record.release);
        assert!(names.chain(&record.taint).all(|name| name.len() <= 512));
        let evident = record.implicated == Implicated::Yes;
        assert_eq!(evident, !record.evidence.is_empty());
    }
}

#[test]
fn a_flood_is_bounded() {
    let oops = "[ 1.0] BUG: unable to handle page fault\n[ 1.0] ---[ end trace 0 ]---\n";
    bounded(oops.repeat(1000).as_bytes());
    let trace = format!(
        "[ 1.0] kernel BUG at x.c:1!\nCall Trace:\n{}",
        " f+0x1/0x2\n".repeat(1000)
    );
    bounded(trace.as_bytes());
    let list = format!(
        "[ 1.0] kernel BUG at x.c:1!\nModules linked in:{}\n",
        " m(K)".repeat(5000)
    );
    bounded(list.as_bytes());
    let going_on = " mod_ule(OEK)".repeat(80) + "\n";
    let list = format!(
        "kernel BUG at x.c:1!\nModules linked in:{}",
        going_on.repeat(500)
    );
    bounded(list.as_bytes());
    let patches: String = (0..1000)
        .map(|n| format!("livepatch: enabling patch '{n}'\n"))
        .collect();
    bounded(format!("{patches}kernel BUG at x.c:1!\n").as_bytes());
    bounded(&vec![b'['; 1 << 20]);
}

proptest! {
    #[test]
    fn any_bytes(text in vec(any::<u8>(), 0..2000)) {
        bounded(&text);
        let _ = Header::parse(&text);
        let _ = Name::parse(&String::from_utf8_lossy(&text));
    }

    /// Lines of real crashes in any order, some of them damaged.
    #[test]
    fn any_mixture(picks in vec((any::<Index>(), any::<Index>(), any::<Option<(Index, u8)>>()), 0..60)) {
        let mut text = Vec::new();
        for (log, line, damage) in picks {
            let (_, lines) = log.get(&LOGS);
            let mut line = line.get(lines).clone().into_bytes();
            if let Some((at, byte)) = damage {
                *at.get_mut(&mut line) = byte;
            }
            text.extend(line);
        }
        bounded(&text);
    }

    /// However much of its beginning or end is lost, a crash has its kind or is not seen; it is
    /// never two crashes, and never another one.
    #[test]
    fn any_piece(log in any::<Index>(), from in any::<Index>(), to in any::<Index>()) {
        let (kind, lines) = log.get(&LOGS);
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        let piece = lines.get(from.min(to)..=from.max(to)).unwrap().concat();
        let records = parser::read(piece.as_bytes(), &Reading::new(SOAK)).records;
        prop_assert!(records.len() <= 1, "{:#?}", records);
        for record in records {
            prop_assert_eq!(record.kind, *kind);
        }
    }

    /// A dump in parts, in any order, is the same dump.
    #[test]
    fn any_parts(log in any::<Index>(), cuts in vec(any::<Index>(), 0..8), seed in any::<u64>(), named: bool) {
        let (_, lines) = log.get(&LOGS);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(lines.len())).collect();
        cuts.extend([0, lines.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let count = cuts.len() - 1;
        let mut parts: Vec<Part> = cuts
            .windows(2)
            .enumerate()
            .map(|(index, range)| {
                let part = u32::try_from(count - index).unwrap();
                let name = format!("dmesg-erst-{}", (7_u64 << 32) + u64::from(part));
                Part {
                    name: Name::parse(&name).filter(|_| named),
                    header: Header { reason: "Panic".to_owned(), number: 1, part },
                    written: None,
                    text: lines.get(range[0]..range[1]).unwrap().concat().into_bytes(),
                    file: name,
                }
            })
            .collect();
        let rotate = usize::try_from(seed % 97).unwrap() % parts.len();
        parts.rotate_left(rotate);
        if seed % 2 == 0 {
            parts.reverse();
        }
        let dumps = pstore::join(parts);
        prop_assert_eq!(dumps.len(), 1);
        let dump = dumps.first().unwrap();
        prop_assert_eq!(&dump.text, &lines.concat().into_bytes());
        prop_assert_eq!(dump.missing, 0);
    }

    /// The printed form of a frame can be parsed again.
    #[test]
    fn a_frame_comes_back(
        name in "[a-z_][a-z0-9_.]{0,40}",
        offset: u64,
        size: u64,
        module in proptest::option::of("[a-z0-9_]{1,30}"),
        reliable: bool,
    ) {
        let function = super::super::Function { name, offset: Some(offset), size: Some(size), module };
        let mark = if reliable { "" } else { "? " };
        let log = format!("kernel BUG at x.c:1!\nCall Trace:\n {mark}{function}\n");
        let record = only(parser::read(log.as_bytes(), &Reading::new(SOAK)).records);
        let frame = record.trace.first().unwrap();
        prop_assert_eq!(&frame.function, &function);
        prop_assert_eq!(frame.reliable, reliable);
    }

    /// A module list can be parsed again, also one that continues on the next line.
    #[test]
    fn a_module_list_comes_back(
        modules in vec(("[a-z0-9_]{1,50}", "[A-Z]{0,4}", 0..3_usize), 0..80),
    ) {
        let mut log = "kernel BUG at x.c:1!\nModules linked in:".to_owned();
        let mut length = "Modules linked in:".len();
        for (name, taints, state) in &modules {
            let state = ["", "+", "-"][*state];
            let word = if taints.is_empty() && state.is_empty() {
                format!(" {name}")
            } else {
                format!(" {name}({taints}{state})")
            };
            if length + word.len() > 992 {
                log.push('\n');
                length = 0;
            }
            length += word.len();
            log += &word;
        }
        log.push('\n');
        let record = only(parser::read(log.as_bytes(), &Reading::new(SOAK)).records);
        let expected: Vec<_> = modules
            .into_iter()
            .map(|(name, taints, state)| {
                let state = [Marker::Live, Marker::Loading, Marker::Unloading][state];
                super::super::Module { name, taints, state }
            })
            .collect();
        prop_assert_eq!(record.modules, Some(expected));
    }
}
