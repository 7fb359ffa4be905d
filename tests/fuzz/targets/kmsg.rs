//! Any bytes as a record of /dev/kmsg, and as a line of livepatch's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livepatch_monitor::{
    crash::text::signal, kernel::kmsg::Record, livepatch::message::LivepatchMessage,
};

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = Record::parse(bytes) {
        assert!(record.level < 8 && record.text.len() <= 3 * bytes.len());
        let _ = record.livepatch();
        assert!(record.console_text().len() <= 64 * (bytes.len() + 1));
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = LivepatchMessage::recognise(&format!("livepatch: {text}"));
    let _ = signal(&text);
});
