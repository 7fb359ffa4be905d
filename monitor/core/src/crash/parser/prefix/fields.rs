//! Parses lines that are records of named fields: the journal's (JSON, export, verbose), and the
//! JSON of container runtimes, log collectors and clouds.

use serde_json::Value;

use super::{
    super::date::{self, Date, Kind},
    peel::Origin,
};

/// Fields of a record in addition to its text.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: Option<Vec<u8>>,
    pub(super) date: Option<Date>,
    pub(super) uptime: Option<f64>,
    pub(super) host: Option<String>,
    pub(super) boot: Option<String>,
    pub(super) caller: Option<String>,
    pub(super) origin: Origin,
    /// Whether the journal itself shows that the kernel wrote it.
    pub(super) transport: bool,
}

/// Names of the field that contains the text, the most specific first.
const MESSAGES: [&str; 12] = [
    "MESSAGE",
    "log",
    "msg",
    "message",
    "textPayload",
    "full_message",
    "short_message",
    "line",
    "_raw",
    "body",
    "text",
    "Output",
];
const DATES: [&str; 6] = ["time", "dt", "timestamp", "@timestamp", "ts", "date"];
const HOSTS: [&str; 4] = ["_HOSTNAME", "host", "hostname", "instance"];
const PROGRAMS: [&str; 5] = [
    "SYSLOG_IDENTIFIER",
    "ident",
    "appname",
    "program",
    "_facility",
];

impl Fields {
    /// From a JSON object; `None` if it contains no text.
    pub(super) fn json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let mut fields = Self::default();
        fields.object(&value, 0);
        fields.message.is_some().then_some(fields)
    }

    fn object(&mut self, value: &Value, depth: u32) {
        let text = |name: &str| value.get(name).and_then(string);
        for name in ["_source", "jsonPayload", "labels", "fields"] {
            if depth < 2 && value.get(name).is_some_and(Value::is_object) {
                self.object(value.get(name).unwrap_or(&Value::Null), depth + 1);
            }
        }
        let mut messages = MESSAGES.iter().filter_map(|name| bytes(value.get(*name)?));
        self.message = messages.next().or(self.message.take());
        for name in HOSTS {
            self.host = self.host.take().or_else(|| text(name));
        }
        for name in DATES {
            self.date = self.date.or_else(|| moment(&text(name)?));
        }
        for name in PROGRAMS {
            if let Some(program) = text(name).filter(|_| self.origin == Origin::Unsaid) {
                self.origin = origin(&program);
            }
        }
        if let Some(priority) = value.get("pri") {
            self.dmesg(value, priority);
        }
        for name in JOURNAL {
            if let Some(text) = text(name) {
                self.journal(name, &text);
            }
        }
    }

    /// `dmesg --json` (util-linux 2.38 to 2.42): the priority is a number that contains the
    /// facility, or with `--decode` a word next to it.
    fn dmesg(&mut self, value: &Value, priority: &Value) {
        let facility = value.get("fac").and_then(string);
        if facility.is_none() && !priority.is_u64() {
            return;
        }
        let of_others = priority.as_u64().is_some_and(|priority| priority >= 8);
        self.origin = match facility {
            _ if of_others => Origin::Other,
            Some(facility) => origin(&facility),
            None => Origin::Kernel,
        };
        self.transport = self.origin == Origin::Kernel;
        self.uptime = value.get("time").and_then(Value::as_f64);
        self.caller = value.get("caller").and_then(string);
        // With `--file`, 2.38 repeats in each text all lines that follow.
        if let Some(text) = &mut self.message
            && let Some(end) = text.windows(5).position(is_next_line)
        {
            text.truncate(end);
        }
    }

    /// Processes a field of the journal (systemd.journal-fields(7)).
    pub(super) fn journal(&mut self, name: &str, value: &str) {
        let seconds = || micros(value);
        let exact = |seconds| Date {
            seconds,
            kind: Kind::Exact,
        };
        match name {
            "MESSAGE" => self.message = Some(value.as_bytes().to_vec()),
            "__REALTIME_TIMESTAMP" => self.date = self.date.or_else(|| seconds().map(exact)),
            // When the kernel wrote it, rather than when journald received it.
            "_SOURCE_MONOTONIC_TIMESTAMP" => self.uptime = seconds(),
            "__MONOTONIC_TIMESTAMP" => self.uptime = self.uptime.or_else(seconds),
            "_HOSTNAME" => self.host = Some(value.to_owned()),
            "_BOOT_ID" => self.boot = Some(value.to_owned()),
            "_TRANSPORT" => {
                self.transport = value == "kernel";
                self.origin = if self.transport {
                    Origin::Kernel
                } else {
                    Origin::Other
                };
            }
            _ => {}
        }
    }
}

const JOURNAL: [&str; 5] = [
    "_TRANSPORT",
    "_SOURCE_MONOTONIC_TIMESTAMP",
    "__MONOTONIC_TIMESTAMP",
    "__REALTIME_TIMESTAMP",
    "_BOOT_ID",
];

/// A line's end, and the priority of the line after it: `<4>`.
fn is_next_line(text: &[u8]) -> bool {
    let behind = text.strip_prefix(b"\n<").unwrap_or_default();
    let digits = behind
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    digits > 0 && behind.get(digits).is_none_or(|next| *next == b'>')
}

fn origin(program: &str) -> Origin {
    if ["kernel", "kern"].contains(&program) {
        Origin::Kernel
    } else {
        Origin::Other
    }
}

fn string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A text, or the numbers of its bytes, which journald writes if it is not printable.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(list) => list
            .iter()
            .map(|byte| u8::try_from(byte.as_u64()?).ok())
            .collect(),
        _ => None,
    }
}

fn micros(text: &str) -> Option<f64> {
    let micros: u64 = text.parse().ok()?;
    Some(std::time::Duration::from_micros(micros).as_secs_f64())
}

/// A date, or seconds, milliseconds, microseconds or nanoseconds since 1970.
fn moment(text: &str) -> Option<Date> {
    if let Some((date, _)) = date::at_start(text.trim()) {
        return Some(date);
    }
    let number: f64 = text.parse().ok()?;
    let scale = [1.0, 1e3, 1e6, 1e9];
    let seconds = scale.into_iter().map(|scale| number / scale);
    let seconds = seconds
        .into_iter()
        .find(|seconds| (5e8..5e9).contains(seconds))?;
    Some(Date {
        seconds,
        kind: Kind::Exact,
    })
}
