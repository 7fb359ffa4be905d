//! One log as many programs keep it: each must give the same result as the kernel's own text.

use proptest::prelude::*;

use super::*;
use crate::crash::When;

mod list;
mod tools;

use list::{Entry, FORMATS, LOG, Wrap};

fn comparable(mut record: CrashRecord) -> CrashRecord {
    record.when = When {
        uptime_seconds: None,
        unix_seconds: None,
        precision: Precision::Unknown,
    };
    record.host = None;
    // A date of whole seconds dates the transition's end to a second.
    if let Some(last) = &mut record.last_transition {
        last.seconds = None;
    }
    record
}

fn parse(text: &str) -> Vec<CrashRecord> {
    let parsed = parser::read(text.as_bytes(), &Reading::new(SOAK));
    assert_eq!(parsed.problems, [""; 0], "{text}");
    parsed.records.into_iter().map(comparable).collect()
}

fn wrapped(format: Wrap) -> String {
    LOG.iter().map(|entry| format(entry) + "\n").collect()
}

fn base() -> CrashRecord {
    only(parse(&wrapped(|entry| entry.stamp())))
}

#[test]
fn each_format_gives_the_same() {
    let base = base();
    assert_eq!(base.phase, Phase::Soak);
    assert_eq!(base.implicated, Implicated::Yes);
    for (name, format) in FORMATS {
        let text = wrapped(*format);
        let mut expected = base.clone();
        // Neither date nor time: how long ago the transition ended is not in the text.
        if ["journalctl -o cat", "<N>"].contains(name) {
            expected.phase = Phase::Unknown;
        }
        assert_eq!(parse(&text), [expected], "{name}:\n{text}");
    }
}

/// What `dmesg --json --file` prints of the text `raw`: util-linux 2.38 puts all lines that follow
/// into each message.
fn dmesg_json(raw: &str, repeats: bool) -> String {
    let lines: Vec<&str> = raw.lines().collect();
    let objects = lines.iter().enumerate().map(|(index, line)| {
        let (time, own) = line.trim_start_matches('[').split_once("] ").unwrap();
        let mut message = own.to_owned();
        if repeats {
            for line in &lines[index + 1..] {
                message.push_str(&format!("\n<4>{line}"));
            }
            message.push('\n');
        }
        let message = serde_json::to_string(&message).unwrap();
        format!(
            "{{\n         \"pri\": 4,\n         \"time\":{time},\n         \"msg\": {message}\n      }}"
        )
    });
    let objects: Vec<String> = objects.collect();
    format!(
        "{{\n   \"dmesg\": [\n      {}\n   ]\n}}\n",
        objects.join(",")
    )
}

#[test]
fn dmesg_json_of_both_versions() {
    let raw = wrapped(|entry| entry.stamp());
    for repeats in [false, true] {
        let text = dmesg_json(&raw, repeats);
        assert_eq!(parse(&text), [base()], "{text}");
        // Cut off after any object: what is there is read.
        let half = &text[..text.len() / 2];
        let _ = parser::read(half.as_bytes(), &Reading::new(SOAK));
    }
    // A file without levels is one message.
    let whole = serde_json::to_string(&raw).unwrap();
    let text =
        format!("{{\n   \"dmesg\": [\n      {{\n         \"msg\": {whole}\n      }}\n   ]\n}}\n");
    assert_eq!(parse(&text), [base()]);
}

#[test]
fn utf_16_is_read() {
    let text = wrapped(|entry| entry.stamp() + "\r");
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    let records = parser::read(&bytes, &Reading::new(SOAK)).records;
    assert_eq!(comparable(only(records)), base());
}

fn read(text: &str) -> parser::ParsedLog {
    parser::read(text.as_bytes(), &Reading::new(SOAK))
}

#[test]
fn a_local_date_says_so() {
    let when = |name: &str| {
        let (_, format) = FORMATS.iter().find(|(known, _)| *known == name).unwrap();
        only(read(&wrapped(*format)).records).when
    };
    let local = when("dmesg -T");
    assert_eq!(local.precision, Precision::LocalTime);
    assert_eq!(
        crate::crash::display::when(&local),
        "2026-11-23T12:15:50 (local time; its zone is not in the log)"
    );
    let no_year = when("journalctl -o short");
    assert_eq!(
        (no_year.unix_seconds, no_year.precision),
        (None, Precision::NoYear)
    );
    let exact = when("rsyslog");
    assert_eq!(exact.precision, Precision::Line);
    assert_eq!(exact.unix_seconds, Some(1_795_436_150.000_001));
}

