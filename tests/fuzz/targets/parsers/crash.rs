//! What a kernel that is unwell says: its log, live and in dumps.

use livepatch_core::{crash::{parser::{Reading, last_uptime, read, signal}, pstore::{Name, join, split}}, message::LivepatchMessage};
use livepatch_monitor::kernel::kmsg::Record;

#[path = "../../../../monitor/core/src/crash/tests/kinds/hostile/names.rs"]
mod names;

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [log, name, kmsg, parts, log, log, kmsg, parts]);
}

/// Names that users choose, in lines of the kernel's: no signal. The first byte chooses the form
/// of the log and what is around the names; then come messages, each with a byte for its line
/// and a name up to a NUL, which no name holds.
fn name(bytes: &[u8]) {
    let [around, messages @ ..] = bytes else {
        return;
    };
    let form = names::FORMS[usize::from(*around) % names::FORMS.len()];
    let (later, dumped) = (around & 0x80 == 0, around & 0x40 == 0);
    let mut texts = Vec::new();
    for message in messages.split(|byte| *byte == 0).take(3) {
        let [line, name @ ..] = message else {
            continue;
        };
        let name = spelled(name);
        let text = names::line(usize::from(*line), &name);
        assert!(signal(&text).is_none(), "{text}");
        texts.push(text);
    }
    if dumped {
        texts.extend(names::dump("a.out"));
    }
    let log = names::log(form, &texts, later);
    let parsed = read(log.as_bytes(), &Reading::new(1800.0));
    assert!(parsed.records.is_empty() && parsed.non_fatal.is_empty(), "{form:?}:\n{log}");
}

/// A byte from 0xc0 on stands for a line of a report.
fn spelled(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    for byte in bytes {
        match byte.checked_sub(0xc0).map(usize::from) {
            Some(at) => {
                let mut known = names::STARTS.iter().chain(&names::SIGNS).cycle();
                text.extend_from_slice(known.nth(at).map_or("", |known| known).as_bytes());
            }
            None => text.push(*byte),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A log becomes records within their bounds.
fn log(bytes: &[u8]) {
    let parsed = read(bytes, &Reading::new(1800.0));
    assert!(parsed.records.len() <= 256 && parsed.non_fatal.len() <= 256);
    for record in &parsed.records {
        assert!(record.trace.len() <= 128 && record.headline.len() <= 4096);
    }
    let _ = last_uptime(bytes);
}

fn kmsg(bytes: &[u8]) {
    if let Some(record) = Record::parse(bytes) {
        assert!(record.level < 8 && record.text.len() <= 3 * bytes.len());
        let _ = record.livepatch();
        let line = record.to_line();
        assert!(line.len() <= 64 + 4 * record.text.len());
        assert!(Record::parse(line.as_bytes()).as_ref() == Some(&record));
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = LivepatchMessage::recognise(&format!("livepatch: {text}"));
    let _ = signal(&text);
}

/// Files of pstore in any order, cut where the bytes say; each begins with its name.
fn parts(bytes: &[u8]) {
    let mut parts = Vec::new();
    for file in bytes.split(|byte| *byte == 0) {
        let end = file.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let (name, content) = file.split_at(end);
        let name = String::from_utf8_lossy(name);
        parts.extend(split(content, Name::parse(&name).as_ref(), &name));
    }
    let count = parts.len();
    let dumps = join(parts);
    assert!(dumps.len() <= count);
    // Joining adds no more than a newline for each part.
    let joined: usize = dumps.iter().map(|dump| dump.text.len()).sum();
    assert!(joined <= bytes.len() + count);
}
