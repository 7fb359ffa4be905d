//! Checks the dashboards against the types that Grafana publishes in its foundation SDK.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::board;
use crate::host::{paths, python};

/// For Grafana 11.6; the number before the `!` is the SDK's release time.
const SDK: &str = "grafana-foundation-sdk==1769699379!11.6.0";

const SCRIPT: &str = include_str!("grafana_types.py");

/// Faults that the script must find, as a check of the check: the place, the wrong value, and a
/// part of the message.
fn faults() -> [(&'static str, Value, &'static str); 6] {
    [
        ("/colour", json!("red"), "not a field"),
        (
            "/panels/1/options/colorMode",
            json!("backdrop"),
            "BigValueColorMode",
        ),
        (
            "/panels/1/fieldConfig/defaults/unit",
            json!("apples"),
            "is not a unit",
        ),
        ("/panels/1/type", json!("stats"), "is not a panel"),
        ("/panels/1/targets/0/instant", json!("yes"), "is not a bool"),
        (
            "/panels/1/fieldConfig/overrides",
            json!([{ "matcher": { "id": "byName", "options": "A" },
                     "properties": [{ "id": "custom.widht", "value": 1 }] }]),
            "widht",
        ),
    ]
}

/// Checks all dashboards; `false` if one does not match.
pub(super) fn check() -> Result<bool> {
    let programs = python::programs(
        "grafana-types",
        SDK,
        "to check dashboards with Grafana's types",
    )?;
    let python = programs.join("python");
    let files = board::files()?;
    let first = files.first().context("there is no dashboard")?;
    let text =
        fs::read_to_string(first).with_context(|| format!("cannot read {}", first.display()))?;
    let folder = paths::target()?.join("dashboards");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let broken = folder.join("broken.json");
    for (place, value, said) in faults() {
        let copy = with_fault(&text, place, value)?;
        fs::write(&broken, copy.to_string())
            .with_context(|| format!("cannot write {}", broken.display()))?;
        let (fits, output) = judge(&python, std::slice::from_ref(&broken))?;
        if fits || !output.contains(said) {
            bail!(
                "a dashboard with a fault at {place} is not found out; the check said:\n{output}"
            );
        }
    }
    let (fits, output) = judge(&python, &files)?;
    print!("{output}");
    println!(
        "{} dashboards {} Grafana's types ({SDK})",
        files.len(),
        if fits { "fit" } else { "do not fit" }
    );
    Ok(fits)
}

/// A copy of a dashboard with another value at one place.
fn with_fault(text: &str, place: &str, value: Value) -> Result<Value> {
    let mut copy: Value = serde_json::from_str(text).context("not JSON")?;
    let (parent, key) = place.rsplit_once('/').context("no place")?;
    copy.pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .with_context(|| format!("the dashboard has no object at `{parent}`"))?
        .insert(key.to_owned(), value);
    Ok(copy)
}

/// Whether the files match, and the script's output.
fn judge(python: &Path, files: &[PathBuf]) -> Result<(bool, String)> {
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .args(files)
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok((true, said)),
        Some(1) if !said.is_empty() => Ok((false, said)),
        _ => bail!(
            "the check itself failed: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_place_in_the_boards() {
        for file in board::files().unwrap() {
            let text = fs::read_to_string(&file).unwrap();
            let whole: Value = serde_json::from_str(&text).unwrap();
            for (place, value, _) in faults() {
                assert_ne!(with_fault(&text, place, value).unwrap(), whole, "{place}");
            }
        }
    }

    #[test]
    fn a_fault_without_a_place_is_an_error() {
        assert!(with_fault("{}", "/panels/1/type", json!(1)).is_err());
        assert!(with_fault("{", "/a", json!(1)).is_err());
    }
}
