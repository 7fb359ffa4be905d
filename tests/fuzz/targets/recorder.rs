//! Any bytes as a file of the flight recorder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livepatch_monitor::recorder::frame::{HEADER, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes);
    let file = [HEADER.as_slice(), bytes].concat();
    let Ok(decoded) = decode(&file) else { return };
    assert_eq!(decoded.good + decoded.torn, file.len());
    for noted in &decoded.notes {
        assert!(encode(noted).is_ok());
    }
});
