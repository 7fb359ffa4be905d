//! Parses the kernel's log from any source: a serial console, `dmesg`, syslog, kdump's
//! vmcore-dmesg, pstore. The many lines of one event become one record.

mod date;
mod die;
mod event;
mod format;
mod header;
mod headless;
mod headline;
mod histories;
mod line;
mod message;
mod names;
mod place;
mod prefix;
mod reader;
mod report;
mod symbol;
mod turns;
mod when;

use std::collections::VecDeque;

use headline::{Sign, recognise};
use histories::{Histories, History};
use prefix::Lines;
use reader::Reader;

pub use super::reading::{Anchor, Reading, Replaced};
use super::{
    record::{CrashRecord, NonFatalSignal, Precision, When, merge},
    signal::Signal,
};

/// Most records, and most non-fatal signals, kept of one text.
const MAX_EVENTS: usize = 256;
/// Most bytes of a task's name (`TASK_COMM_LEN` without the NUL).
const MAX_COMM: usize = 15;

/// What a kernel log contains.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedLog {
    /// Crashes, oldest first; if there are more than 256, the latest.
    pub records: Vec<CrashRecord>,
    /// Signals that were not a crash and did not lead to one; at most the latest 256.
    pub non_fatal: Vec<NonFatalSignal>,
    /// What could not be parsed, and why nothing can be concluded from it.
    pub problems: Vec<String>,
}

/// The signal that a line of the kernel starts or names, if any.
#[must_use]
pub fn signal(line: &str) -> Option<Signal> {
    match recognise(line)? {
        Sign::Start(signal, _) => Some(signal),
        Sign::Report(..) => Some(Signal::Warning),
        // A shorter text may be a task's name, which is all of a line with a newline in it.
        Sign::Die => (line.trim().len() > MAX_COMM).then_some(Signal::Oops),
        Sign::Panic(_) => Some(Signal::Panic),
        Sign::Boot { .. } | Sign::EndTrace | Sign::EndPanic(_) => None,
    }
}

/// Parses a text. The memory used is bounded by the longest line and the number of events kept, not
/// by the text.
#[must_use]
pub fn read(text: &[u8], reading: &Reading) -> ParsedLog {
    let mut lines = Lines::new(text);
    let mut histories = Histories::new();
    let mut log = Log::default();
    for line in &mut lines {
        if let Some(closed) = histories.line(line, || Reader::new(reading)) {
            log.add(closed);
        }
    }
    let closed = histories.closed;
    let mut rest = histories.rest();
    if let Some(anchor) = reading.anchor
        && let Some(History { reader, .. }) = rest.last_mut()
    {
        reader.end_boot();
        let of_boot = reader.records.iter_mut().rev().take(reader.boot.records);
        for record in of_boot {
            date(&mut record.when, anchor);
        }
        let of_boot = reader
            .non_fatal
            .iter_mut()
            .rev()
            .take(reader.boot.non_fatal);
        for signal in of_boot {
            date(&mut signal.when, anchor);
        }
    }
    rest.into_iter().for_each(|history| log.add(history));
    log.end(&lines.summary, closed)
}

/// Results from the lines of all hosts in a text.
#[derive(Default)]
struct Log {
    records: VecDeque<CrashRecord>,
    non_fatal: VecDeque<NonFatalSignal>,
    recognised: u64,
    doubted: Option<String>,
    lone: Option<String>,
    headless: Option<String>,
}

impl Log {
    fn add(&mut self, history: History<Reader<'_>>) {
        let mut reader = history.reader;
        reader.end_boot();
        for mut record in reader.records {
            record.host.clone_from(&history.host);
            if reader.turns.are_taken() {
                record.not_proved(super::proof::TURNS);
            }
            keep(&mut self.records, record);
        }
        for mut signal in reader.non_fatal {
            if reader.turns.are_taken() {
                signal.not_proved();
            }
            keep(&mut self.non_fatal, signal);
        }
        self.recognised += reader.recognised;
        self.doubted = self.doubted.take().or(reader.doubted);
        self.lone = self.lone.take().or(reader.lone);
        let headless = reader.headless.into_line();
        self.headless = self.headless.take().or(headless);
    }

    fn end(self, summary: &prefix::Summary, closed: u64) -> ParsedLog {
        let mut problems = Vec::new();
        if let Some(sample) = summary.sample.as_ref()
            && (summary.unclear > 1 || summary.certain || self.recognised == 0)
        {
            problems.push(format!(
                "cannot parse the prefixes of these lines ({}): {sample}",
                summary.unclear
            ));
        } else if let Some(sample) = summary.hidden.as_ref().filter(|_| self.recognised == 0) {
            problems.push(format!(
                "cannot parse the prefixes of these lines: {sample}"
            ));
        } else if summary.kernel == 0 && self.recognised == 0 {
            problems.push(
                "no kernel log lines found: cannot determine whether there was a crash; give the \
                 output of dmesg or journalctl -k"
                    .to_owned(),
            );
        }
        if let Some(line) = self.doubted {
            problems.push(format!(
                "ignored, because it lacks the time that the kernel's other lines have: {line}"
            ));
        }
        problems.extend(self.lone);
        if let Some(line) = self.headless {
            problems.push(super::proof::headless(&line));
        }
        if closed > 0 {
            problems.push(format!(
                "lines of too many hosts are mixed: {closed} of them were not read completely; give \
                 one file for each host"
            ));
        }
        let mut records: Vec<CrashRecord> = self.records.into();
        if summary.unclear > 0 {
            for record in &mut records {
                record.not_proved("some lines of the log have a prefix that cannot be parsed");
            }
        }
        ParsedLog {
            records: merge(records),
            non_fatal: self.non_fatal.into(),
            problems,
        }
    }
}

/// The last kernel timestamp in a text, in seconds since boot.
#[must_use]
pub fn last_uptime(text: &[u8]) -> Option<f64> {
    // Only the end can matter, and it has at most a few lines without a timestamp.
    let tail = text.get(text.len().saturating_sub(TAIL)..).unwrap_or(text);
    Lines::new(tail).filter_map(|line| line.uptime).last()
}

/// The first kernel timestamp in a text, in seconds since boot.
#[must_use]
pub fn first_uptime(text: &[u8]) -> Option<f64> {
    let start = text.get(..TAIL).unwrap_or(text);
    Lines::new(start).find_map(|line| line.uptime)
}

/// Bytes that [`first_uptime`] and [`last_uptime`] search.
const TAIL: usize = 64 << 10;

fn date(when: &mut When, anchor: Anchor) {
    if let Some(uptime) = when.uptime_seconds
        && when.precision < Precision::Dump
    {
        when.unix_seconds = Some(anchor.unix_seconds - anchor.uptime_seconds + uptime);
        when.precision = Precision::Dump;
    }
}

fn keep<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == MAX_EVENTS {
        list.pop_front();
    }
    list.push_back(item);
}
