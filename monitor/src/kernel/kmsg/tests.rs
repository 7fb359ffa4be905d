use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::fs;

/// A device that returns these reads and then EAGAIN, like /dev/kmsg with O_NONBLOCK.
fn device(
    reads: impl IntoIterator<Item = Result<String, Errno>>,
) -> impl FnMut(&mut [u8]) -> io::Result<usize> {
    let mut reads: VecDeque<_> = reads.into_iter().collect();
    move |buffer| {
        let record = reads.pop_front().unwrap_or(Err(Errno::AGAIN))?;
        buffer[..record.len()].copy_from_slice(record.as_bytes());
        Ok(record.len())
    }
}

/// Records written by the kernel, one second apart.
fn log(texts: &[&str]) -> Vec<Result<String, Errno>> {
    let lines = texts.iter().enumerate();
    lines
        .map(|(second, text)| Ok(format!("5,{},{second}000000,-;{text}\n", 100 + second)))
        .collect()
}

fn start_in(
    read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    patch: &str,
    direction: Direction,
) -> io::Result<Option<Duration>> {
    let mut course = Course::new(patch, direction);
    for_each_record_before(read, || None, |record| course.take(record))?;
    Ok(course.start)
}

fn start(texts: &[&str], direction: Direction) -> Option<u64> {
    start_in(device(log(texts)), "klp_one", direction)
        .unwrap()
        .map(|start| start.as_secs())
}

#[test]
fn a_record_is_taken_apart() {
    let record = Record::parse(
        b"6,339,5140900,-,caller=T1;NET: caf\\xc3\\xa9 \\x5cx41 \\x\n SUBSYSTEM=acpi\n DEVICE=+acpi:x;y\n",
    );
    let expected = Record {
        level: 6,
        facility: 0,
        sequence: 339,
        time: Duration::from_micros(5_140_900),
        text: "NET: café \\x41 \\x".to_owned(),
    };
    assert_eq!(record, Some(expected));
    for odd in [
        "",
        ";",
        "6,1,2;text",
        "6,1,x,-;text",
        "+6,1,2,-;text",
        "6,-1,2,-;text",
        "6,1,2,-",
    ] {
        assert_eq!(Record::parse(odd.as_bytes()), None, "{odd:?}");
    }
}

#[test]
fn only_the_kernel_speaks_for_livepatch() {
    let record = |priority: u32| {
        Record::parse(format!("{priority},1,2,-;livepatch: signaling remaining tasks").as_bytes())
    };
    assert_eq!(
        record(5).unwrap().livepatch(),
        Some(LivepatchMessage::Signaling)
    );
    // Records that user space writes into /dev/kmsg have another facility.
    assert_eq!(record(1 << 3 | 5).unwrap().livepatch(), None);
}

const STARTING: &str = "livepatch: 'klp_one': starting patching transition";
const TURNED: &str = "livepatch: 'klp_one': starting unpatching transition";
const COMPLETE: &str = "livepatch: 'klp_one': patching complete";

#[test]
fn the_last_start_without_an_end_counts() {
    use Direction::{Patch, Unpatch};
    assert_eq!(start(&[], Patch), None);
    assert_eq!(
        start(
            &["x", STARTING, "livepatch: signaling remaining tasks"],
            Patch
        ),
        Some(1)
    );
    assert_eq!(start(&[STARTING], Unpatch), None);
    assert_eq!(start(&[STARTING, COMPLETE], Patch), None);
    assert_eq!(start(&[STARTING, COMPLETE, "x", STARTING], Patch), Some(3));
    // Reversed, and reversed again.
    assert_eq!(start(&[STARTING, TURNED], Patch), None);
    assert_eq!(start(&[STARTING, TURNED], Unpatch), Some(1));
    assert_eq!(start(&[STARTING, TURNED, STARTING], Patch), Some(2));
    // Another patch's messages change nothing.
    let other = "livepatch: 'klp_two': patching complete";
    assert_eq!(
        start(
            &[STARTING, other, "livepatch: enabling patch 'klp_two'"],
            Patch
        ),
        Some(0)
    );
    // A start that failed leaves no end behind.
    assert_eq!(
        start(
            &[STARTING, "livepatch: failed to enable patch 'klp_one'"],
            Patch
        ),
        None
    );
}

