//! Files that a guest sends: stores them, and checks expositions.

use std::{
    fs,
    io::Write as _,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::host::{paths, prometheus_tools};

/// Stores a guest's file under `folder`. A name that leads out of it is refused.
pub(crate) fn store(folder: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let inside = Path::new(name)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if name.is_empty() || !inside {
        bail!("the guest sent a file with the name `{name}`, which is not a relative path");
    }
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Whether the guest's file is an exposition.
pub(crate) fn is_exposition(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "prom")
}

/// Checks an exposition with promtool; returns its complaints.
pub(crate) fn lint(exposition: &str) -> Result<Option<String>> {
    let mut promtool = Command::new(prometheus_tools::path("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start promtool")?;
    let mut input = promtool.stdin.take().context("promtool has no input")?;
    input
        .write_all(exposition.as_bytes())
        .context("cannot write to promtool")?;
    drop(input);
    let output = promtool
        .wait_with_output()
        .context("cannot wait for promtool")?;
    let mut complaint = String::from_utf8_lossy(&output.stdout).into_owned();
    complaint.push_str(&String::from_utf8_lossy(&output.stderr));
    if output.status.success() && complaint.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(format!("{} {}", output.status, complaint.trim())))
}

/// Compares a stored `golden/NAME` with `tests/golden/NAME` and returns the difference; with
/// `bless`, replaces the latter. Other files are not compared.
pub(crate) fn compare_golden(name: &str, stored: &Path, bless: bool) -> Result<Option<String>> {
    let Ok(relative) = Path::new(name).strip_prefix("golden") else {
        return Ok(None);
    };
    let golden = paths::root()?.join("tests/golden").join(relative);
    if bless {
        if let Some(parent) = golden.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::copy(stored, &golden).with_context(|| format!("cannot write {}", golden.display()))?;
        return Ok(None);
    }
    if !golden.is_file() {
        return Ok(Some(format!(
            "there is no {}; `cargo xtask test --bless` writes it",
            golden.display()
        )));
    }
    let output = Command::new("diff")
        .arg("--unified")
        .args([&golden, stored])
        .output()
        .context("cannot start `diff`")?;
    if output.status.success() {
        return Ok(None);
    }
    Ok(Some(format!(
        "differs from {}; `cargo xtask test --bless` takes the new text:\n{}{}",
        golden.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        let folder = Path::new("/nonexistent");
        for name in ["", "../x", "/etc/x", "a/../../x", "./x"] {
            let error = store(folder, name, "").unwrap_err().to_string();
            assert!(error.contains("not a relative path"), "{name}: {error}");
        }
    }

    #[test]
    fn only_prom_files_are_expositions() {
        assert!(is_exposition("golden/stuck.prom"));
        assert!(!is_exposition("bench/overhead.txt"));
    }
}
