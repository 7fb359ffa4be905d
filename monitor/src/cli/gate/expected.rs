//! `--expect-hosts`: the hosts that Prometheus must know.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::bounded_read;
use livepatch_core::gate::hosts::Expected;

/// Largest file that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// Reads the value of the flag: a number of hosts, or a file with one host per line. Empty
/// lines and lines that start with `#` are skipped.
///
/// # Errors
///
/// The file cannot be read, is not UTF-8, or names no host; a line holds more than a name.
pub(super) fn read(value: &str) -> anyhow::Result<Expected> {
    if let Ok(count) = value.parse() {
        return Ok(Expected::Count(count));
    }
    let path = Path::new(value);
    let bytes = bounded_read::read(path, LARGEST).with_context(|| {
        format!("cannot read --expect-hosts {path:?}; give a number or a file of host names")
    })?;
    let Ok(text) = String::from_utf8(bytes) else {
        bail!("--expect-hosts {path:?} is not UTF-8; write one host name per line");
    };
    let lines = text
        .lines()
        .zip(1..)
        .map(|(line, number)| (line.trim(), number));
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let names = lines.map(|(line, number)| {
        if line.contains(char::is_whitespace) {
            bail!(
                "--expect-hosts {path:?}, line {number}: {line:?} is more than a host name; write \
                one per line, as label instance has it, with or without its port"
            );
        }
        Ok(line.to_owned())
    });
    let names: std::collections::BTreeSet<String> = names.collect::<anyhow::Result<_>>()?;
    if names.is_empty() {
        bail!("--expect-hosts {path:?} names no host; write one per line");
    }
    Ok(Expected::Names(names))
}
