//! Small files of /proc and /sys, with their path in every error.

use std::fs;

use anyhow::{Context as _, Result};

/// The file's text, whatever bytes it has.
pub(crate) fn read(path: &str) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes to an existing file.
pub(crate) fn write(path: &str, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {path}"))?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .with_context(|| format!("cannot write `{text}` to {path}"))
}

/// A file that holds 0 or 1.
pub(crate) fn read_flag(path: &str) -> Result<bool> {
    let text = read(path)?;
    match text.trim() {
        "0" => Ok(false),
        "1" => Ok(true),
        other => anyhow::bail!("{path} holds `{other}`, not 0 or 1"),
    }
}
