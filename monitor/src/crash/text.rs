//! A kernel log that was found, and what who kept it proves beyond its text.

use livepatch_core::crash::{
    CrashRecord, Kind, Precision, Signal, When,
    parser::{self, Anchor, ParsedLog, Reading, last_uptime},
    pstore::Dump,
};

/// A report that came this long before the end of a dump is not what the dump was made of.
const AT_THE_END_SECONDS: f64 = 60.0;

/// A kernel log that was found.
#[derive(Debug)]
pub struct Text {
    /// The log as it was found, prefixes included.
    pub bytes: Vec<u8>,
    /// What its place shows about its clock.
    pub anchor: Option<Anchor>,
    /// The files it was read from, oldest text first.
    pub files: Vec<String>,
    keeper: Keeper,
}

#[derive(Debug)]
enum Keeper {
    /// Whoever gave it a name; it proves nothing.
    Anybody,
    /// The kernel, when it dumped its log: the crash of which the dump is proof, for want of
    /// a report in its text, and whether the kernel ended with it.
    Pstore {
        lost: Option<Box<CrashRecord>>,
        ended: Option<bool>,
    },
    /// The crash kernel, which runs only because the other one died. When it wrote the file,
    /// in seconds since 1970.
    Kdump { written: Option<f64> },
}

/// What was read from a text.
#[derive(Debug)]
pub struct Read {
    /// The crashes, oldest first, and whether the kernel ended with each; `None` if that
    /// is not known.
    pub crashes: Vec<(CrashRecord, Option<bool>)>,
    /// What the parser found apart from the crashes: other signals, and problems.
    pub log: ParsedLog,
}

impl Text {
    /// A log in a separate file.
    #[must_use]
    pub fn of_file(path: String, bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            anchor: None,
            files: vec![path],
            keeper: Keeper::Anybody,
        }
    }

    /// A log that kdump saved; empty where it could not save it.
    #[must_use]
    pub fn of_kdump(files: Vec<String>, bytes: Vec<u8>, written: Option<f64>) -> Self {
        Self {
            bytes,
            anchor: None,
            files,
            keeper: Keeper::Kdump { written },
        }
    }

    /// A dump of pstore.
    #[must_use]
    pub fn of_pstore(dump: Dump) -> Self {
        Self {
            keeper: Keeper::Pstore {
                lost: dump.without_report().map(Box::new),
                ended: dump.ended_boot(),
            },
            anchor: dump.anchor,
            files: dump.files,
            bytes: dump.text,
        }
    }

    /// Reads it. A crash that its keeper is proof of is there in any case.
    #[must_use]
    pub fn read(&self, reading: &Reading) -> Read {
        let reading = Reading {
            anchor: self.anchor,
            ..reading.clone()
        };
        let mut log = parser::read(&self.bytes, &reading);
        let mut records = std::mem::take(&mut log.records);
        let end = last_uptime(&self.bytes);
        let at_the_end = |record: &CrashRecord| {
            let ago = end.zip(record.when.uptime_seconds);
            record.panic.is_some() || ago.is_none_or(|(end, at)| end - at <= AT_THE_END_SECONDS)
        };
        let is_reported = records.last().is_some_and(at_the_end);
        let ended = match &self.keeper {
            Keeper::Anybody => None,
            Keeper::Pstore { ended, .. } => *ended,
            Keeper::Kdump { .. } => Some(true),
        };
        if !is_reported && let Some(lost) = self.lost(end) {
            records.push(lost);
        }
        let last = records.len().saturating_sub(1);
        let date = |(index, mut record): (usize, CrashRecord)| {
            record.files.clone_from(&self.files);
            self.date(&mut record.when, end);
            let ended = match (record.panic.is_some(), ended) {
                (true, _) => Some(true),
                (false, Some(_)) => Some(index == last),
                (false, None) => None,
            };
            (record, ended)
        };
        let crashes = records.into_iter().enumerate().map(date).collect();
        Read { crashes, log }
    }

    /// The crash that is proved although the text has no report of it.
    fn lost(&self, end: Option<f64>) -> Option<CrashRecord> {
        let mut record = match &self.keeper {
            Keeper::Anybody => return None,
            Keeper::Pstore { lost, .. } => CrashRecord::clone(lost.as_ref()?),
            Keeper::Kdump { .. } => CrashRecord {
                signals: vec![Signal::Panic],
                reports: 1,
                headline: match self.bytes.is_empty() {
                    true => "a crash of which kdump saved no log",
                    false => "a crash that kdump saved, without a report in its log",
                }
                .to_owned(),
                ..CrashRecord::empty(Kind::Panic)
            },
        };
        record.when.uptime_seconds = end;
        if let Some((anchor, uptime)) = self.anchor.zip(end) {
            record.when.unix_seconds = Some(anchor.unix_seconds + uptime - anchor.uptime_seconds);
            record.when.precision = Precision::Dump;
        }
        record
            .unproven
            .push("the log's part with the report is not there".to_owned());
        Some(record)
    }

    /// For want of another date, that of the file.
    fn date(&self, when: &mut When, end: Option<f64>) {
        let Keeper::Kdump {
            written: Some(written),
        } = self.keeper
        else {
            return;
        };
        if when.unix_seconds.is_none() {
            let before_the_end = end
                .zip(when.uptime_seconds)
                .map_or(0.0, |(end, at)| end - at);
            when.unix_seconds = Some(written - before_the_end);
            when.precision = Precision::File;
        }
    }
}
