//! Checks the Kubernetes manifest against the schemas that Kubernetes publishes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::{paths, python};

/// The validator; its version is that of Kubernetes.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";

/// Faults that the validator must find, as a check of the check: a text of the manifest, its
/// replacement, and a part of the message.
const FAULTS: [(&str, &str, &str); 2] = [
    ("hostPID:", "hostPid:", "'hostPid' was unexpected"),
    ("containerPort: 9969", "containerPort: metrics", "integer"),
];

pub(super) fn path() -> Result<PathBuf> {
    Ok(paths::root()?.join("monitor/packaging/kubernetes/daemonset.yaml"))
}

pub(super) fn check() -> Result<()> {
    let programs = python::programs(
        "kubernetes-validate",
        VALIDATOR,
        "to check the Kubernetes manifest",
    )?;
    let program = programs.join("kubernetes-validate");
    let path = path()?;
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let broken = paths::target()?.join("broken-manifest.yaml");
    for (word, fault, said) in FAULTS {
        ensure!(
            text.contains(word),
            "{} has no `{word}` any more",
            path.display()
        );
        fs::write(&broken, text.replacen(word, fault, 1))
            .with_context(|| format!("cannot write {}", broken.display()))?;
        let (fits, output) = judge(&program, &broken)?;
        if fits || !output.contains(said) {
            bail!("a manifest with `{fault}` is not found out; the validator said:\n{output}");
        }
    }
    let (fits, output) = judge(&program, &path)?;
    ensure!(fits, "{output}");
    Ok(())
}

/// Whether a manifest is valid, and the validator's output.
fn judge(program: &Path, manifest: &Path) -> Result<(bool, String)> {
    let output = Command::new(program)
        .arg("--strict")
        .arg(manifest)
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}