#[test]
fn a_ring_that_overtakes_the_reader_is_read_on() {
    let mut reads = vec![Err(Errno::PIPE), Err(Errno::INTR)];
    reads.extend(log(&["x", STARTING]));
    reads.push(Err(Errno::PIPE));
    let found = start_in(device(reads), "klp_one", Direction::Patch).unwrap();
    assert_eq!(found, Some(Duration::from_secs(1)));
    let broken = start_in(device([Err(Errno::IO)]), "klp_one", Direction::Patch);
    assert_eq!(
        broken.unwrap_err().raw_os_error(),
        Some(Errno::IO.raw_os_error())
    );
}

#[test]
fn a_log_without_end_ends() {
    let mut reads = 0_usize;
    for_each_record(
        |buffer| {
            reads += 1;
            buffer[..9].copy_from_slice(b"5,1,1,-;x");
            Ok(9)
        },
        |_| ControlFlow::Continue(()),
    )
    .unwrap();
    assert_eq!(reads, MAX_READS);
}

/// A storm of messages writes a record for each that is read.
#[test]
fn what_is_written_during_a_pass_is_left_out() {
    const AT_THE_START: u64 = 1_000;
    let mut next = 0_u64;
    let endless = |buffer: &mut [u8]| {
        let record = format!("5,{next},1,-;x\n");
        next += 1;
        buffer[..record.len()].copy_from_slice(record.as_bytes());
        Ok(record.len())
    };
    let mut seen = Vec::new();
    let first_new = || Some(AT_THE_START);
    for_each_record_before(endless, first_new, |record| seen.push(record.sequence)).unwrap();
    assert_eq!(seen, (0..AT_THE_START).collect::<Vec<_>>());
}

/// At the start of the pass there was nothing behind its end yet.
#[test]
fn what_is_written_later_in_a_pass_is_left_out() {
    for first_new in [1_u64, 100, 255, 256, 257, 1_000] {
        let mut looks = 0;
        let mut next = 0_u64;
        let reached = std::cell::Cell::new(0_u64);
        let endless = |buffer: &mut [u8]| {
            let record = format!("5,{next},1,-;x\n");
            reached.set(next);
            next += 1;
            buffer[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        };
        let mut seen = Vec::new();
        // Written once the reader is there.
        let look = || {
            looks += 1;
            (reached.get() >= first_new).then_some(first_new)
        };
        for_each_record_before(endless, look, |record| seen.push(record.sequence)).unwrap();
        let visited = seen.len() as u64;
        assert_eq!(seen, (0..visited).collect::<Vec<_>>());
        let most = first_new + LOOK_EVERY as u64;
        assert!(
            (first_new..most).contains(&visited),
            "{first_new}: {visited}"
        );
        assert_eq!(
            looks,
            1 + visited.div_ceil(LOOK_EVERY as u64),
            "{first_new}"
        );
    }
}

#[test]
fn what_was_there_before_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    fs::write(&path, "5,1,1,-;before\n").unwrap();
    let mut log = KmsgReader::open(&path).unwrap();
    log.skip().unwrap();
    let line = "5,2,1,-;after\n";
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
    let mut seen = Vec::new();
    log.read_new(|record| seen.push(record.text.clone()))
        .unwrap();
    assert_eq!(seen, ["after"]);
    // A directory can be opened but not read.
    let error = KmsgReader::open(folder.path()).unwrap().skip().unwrap_err();
    assert!(matches!(error, KmsgError::Read { .. }));
}