#[test]
fn what_a_program_left_on_the_console() {
    let mut text =
        wrapped(|entry| entry.stamp()).replacen("[  950.000001]", "lpm-1 login: [  950.000001]", 1);
    text = text.replacen("[  950.100000]", "/init: 12: .: [  950.100000]", 1);
    assert_eq!(parse(&text), [base()]);
}

#[test]
fn another_program_is_not_the_kernel() {
    for line in [
        "Nov 23 12:16:00 lpm-1 user: Kernel panic - not syncing: not so",
        "Nov 23 12:16:00 lpm-1 user[12]: kernel: Kernel panic - not syncing: not so",
        "Nov 23 12:16:00 lpm-1 user[12]: x [  960.000001] Kernel panic - not syncing: not so",
    ] {
        let quiet = "Nov 23 12:15:00 lpm-1 kernel: [  900.100000] x\n";
        let parsed = read(&format!("{quiet}{line}\n"));
        assert_eq!(parsed, parser::ParsedLog::default(), "{line}");
    }
    let json = "{\"_TRANSPORT\":\"syslog\",\"SYSLOG_IDENTIFIER\":\"kernel\",\
                \"MESSAGE\":\"Kernel panic - not syncing: not so\"}\n";
    assert!(read(json).records.is_empty());
    let level = "<13>[ 1.0] Kernel panic - not syncing: not so\n";
    assert!(read(level).records.is_empty());
}

#[test]
fn a_line_without_the_time_that_all_others_have_is_not_believed() {
    let others: String = (0..50)
        .map(|n| format!("[  {n}.000000] usb 1-1: x\n"))
        .collect();
    let parsed = read(&format!("{others}Kernel panic - not syncing: not so\n"));
    assert!(parsed.records.is_empty());
    assert!(
        parsed.problems.concat().contains("ignored, because"),
        "{parsed:?}"
    );
}

#[test]
fn the_rest_of_a_message_starts_nothing() {
    let parsed = read("6,1,100,-;traps: a\\x0aKernel panic - not syncing: not so\n");
    assert!(parsed.records.is_empty(), "{parsed:?}");
}

#[test]
fn what_is_not_understood_is_said() {
    let odd = "web~1~Kernel panic - not syncing: sysrq triggered crash\n";
    let parsed = read(odd);
    assert!(parsed.records.is_empty());
    assert!(
        parsed.problems.concat().contains("web~1~Kernel panic"),
        "{parsed:?}"
    );
    let none = read("a letter\nof two lines\n");
    assert!(
        none.problems.concat().contains("cannot determine"),
        "{none:?}"
    );
}

#[test]
fn two_hosts_are_two_histories() {
    let lines: Vec<String> = LOG.iter().map(Entry::stamp).collect();
    let text: String = lines
        .iter()
        .flat_map(|line| {
            let other = line.replace("lpm_fix", "lpm_two");
            ["a", "b"].map(|host| {
                let line = if host == "a" { line } else { &other };
                format!("Nov 23 12:00:00 {host} kernel: {line}\n")
            })
        })
        .collect();
    let records = read(&text).records;
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.host.as_deref(),
                record.patches.first().unwrap().name.as_str(),
            )
        })
        .collect();
    assert_eq!(seen, [(Some("a"), "lpm_fix"), (Some("b"), "lpm_two")]);
}

#[test]
fn many_hosts_are_bounded_and_said() {
    let text: String = (0..400)
        .map(|n| format!("Nov 23 12:00:00 host{n} kernel: [  900.100000] x\n"))
        .collect();
    let problems = read(&text).problems.concat();
    assert!(problems.contains("too many hosts"), "{problems}");
}

