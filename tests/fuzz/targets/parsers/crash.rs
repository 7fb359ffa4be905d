//! The log of a crashing kernel, live and in dumps.

use livepatch_core::{crash::{parser::{Reading, last_uptime, read, signal}, pstore::{Name, join, split}}, message::LivepatchMessage};
use livepatch_monitor::kernel::kmsg::Record;

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [log, log, kmsg, parts]);
}

/// A log becomes records within their limits.
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
        assert!(record.console_text().len() <= 64 * (bytes.len() + 1));
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = LivepatchMessage::recognise(&format!("livepatch: {text}"));
    let _ = signal(&text);
}

/// Files of pstore in any order, split as the bytes determine; each begins with its name.
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
