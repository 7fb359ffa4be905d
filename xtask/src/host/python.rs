//! Programs from PyPI, each in its own virtual environment.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::host::{packages, paths, process};

/// A file that is created last, when an environment is complete.
const WHOLE: &str = "whole";

/// The folder of an environment's programs, including `python`. The environment is created if the
/// cache has none of this name with `package`, such as `name==1.2.3`.
pub(crate) fn programs(name: &str, package: &str, why: &str) -> Result<PathBuf> {
    let folder = paths::cache()?.join(name);
    let programs = folder.join("bin");
    let whole = folder.join(WHOLE);
    if fs::read_to_string(&whole).is_ok_and(|made_of| made_of == package) {
        return Ok(programs);
    }
    packages::install(&["python3-venv"], why)?;
    eprintln!(
        "==> installing with pip: {package}, into {} ({why})",
        folder.display()
    );
    make(&folder, &programs, package)?;
    fs::write(&whole, package).with_context(|| format!("cannot write {}", whole.display()))?;
    Ok(programs)
}

fn make(folder: &Path, programs: &Path, package: &str) -> Result<()> {
    process::run(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder),
    )?;
    process::run(
        Command::new(programs.join("python"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--only-binary=:all:"])
            .arg(package),
    )
}
