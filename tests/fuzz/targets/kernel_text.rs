//! Any bytes as a kernel log: read without a panic, and into bounded records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livepatch_monitor::crash::text::{Reading, last_uptime, read};

fuzz_target!(|bytes: &[u8]| {
    let told = read(bytes, &Reading::new(1800.0));
    assert!(told.records.len() <= 256 && told.lesser.len() <= 256);
    for record in &told.records {
        assert!(record.trace.len() <= 128 && record.headline.len() <= 4096);
    }
    let _ = last_uptime(bytes);
});
