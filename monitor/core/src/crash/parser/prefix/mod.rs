//! Handles line prefixes: learned once per file ([`learn`]), stripped from each line ([`peel`]).
//! The prefix shows who logged a line, on which host, when and in which boot. Lines of other
//! programs are dropped, and prefixes that cannot be parsed are counted and reported.

mod clean;
mod clock;
mod copies;
mod fields;
mod fragments;
mod hidden;
mod learn;
mod marks;
mod peel;
mod profile;
mod records;
mod stamp;
mod suffix;
#[cfg(test)]
mod tests;
mod vendor;

use std::{borrow::Cow, collections::VecDeque};

use super::{
    date::{self, Kind},
    headline::{of_a_user_program, recognise},
    line::Line,
};
use clock::Clocks;
use copies::Copies;
use fields::Fields;
use fragments::Fragments;
use hidden::Hidden;
use marks::mark;
use peel::{Origin, Peeled, peel};
use profile::Profile;
use stamp::{bracket, stamp, uptime};

/// Most bytes of a record of many lines.
const MAX_RECORD: usize = 256 << 10;
/// A timestamp older than this is not from the running clock.
const BACK_SECONDS: f64 = 5.0;
/// A line may be wrapped if the next word would have made it longer than this.
const WRAPPED: usize = 60;

/// Statistics of a file's lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Summary {
    /// Number of lines whose prefix shows that the kernel wrote them.
    pub(super) kernel: u64,
    /// Number of lines with kernel text after an unknown prefix.
    pub(super) unclear: u64,
    /// The first of these.
    pub(super) sample: Option<String>,
    /// Whether one of these has the kernel's time or tag, so that it is not a quotation.
    pub(super) certain: bool,
    /// An example of lines with kernel text after an unknown prefix that all of them have.
    pub(super) hidden: Option<String>,
}

