//! No damage to a log turns its result into a negative.

use std::sync::LazyLock;

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::crash::parser::ParsedLog;

struct Log {
    lines: Vec<String>,
    records: usize,
    implicated: Option<Implicated>,
    pid: Option<u32>,
}

/// Logs of one crash each: every kind, and the recorded crashes of one kernel.
static LOGS: LazyLock<Vec<Log>> = LazyLock::new(|| {
    let kinds = KINDS.iter().map(|(name, _)| kind_log(name));
    let recorded = CASES.iter().map(|case| console("6.12", case.name));
    let logs = kinds.chain(recorded).map(|text| {
        let parsed = parser::read(&text, &Reading::new(SOAK));
        let text = String::from_utf8(text).unwrap().replace('\r', "");
        Log {
            lines: text.lines().map(|line| format!("{line}\n")).collect(),
            records: parsed.records.len(),
            implicated: parsed.records.first().map(|record| record.implicated),
            pid: parsed.records.first().and_then(|record| record.pid),
        }
    });
    logs.filter(|log| log.records == 1).collect()
});

fn read(text: &[u8]) -> ParsedLog {
    parser::read(text, &Reading::new(SOAK))
}

/// A "no" where the whole log says otherwise.
fn no_is_new(log: &Log, parsed: &ParsedLog) -> bool {
    let no = parsed
        .records
        .iter()
        .any(|record| record.implicated == Implicated::No);
    no && log.implicated != Some(Implicated::No)
}

proptest! {
    /// A log that was cut at both ends, in the middle of lines too.
    #[test]
    fn a_piece(log in any::<Index>(), from in any::<Index>(), to in any::<Index>()) {
        let log = log.get(&LOGS);
        let text = log.lines.concat().into_bytes();
        let (from, to) = (from.index(text.len()), to.index(text.len()));
        let parsed = read(&text[from.min(to)..=from.max(to)]);
        prop_assert!(!no_is_new(log, &parsed), "{:#?}", parsed.records);
        prop_assert!(parsed.records.len() <= 1, "{:#?}", parsed.records);
    }

    /// A log that was cut after the first lines of its report contains a crash, or the result says
    /// that this is unknown.
    #[test]
    fn an_end_that_is_lost(log in any::<Index>(), to in any::<Index>()) {
        let log = log.get(&LOGS);
        let first = log.lines.iter().position(|line| has_crash(line));
        let first = first.unwrap_or(0);
        let to = first + to.index(log.lines.len() - first);
        let parsed = read(log.lines[..=to].concat().as_bytes());
        prop_assert!(!parsed.records.is_empty() || !parsed.problems.is_empty());
        prop_assert!(!no_is_new(log, &parsed), "{:#?}", parsed.records);
    }

    /// Bytes that a serial line lost or damaged.
    #[test]
    fn damaged(log in any::<Index>(), at in proptest::collection::vec((any::<Index>(), 0..3_usize), 1..6)) {
        let log = log.get(&LOGS);
        let mut text = log.lines.concat().into_bytes();
        for (at, byte) in at {
            let at = at.get_mut(&mut text);
            if *at != b'\n' {
                *at = [b'#', 0xff, b'~'][byte];
            }
        }
        let parsed = read(&text);
        prop_assert!(!no_is_new(log, &parsed), "{:#?}", parsed.records);
    }

    /// Lines that a mail program or a terminal wrapped at some width.
    #[test]
    fn wrapped(log in any::<Index>(), width in 60..100_usize) {
        let log = log.get(&LOGS);
        let mut text = String::new();
        for line in &log.lines {
            let mut length = 0;
            for word in line.trim_end().split_inclusive(' ') {
                if length > 0 && length + word.len() > width {
                    text.truncate(text.trim_end().len());
                    text.push('\n');
                    length = 0;
                }
                text.push_str(word);
                length += word.len();
            }
            text.push('\n');
        }
        let parsed = read(text.as_bytes());
        prop_assert!(!no_is_new(log, &parsed), "{:#?}\n{text}", parsed.records);
        prop_assert!(parsed.records.len() <= 1, "{:#?}\n{text}", parsed.records);
        prop_assert!(parsed.records.len() == 1 || !parsed.problems.is_empty(), "{text}");
    }

    /// Lines of two CPUs that print at the same time: a "no" is about the task of a log that
    /// contains only that task, unless both have it.
    #[test]
    fn interleaved(one in any::<Index>(), two in any::<Index>(), order in proptest::collection::vec(any::<bool>(), 200)) {
        let logs: Vec<&Log> = LOGS.iter().filter(|log| log.pid.is_some()).collect();
        let (one, two) = (*one.get(&logs), *two.get(&logs));
        if one.pid == two.pid {
            // One task prints one report at a time.
            return Ok(());
        }
        let (mut first, mut second) = (one.lines.iter(), two.lines.iter());
        let mut text = String::new();
        for own in order {
            let line = if own { first.next() } else { second.next() };
            text.push_str(line.map_or("", String::as_str));
        }
        let parsed = read(text.as_bytes());
        let no = |log: &Log| log.implicated == Some(Implicated::No);
        let both = no(one) && no(two);
        for record in parsed.records.iter().filter(|record| record.implicated == Implicated::No) {
            let own = |log: &Log| no(log) && log.pid == record.pid;
            prop_assert!(both || own(one) || own(two), "{text}\n{record:#?}");
        }
        prop_assert!(!parsed.records.is_empty() || !parsed.problems.is_empty() || !has_crash(&text), "{text}");
    }
}

/// Of any report, behind its first line.
const RESTS: [&str; 10] = [
    "Modules linked in:",
    "---[ end trace ",
    "hung_task_timeout_secs",
    "RIP: ",
    "PC is at",
    "NIP ",
    "pc : ",
    "epc : ",
    "PSW : ",
    " PID: ",
];

/// The first line of a crash is in the text.
fn has_crash(text: &str) -> bool {
    text.lines().any(|line| {
        if RESTS.iter().any(|rest| line.contains(rest)) {
            return false;
        }
        let parsed = read(line.as_bytes());
        !parsed.records.is_empty() || !parsed.problems.is_empty()
    })
}

/// Two damaged characters hid the end of one task's trace and the start of the next report,
/// whose function is the patch's.
#[test]
fn two_reports_that_damage_joined() {
    let text = String::from_utf8(kind_log("hung-then-panic")).unwrap();
    let text = text.replacen("</TASK>", "<#TASK>", 1).replacen(
        "INFO: task acme_b",
        "I#FO: task acme_b",
        1,
    );
    let parsed = read(text.as_bytes());
    assert_eq!(parsed.records[0].implicated, Implicated::Unknown, "{text}");
}
