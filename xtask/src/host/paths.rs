//! Paths: the repository, its build folder, and the cache shared by all clones.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The variable that sets another cache folder than the default.
const CACHE_VARIABLE: &str = "LIVEPATCH_MONITOR_CACHE";

pub(crate) fn root() -> Result<PathBuf> {
    // `cargo run` says where the package is now; the path of the build would be
    // wrong once a checkout is moved.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .parent()
        .map(Path::to_path_buf)
        .with_context(|| format!("{} has no parent folder", package.display()))
}

pub(crate) fn target() -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(path) => std::path::absolute(path).context("CARGO_TARGET_DIR"),
        None => Ok(root()?.join("target")),
    }
}

/// The cache, for what is slow to fetch or build and the same for every clone.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(path) = env::var_os(CACHE_VARIABLE) {
        return std::path::absolute(path).context(CACHE_VARIABLE);
    }
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(
            env::var_os("HOME")
                .with_context(|| format!("HOME is not set; set it or {CACHE_VARIABLE}"))?,
        )
        .join(".cache"),
    };
    Ok(base.join("livepatch-monitor"))
}

/// The entries of a folder, sorted.
pub(crate) fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let problem = || format!("cannot read {}", folder.display());
    let mut paths = fs::read_dir(folder)
        .with_context(problem)?
        .map(|entry| Ok(entry.with_context(problem)?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

/// Creates a folder, or empties it.
pub(crate) fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
