//! The parsers of untrusted bytes, in groups. `PARSERS` in the environment selects the group of a
//! run: inputs of one group are useless for another.
#![no_main]

mod crash;
mod gate;
mod host;
mod kernel;
mod module;
mod state;
mod web;

use std::{path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

type Parser = fn(&[u8]);

/// The names that `cargo xtask fuzz` uses.
const GROUPS: [(&str, Parser); 7] = [
    ("crash", crash::parse),
    ("gate", gate::parse),
    ("host", host::parse),
    ("kernel", kernel::parse),
    ("module", module::parse),
    ("state", state::parse),
    ("web", web::parse),
];

static GROUP: LazyLock<Parser> = LazyLock::new(|| {
    let wanted = std::env::var("PARSERS").unwrap_or_default();
    let group = GROUPS.iter().find(|(name, _)| *name == wanted);
    group
        .unwrap_or_else(|| panic!("PARSERS={wanted:?} names no group: {GROUPS:?}"))
        .1
});

/// A folder in memory for parsers that read files. The caller of the run removes it.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = std::env::var_os("PARSERS_ROOT");
    root.expect("PARSERS_ROOT names no folder to work in")
        .into()
});

fuzz_target!(|bytes: &[u8]| GROUP(bytes));

/// Selects a parser of a group by the last byte, so that recorded files, with which the corpus
/// starts, are unchanged except for their end.
fn pick<const N: usize>(bytes: &[u8], parsers: [Parser; N]) {
    if let Some((last, rest)) = bytes.split_last() {
        parsers[usize::from(*last) % N](rest);
    }
}
