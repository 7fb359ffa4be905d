//! A livepatch module's file, compressed or not.

use livepatch_core::preflight::{module::{KlpLayout, Module}, unpack::{MAX_MODULE, unpack}};

pub fn parse(bytes: &[u8]) {
    let Ok(bytes) = unpack(bytes.to_vec()) else {
        return;
    };
    assert!(bytes.len() <= MAX_MODULE);
    let Ok(module) = Module::parse(&bytes, &KlpLayout::KNOWN) else {
        return;
    };
    assert!(!module.name.is_empty() && !module.name.contains('/'));
    for (object, function) in module.functions() {
        assert!(!object.is_empty() && !function.name.is_empty() && function.name.len() < 512);
    }
}