/// Iterates over the lines of a text without their prefixes. A carriage return ends a line too, as
/// on a serial console, except in a line of the kernel's own, where it is part of a name.
pub(super) struct Lines<'a> {
    bytes: Cow<'a, [u8]>,
    at: usize,
    profile: Profile,
    clocks: Clocks,
    fragments: Fragments,
    /// Lines that are read and not yet returned.
    ready: VecDeque<Line>,
    /// A line that the next one may continue, and its length in the file.
    held: Option<(Line, usize)>,
    last_uptime: Option<f64>,
    copies: Copies,
    hidden: Hidden,
    /// A line with a time was read.
    begun: bool,
    pub(super) summary: Summary,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut bytes = clean::decode(bytes);
        let profile = learn::profile(&bytes);
        if profile.reversed {
            bytes = clean::reversed(&bytes).into();
        }
        Self {
            bytes,
            at: 0,
            profile,
            clocks: Clocks::default(),
            fragments: Fragments::default(),
            ready: VecDeque::new(),
            held: None,
            last_uptime: None,
            copies: Copies::default(),
            hidden: Hidden::default(),
            begun: false,
            summary: Summary::default(),
        }
    }

    /// The next line of the file, unchanged, possibly empty.
    fn physical(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (line, ended) = self.ended(rest);
        self.at += ended;
        Some(line.get(..MAX_RECORD).unwrap_or(line).to_vec())
    }

    /// The line at the start of the text, and the length including its end.
    fn ended<'t>(&self, text: &'t [u8]) -> (&'t [u8], usize) {
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let Some(first) = text.iter().position(is_end) else {
            return (text, text.len());
        };
        let (line, rest) = text.split_at(first);
        // If no line ends in a newline, carriage returns end the kernel's own lines too.
        let near = rest.get(..MAX_RECORD).unwrap_or(rest);
        let newline = near.iter().position(|byte| *byte == b'\n');
        let Some(newline) = newline.filter(|_| rest.first() == Some(&b'\r')) else {
            return (line, first + 1);
        };
        let returns = rest.iter().take_while(|byte| **byte == b'\r').count();
        let whole = first + newline;
        // In the kernel's own lines, and in those that `dmesg` and `journalctl` indent, a return is
        // part of a name.
        let indented = line.starts_with(b" ") && !self.profile.common.indent;
        if returns == newline || indented || self.is_the_kernels(line) {
            return (
                text.get(..whole).unwrap_or(line).trim_ascii_end(),
                whole + 1,
            );
        }
        (line, first + 1)
    }

    /// Whether the line starts like one of the kernel.
    fn is_the_kernels(&self, line: &[u8]) -> bool {
        let text = clean::line(line, self.profile.html);
        let peeled = peel(&text, &self.profile);
        let dated = peeled.date.is_some() && self.profile.common.date;
        peeled.origin == Origin::Kernel || peeled.uptime.is_some() || dated
    }

    /// Reads the next line, or the record of many lines that starts there.
    fn read(&mut self, bytes: &[u8]) {
        let trimmed = bytes.trim_ascii();
        if trimmed.is_empty() {
            return;
        }
        let common = &self.profile.common;
        let (json, fields) = (common.json, common.fields);
        let starts = [&b"__CURSOR="[..], b"__REALTIME_TIMESTAMP="];
        if fields && starts.iter().any(|start| trimmed.starts_with(start)) {
            return self.export(bytes);
        }
        let mut text = clean::line(bytes, self.profile.html).into_owned();
        if self.profile.timed && !self.begun {
            // Only what the copying cut: further on it may be part of a name.
            if let Some(rest) = stamp::lost_bracket(&text) {
                text = format!("[{rest}");
            }
            self.begun = stamp(&text).is_some();
        }
        let text = text.as_str();
        if json && ["{", "[{", "},{", "}, {"].contains(&text.trim_start()) && self.pretty() {
            return;
        }
        if let Some(at) = text.find('{').filter(|at| *at < 64)
            && let Some(object) = text.get(at..)
            && object.ends_with(['}', ','])
            && object
                .get(1..)
                .is_some_and(|rest| rest.trim_start().starts_with('"'))
        {
            // A record can be longer than a line of text.
            let whole = String::from_utf8_lossy(bytes);
            let whole = whole
                .get(whole.find('{').unwrap_or(0)..)
                .unwrap_or_default();
            if let Some(fields) = Fields::json(whole.trim_end().trim_end_matches([',', ']'])) {
                if json {
                    return self.fields(fields);
                }
                // It may be part of a name: few lines of the log are records.
                let before = text.get(..at).unwrap_or_default();
                if !before.contains(|c: char| c.is_ascii_digit()) {
                    self.summary.certain = true;
                    self.unclear(text);
                }
            }
        }
        if text.starts_with("-- Boot ") || text == "-- Reboot --" {
            self.hold(None, 0);
            let line = Line {
                new_boot: true,
                ..Line::default()
            };
            return self.ready.push_back(line);
        }
        if text.starts_with("-- ") && text.ends_with(" --") {
            return;
        }
        if fields
            && let Some((date, rest)) = date::at_start(text)
            && rest.trim_start().starts_with("[s=")
        {
            return self.verbose(date);
        }
        self.plain(text);
    }

    fn plain(&mut self, text: &str) {
        let bare = self
            .profile
            .suffix
            .as_ref()
            .and_then(|suffix| suffix.strip(text));
        let text = bare.as_deref().unwrap_or(text);
        let profile = std::mem::take(&mut self.profile);
        let mut peeled = peel(text, &profile);
        if peeled.origin == Origin::Unsaid
            && peeled.date.is_none()
            && let Some(behind) = self.behind_a_program(peeled.text, profile.timed)
        {
            peeled = peel(behind, &profile);
        }
        let kmsg = peel::extended(text.trim_start()).is_some();
        let indented = text.starts_with([' ', '\t']) && !profile.broadcast;
        let quoted = indented && !profile.common.indent;
        let stamped = profile.stamped;
        let wrapped = profile.wrapped;
        self.profile = profile;
        if peeled.doubted {
            self.summary.certain = true;
            self.unclear(text);
        }
        if peeled.origin == Origin::Other {
            return;
        }
        if peeled.uptime.is_none() && peeled.origin == Origin::Unsaid {
            if self.is_dictionary(text) {
                return;
            }
            if wrapped && self.goes_on(&peeled, text) {
                return;
            }
            self.doubt(peeled.text);
        } else if hidden::holds_another(peeled.text) {
            self.summary.certain = true;
            self.unclear(text);
        } else {
            self.hidden.add(peeled.text);
        }
        if self.copies.is_one(&peeled) {
            return;
        }
        let mut line = self.line(&peeled);
        if !kmsg && !self.profile.common.caller {
            line.caller = None;
        }
        if quoted {
            // A keeper's own lines are not indented: it continues a message.
            line.moment = None;
            line.host = None;
            line.begins_message = false;
        }
        line.begins_message |= kmsg && self.profile.common.kmsg && !quoted;
        line.understood = !stamped || peeled.origin == Origin::Kernel || peeled.date.is_some();
        if let Some((sequence, offset, whole)) = peeled.fragment {
            if let Some(line) = self.fragments.add(line, sequence, offset, whole) {
                self.records(line);
            }
            return;
        }
        if kmsg {
            self.records(line);
        } else {
            self.hold(Some(line), text.chars().count());
        }
    }

    /// A text of `/dev/kmsg`: `\x0a` ends a line.
    fn records(&mut self, line: Line) {
        let text = unescape(&line.text);
        for (index, part) in text.split('\n').enumerate() {
            let line = Line {
                text: part.trim_end().to_owned(),
                begins_message: line.begins_message && index == 0,
                continues: index > 0,
                ..line.clone()
            };
            self.hold(Some(line), 0);
        }
    }

    /// ` SUBSYSTEM=pci`, after a record of `/dev/kmsg`.
    fn is_dictionary(&self, text: &str) -> bool {
        let field = |text: &str| {
            let (name, _) = text.split_once('=')?;
            let upper = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            (name.len() > 1 && name.bytes().all(upper)).then_some(())
        };
        text.strip_prefix(' ').and_then(field).is_some()
    }

    /// The kernel's line after a program's text that has no newline on the console: a prompt, a
    /// progress message. `timed`: some lines start with a timestamp.
    fn behind_a_program<'t>(&self, text: &'t str, timed: bool) -> Option<&'t str> {
        let behind = text.get(stamp(text)?..)?;
        let (inner, _) = bracket(behind)?;
        let uptime = uptime(inner)?;
        let before = text.get(..text.len() - behind.len())?;
        // A field of a record (YAML).
        let key = before
            .trim_start_matches(['-', ' '])
            .trim_end_matches(['\'', '"', ' '])
            .strip_suffix(':');
        let field = key.is_some_and(|key| key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if !timed && !field || of_a_user_program(before) {
            // It may be part of a name.
            return None;
        }
        // A timestamp in the past is quoted, not printed.
        self.last_uptime
            .is_none_or(|last| uptime + BACK_SECONDS >= last)
            .then_some(behind)
    }

    /// Whether a line without a timestamp continues the one before, which a mail program wrapped.
    fn goes_on(&mut self, peeled: &Peeled<'_>, text: &str) -> bool {
        let Some((line, length)) = &mut self.held else {
            return false;
        };
        let more = peeled.text.trim();
        let word = more.split_ascii_whitespace().next().unwrap_or_default();
        let long = *length + 1 + word.chars().count() > WRAPPED;
        let starts = more.starts_with(['[', '<', '-']) || recognise(more).is_some();
        if !long || line.uptime.is_none() || starts {
            return false;
        }
        line.text.push(' ');
        line.text.push_str(more);
        *length = text.chars().count();
        true
    }

    /// Counts a line with kernel text after an unknown prefix.
    fn doubt(&mut self, text: &str) {
        let text = text.trim_start();
        let at = mark(text).filter(|at| *at > 0);
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        // The kernel's own: `watchdog: BUG:`, `Internal error: Oops: `.
        let own = [
            "watchdog: ",
            "NMI watchdog: ",
            "rcu: ",
            "Internal error: ",
            "Oops: ",
        ];
        if before.is_empty() || own.contains(&before) {
            return;
        }
        // A journal's record in a log of which few lines are records.
        let field = before.trim_start_matches('"').starts_with("MESSAGE");
        self.summary.certain |= stamp(before).is_some() || field;
        self.unclear(text);
    }

    fn unclear(&mut self, text: &str) {
        self.summary.unclear += 1;
        if self.summary.sample.is_none() {
            self.summary.sample = Some(text.chars().take(160).collect());
        }
    }

    fn line(&mut self, peeled: &Peeled<'_>) -> Line {
        if peeled.origin == Origin::Kernel {
            self.summary.kernel += 1;
        }
        if peeled.uptime.is_some() {
            self.last_uptime = peeled.uptime;
        }
        let (clock, date) = self.clocks.read(peeled.host, peeled.date, peeled.uptime);
        let common = &self.profile.common;
        let moment = peeled.uptime.filter(|_| common.uptime);
        let first = peeled.first_date.filter(|date| date.kind != Kind::Delta);
        let dated = first.or(date).filter(|_| common.date);
        Line {
            uptime: peeled.uptime,
            moment: moment.or(dated.map(|date| date.seconds)),
            // rsyslog's imklog puts the tag and the kernel's time before each line of a message.
            begins_message: peeled.tagged && common.tag && !common.uptime,
            unix: date
                .filter(|date| date.kind == Kind::Exact)
                .map(|date| date.seconds),
            date,
            clock,
            caller: peeled.caller.map(str::to_owned),
            host: peeled.host.map(str::to_owned),
            text: peeled.text.to_owned(),
            ..Line::default()
        }
    }

    /// Returns the held line and holds another.
    fn hold(&mut self, line: Option<Line>, length: usize) {
        let next = line.map(|line| (line, length));
        if let Some((line, _)) = std::mem::replace(&mut self.held, next) {
            self.ready.push_back(line);
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            match self.physical() {
                Some(bytes) => self.read(&bytes),
                None => {
                    for line in self.fragments.rest() {
                        self.records(line);
                    }
                    self.hold(None, 0);
                    self.summary.hidden = self.hidden.sample();
                    return self.ready.pop_front();
                }
            }
        }
    }
}

/// `\x0a`, which /dev/kmsg writes for what is not printable.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind
            .strip_prefix(b"x")
            .filter(|_| *first == b'\\')
            .and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = escaped {
            out.push(byte);
            rest = behind.get(3..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
