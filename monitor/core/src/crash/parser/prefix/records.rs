//! Records of many lines: the journal's `export`, `verbose` and `json-pretty`, `dmesg --json`.

use super::{
    super::date::Date,
    Lines, MAX_RECORD, clean,
    fields::Fields,
    peel::{Origin, Peeled, peel},
    stamp::is_caller,
};

/// Lines of one record; the journal's have about 50.
const MAX_FIELDS: usize = 256;

impl Lines<'_> {
    /// The journal's `export`: fields until an empty line, binary ones with a length.
    pub(super) fn export(&mut self, first: &[u8]) {
        let mut fields = Fields::default();
        let mut line = Some(first.to_vec());
        while let Some(bytes) = line.filter(|line| !line.is_empty()) {
            if let Some(equals) = bytes.iter().position(|byte| *byte == b'=') {
                let (name, value) = bytes.split_at(equals);
                let value = value.get(1..).unwrap_or_default();
                let name = String::from_utf8_lossy(name);
                fields.journal(&name, &String::from_utf8_lossy(value));
            } else if let Some(value) = self.binary() {
                let name = String::from_utf8_lossy(&bytes).into_owned();
                fields.journal(&name, &String::from_utf8_lossy(&value));
            }
            line = self.physical();
        }
        self.fields(fields);
    }

    fn binary(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.at..)?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let value = rest.get(..length)?.to_vec();
        self.at += 8 + length + 1;
        Some(value)
    }

    /// `json-pretty`, `dmesg --json`: objects over many lines, perhaps in a list inside
    /// another; the last may be cut off. False where it is none.
    pub(super) fn pretty(&mut self) -> bool {
        let (mut end, mut any) = (self.at, false);
        let (mut object, mut lines) = (b"{".to_vec(), 0);
        let fits = |object: &[u8], lines| lines < MAX_FIELDS && object.len() < MAX_RECORD;
        while let Some(line) = self.physical().filter(|_| fits(&object, lines)) {
            let line = line.trim_ascii();
            // The journal writes bytes that are not printable as numbers, each on a line.
            lines += usize::from(!line.first().is_some_and(u8::is_ascii_digit));
            if line.starts_with(b"}") {
                any |= self.object(&object, "}");
                end = self.at;
                if !line.ends_with(b"{") {
                    break;
                }
                object.truncate(1);
                lines = 0;
            } else if line.ends_with(b"{") {
                // What is asked for is inside.
                object.truncate(1);
            } else {
                object.extend(line);
            }
            if self.at == self.bytes.len() {
                let cut = object.strip_suffix(b",").unwrap_or(&object);
                if self.object(cut, "}") || self.object(cut, "\"}") {
                    return true;
                }
            }
        }
        self.at = end;
        any
    }

    /// Reads an object that lacks its end.
    fn object(&mut self, object: &[u8], end: &str) -> bool {
        let fields = Fields::json(&(String::from_utf8_lossy(object) + end));
        fields.map(|fields| self.fields(fields)).is_some()
    }

    /// The journal's `verbose`: a date, then indented fields.
    pub(super) fn verbose(&mut self, date: Date) {
        let mut fields = Fields {
            date: Some(date),
            ..Fields::default()
        };
        loop {
            let start = self.at;
            let Some(line) = self.physical() else {
                break;
            };
            if line.is_empty() {
                continue;
            }
            if !line.starts_with(b"    ") {
                self.at = start;
                break;
            }
            let line = String::from_utf8_lossy(&line);
            if let Some((name, value)) = line.trim_start().split_once('=') {
                fields.journal(name, value);
            }
        }
        self.fields(fields);
    }

    pub(super) fn fields(&mut self, fields: Fields) {
        let Some(message) = fields.message.filter(|_| fields.origin != Origin::Other) else {
            return;
        };
        let message = String::from_utf8_lossy(&message).into_owned();
        for (index, part) in message.split('\n').enumerate() {
            let part = clean::line(part.as_bytes(), false);
            if part.is_empty() {
                continue;
            }
            let mut peeled = match fields.transport {
                true => Peeled {
                    text: &part,
                    origin: Origin::Kernel,
                    ..Peeled::default()
                },
                false => peel(&part, &self.profile),
            };
            peeled.date = peeled.date.or(fields.date);
            peeled.uptime = peeled.uptime.or(fields.uptime);
            peeled.host = peeled.host.or(fields.host.as_deref());
            let caller = fields.caller.as_deref();
            peeled.caller = peeled.caller.or(caller.filter(|it| is_caller(it)));
            let mut line = self.line(&peeled);
            line.boot.clone_from(&fields.boot);
            line.continues = fields.transport && index > 0;
            line.begins_message |= fields.transport && index == 0;
            if peeled.origin != Origin::Other {
                self.hold(Some(line), 0);
            }
        }
    }
}
