//! Any bytes as files of pstore, in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livepatch_monitor::crash::pstore::{Name, join, split};

fuzz_target!(|files: Vec<(String, Vec<u8>)>| {
    let mut parts = Vec::new();
    let mut bytes = 0;
    for (name, content) in &files {
        bytes += content.len();
        parts.extend(split(content, Name::parse(name).as_ref(), name));
    }
    let count = parts.len();
    let dumps = join(parts);
    assert!(dumps.len() <= count);
    // Joining adds no more than a newline for each part.
    let joined: usize = dumps.iter().map(|dump| dump.text.len()).sum();
    assert!(joined <= bytes + count);
});
