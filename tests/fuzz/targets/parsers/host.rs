//! What package managers leave behind.

use std::collections::BTreeMap;

use livepatch_monitor::host::packages::{not_done, states_of};

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [dpkg, yum]);
}

/// A second reading of the same says the same; a shorter line is not another package.
fn dpkg(bytes: &[u8]) {
    let (mut once, mut twice) = (BTreeMap::new(), BTreeMap::new());
    states_of(bytes, &mut once).unwrap();
    let doubled = [bytes, b"\n\n", bytes].concat();
    states_of(doubled.as_slice(), &mut twice).unwrap();
    assert_eq!(once, twice);
    for (name, state) in &once {
        assert!(!name.contains('\n') && !state.contains(char::is_whitespace));
    }
}

/// What is done is not left, and all is left where nothing is done.
fn yum(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (planned, done) = text.split_once('\0').unwrap_or((&text, ""));
    assert!(not_done(planned, planned).is_empty());
    assert!(not_done(planned, done).len() <= not_done(planned, "").len());
}