#[test]
fn the_first_record_behind_a_place_is_found_where_others_were_overwritten() {
    assert_eq!(first_sequence(device([])), None);
    let mut reads = vec![Err(Errno::PIPE)];
    reads.extend(log(&["x", "y"]));
    assert_eq!(first_sequence(device(reads)), Some(100));
}

#[test]
fn the_device_is_named_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    let error = KmsgReader::open(&path).unwrap_err();
    assert!(matches!(&error, KmsgError::Open { .. }));
    assert!(error.to_string().contains("CAP_SYSLOG"), "{error}");
    // A directory can be opened but not read.
    let mut directory = KmsgReader::open(folder.path()).unwrap();
    let error = transition_start(&mut directory, "klp_one", Direction::Patch).unwrap_err();
    assert!(matches!(error, KmsgError::Read { .. }));
    std::fs::write(&path, format!("5,1,7000000,-;{STARTING}\n")).unwrap();
    let mut log = KmsgReader::open(&path).unwrap();
    // Twice: the reader goes back to the start.
    for _ in 0..2 {
        let found = transition_start(&mut log, "klp_one", Direction::Patch).unwrap();
        assert_eq!(found, Some(Duration::from_secs(7)));
    }
}

/// As devkmsg_read does (msg_add_ext_text, kernel/printk/printk.c).
fn escape(text: &[u8]) -> String {
    let escaped = text.iter().map(|byte| match byte {
        b' '..=b'[' | b']'..=b'~' => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    });
    escaped.collect()
}

proptest! {
    #[test]
    fn any_name_comes_back(patch in "\\PC{1,20}|[ -~]{1,20}", micros in 0..u64::MAX, patching: bool) {
        let (word, direction) = match patching {
            true => ("patching", Direction::Patch),
            false => ("unpatching", Direction::Unpatch),
        };
        let text = format!("livepatch: '{patch}': starting {word} transition");
        let record = format!("5,1,{micros},c;{}\n SUBSYSTEM=x\n", escape(text.as_bytes()));
        let record = Record::parse(record.as_bytes()).unwrap();
        prop_assert_eq!(record.time, Duration::from_micros(micros));
        prop_assert_eq!(record.livepatch(), Some(LivepatchMessage::Starting { patch, direction }));
    }

    #[test]
    fn any_text_comes_back(text in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(unescape(escape(&text).as_bytes()), text);
    }

    #[test]
    fn arbitrary_bytes_are_survived(record in proptest::collection::vec(any::<u8>(), 0..120), text: String) {
        let _ = Record::parse(&record);
        let mut valid = b"5,1,1,-;livepatch: ".to_vec();
        valid.extend(&record);
        prop_assert!(Record::parse(&valid).is_some());
    }
}

#[test]
fn errors_reach_the_console_below_its_level() {
    let procfs = tempfile::tempdir().unwrap();
    assert!(!console_shows_errors(procfs.path()));
    let folder = procfs.path().join("sys/kernel");
    fs::create_dir_all(&folder).unwrap();
    for (text, shown) in [
        ("7\t4\t1\t7\n", true),
        ("4\t4\t1\t7\n", true),
        ("3\t4\t1\t3\n", false),
        ("", false),
        ("many", false),
    ] {
        fs::write(folder.join("printk"), text).unwrap();
        assert_eq!(console_shows_errors(procfs.path()), shown, "{text}");
    }
}

/// What the parser of crashes reads of a record is the record: a newline in a name does not
/// begin another.
#[test]
fn a_record_is_one_line() {
    let name = concat!(
        r"3,7,200000001,-;overlayfs: failed to resolve ",
        r"'x\x0akernel BUG at mm/slub.c:1!\x5c\xc3\xa9\x0a': -2"
    );
    let record = Record::parse(name.as_bytes()).unwrap();
    assert_eq!(record.to_line(), format!("{name}\n"));
}