#[test]
fn tasks_that_print_at_once_are_kept_apart() {
    let text = "[  891.000001][  T321] Oops: general protection fault: 0000 [#1] SMP NOPTI\n\
        [  891.000002][  T777] CPU: 6 UID: 0 PID: 777 Comm: other Not tainted 6.12.0 #1\n\
        [  891.000003][  T321] CPU: 1 UID: 0 PID: 321 Comm: own Not tainted 6.12.0 #1\n\
        [  891.000004][  T777] RIP: 0010:other_place+0x21c/0x380\n\
        [  891.000005][  T321] RIP: 0010:own_place+0x6/0x10\n\
        [  891.000011][  T321] ---[ end trace 0000000000000000 ]---\n";
    let record = only(read(text).records);
    assert_eq!(record.comm.as_deref(), Some("own"));
    assert_eq!(record.function.unwrap().name, "own_place");
}

#[test]
fn what_a_mail_wrapped_is_joined() {
    let text = "[  600.100000] livepatch: enabling patch 'lpm_fix'\n\
        [  600.200000] livepatch: 'lpm_fix': starting patching\ntransition\n\
        [  600.300001] WARNING: CPU: 5 PID: 321 at\nkernel/lpm/core.c:98 lpm_read+0x136/0x150\n\
        [  600.300002] Modules linked in: lpm_fix(OK) lpm_net lpm_other\nlpm_old(OK) lpm_sea\n\
        [  600.300004] RIP: 0010:lpm_read+0x136/0x150\n\
        [  600.300009] ---[ end trace 0000000000000000 ]---\n\
        [  600.300010] Kernel panic - not syncing: kernel: panic_on_warn set ...\n";
    let record = only(read(text).records);
    assert_eq!(record.transition.unwrap().patch, "lpm_fix");
    assert_eq!(record.modules.unwrap().len(), 5);
}

/// The first lines as one program wrote them, the rest as another.
fn two_formats(one: usize, two: usize, at: usize) -> Result<(), TestCaseError> {
    let ((_, first), (_, second)) = (FORMATS.get(one).unwrap(), FORMATS.get(two).unwrap());
    let (before, after) = LOG.split_at(at);
    let text: String = before
        .iter()
        .map(|entry| first(entry) + "\n")
        .chain(after.iter().map(|entry| second(entry) + "\n"))
        .collect();
    let parsed = parser::read(text.as_bytes(), &Reading::new(SOAK));
    // In a file whose lines have a time, a line without one may come from anywhere; among lines of
    // the kernel's facility, another facility is another program's; and a custom prefix is learned
    // only if most lines have it. Then the result says so.
    prop_assert!(parsed.records.len() <= 1, "{}", text);
    if !parsed.problems.is_empty() {
        let negative = |record: &CrashRecord| record.implicated == Implicated::No;
        prop_assert!(!parsed.records.iter().any(negative), "{}", text);
        return Ok(());
    }
    let record = only(parsed.records);
    let expected = base();
    prop_assert_eq!(&record.headline, &expected.headline, "{}", text);
    prop_assert_eq!(&record.function, &expected.function, "{}", text);
    prop_assert_eq!(&record.panic, &expected.panic, "{}", text);
    prop_assert_eq!(&record.modules, &expected.modules, "{}", text);
    prop_assert_eq!(&record.trace, &expected.trace, "{}", text);
    prop_assert_eq!(record.implicated, Implicated::Yes, "{}", text);
    Ok(())
}

#[test]
fn a_report_that_goes_on_in_another_format() {
    let number = |name: &str| {
        FORMATS
            .iter()
            .position(|(known, _)| *known == name)
            .unwrap()
    };
    for one in 0..FORMATS.len() {
        // Between the first line and that of die(); a panic that a wrapped line could end in.
        two_formats(one, number("logread"), 5).unwrap();
        two_formats(one, number("journalctl -o cat"), 13).unwrap();
    }
    // A record among lines of the kernel's.
    for two in 0..FORMATS.len() {
        two_formats(0, two, 13).unwrap();
    }
}

proptest! {
    #[test]
    fn two_formats_in_one_file(one in 0..FORMATS.len(), two in 0..FORMATS.len(), at in 0..=LOG.len()) {
        two_formats(one, two, at)?;
    }
}
