//! The kernel's log, from whatever kept it: a serial console, `dmesg`, syslog,
//! kdump's vmcore-dmesg, pstore. The many lines of one event become one record.

mod event;
pub(super) mod format;
mod header;
mod headline;
mod histories;
mod line;
mod place;
mod prefix;
mod reader;
mod symbol;
pub(super) mod timeline;

use std::collections::VecDeque;

use headline::{Sign, recognise};
use histories::{Histories, History};
use line::lines;
use reader::Reader;

use super::{
    Signal,
    record::{CrashRecord, NonFatalSignal, Precision, When, merge},
};
use crate::function_ref::FunctionRef;

/// Records, and lesser signals, kept of one text.
const MAX_EVENTS: usize = 256;
/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// Seconds since 1970.
    pub unix_seconds: f64,
    /// Seconds on the log's clock.
    pub uptime_seconds: f64,
}

/// What a text told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedLog {
    /// Crashes, oldest first; of more than 256 the latest.
    pub records: Vec<CrashRecord>,
    /// Signals that were no crash and led to none; of more than 256 the latest.
    pub lesser: Vec<NonFatalSignal>,
    /// What could not be made out, and why nothing can be concluded from it.
    pub problems: Vec<String>,
}

/// A function that a loaded patch replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The patch.
    pub patch: String,
    /// The function.
    pub function: FunctionRef,
}

/// What a text is read with.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// How long after the end of a transition a crash counts as in its wake.
    pub soak_seconds: f64,
    /// What is known of the last boot's clock from elsewhere.
    pub anchor: Option<Anchor>,
    /// What the loaded patches replace, where that is known.
    pub replaced: Vec<Replaced>,
}

impl Reading {
    /// Of a text of which nothing else is known.
    #[must_use]
    pub fn new(soak_seconds: f64) -> Self {
        Self {
            soak_seconds,
            anchor: None,
            replaced: Vec::new(),
        }
    }
}

/// The signal that a line of the kernel's begins or names, if it does.
#[must_use]
pub fn signal(line: &str) -> Option<Signal> {
    match recognise(line)? {
        Sign::Start(signal, _) => Some(signal),
        Sign::Report(..) => Some(Signal::Warning),
        Sign::Die => Some(Signal::Oops),
        Sign::Panic(_) => Some(Signal::Panic),
        Sign::Boot { .. } | Sign::EndTrace => None,
    }
}

/// Reads a text. The memory taken is bounded by the longest line and the number of
/// events kept, not by the text.
#[must_use]
pub fn read(text: &[u8], reading: &Reading) -> ParsedLog {
    let mut lines = lines(text);
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
        let of_boot = reader.lesser.iter_mut().rev().take(reader.boot.lesser);
        for lesser in of_boot {
            date(&mut lesser.when, anchor);
        }
    }
    rest.into_iter().for_each(|history| log.add(history));
    log.end(&lines.summary, closed)
}

/// What the hosts of a text told.
#[derive(Default)]
struct Log {
    records: VecDeque<CrashRecord>,
    lesser: VecDeque<NonFatalSignal>,
    recognised: u64,
    doubted: Option<String>,
    lone: Option<String>,
}

impl Log {
    fn add(&mut self, history: History<Reader<'_>>) {
        let mut reader = history.reader;
        reader.end_boot();
        for mut record in reader.records {
            record.host.clone_from(&history.host);
            keep(&mut self.records, record);
        }
        for lesser in reader.lesser {
            keep(&mut self.lesser, lesser);
        }
        self.recognised += reader.recognised;
        self.doubted = self.doubted.take().or(reader.doubted);
        self.lone = self.lone.take().or(reader.lone);
    }

    fn end(self, summary: &prefix::Summary, closed: u64) -> ParsedLog {
        let mut problems = Vec::new();
        if let Some(sample) = summary.sample.as_ref()
            && (summary.unclear > 1 || self.recognised == 0)
        {
            problems.push(format!(
                "the beginnings of these lines are not understood ({}): {sample}",
                summary.unclear
            ));
        } else if summary.kernel == 0 && self.recognised == 0 {
            problems.push(
                "no line of it is known to be the kernel's: cannot determine whether there was a \
                 crash; give the output of dmesg or journalctl -k"
                    .to_owned(),
            );
        }
        if let Some(line) = self.doubted {
            problems.push(format!(
                "not believed, since it lacks the time that the kernel's other lines bear: {line}"
            ));
        }
        if let Some(line) = self.lone {
            problems.push(super::proof::lone_headline(&line));
        }
        if closed > 0 {
            problems.push(format!(
                "too many hosts take turns: what was known of {closed} of them was left out; give \
                 one file for each host"
            ));
        }
        let mut records: Vec<CrashRecord> = self.records.into();
        if summary.unclear > 0 {
            for record in &mut records {
                record.not_proved(
                    "some lines of the log start with something that is not understood",
                );
            }
        }
        ParsedLog {
            records: merge(records),
            lesser: self.lesser.into(),
            problems,
        }
    }
}

/// The last time on the kernel's clock that a text bears.
#[must_use]
pub fn last_uptime(text: &[u8]) -> Option<f64> {
    // Only the end can matter, and it is short of a few lines without a time.
    let tail = text.get(text.len().saturating_sub(TAIL)..).unwrap_or(text);
    lines(tail).filter_map(|line| line.uptime).last()
}

/// The first time on the kernel's clock that a text bears.
#[must_use]
pub fn first_uptime(text: &[u8]) -> Option<f64> {
    let start = text.get(..TAIL).unwrap_or(text);
    lines(start).find_map(|line| line.uptime)
}

/// Bytes in which [`first_uptime`] and [`last_uptime`] look.
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
