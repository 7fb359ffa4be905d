//! Prometheus's and Alertmanager's programs, which the checks use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::host::{packages, paths, process};

/// A program, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// The programs. Their packages would start services when installed, so they are only unpacked.
const TOOLS: &[Tool] = &[
    Tool {
        program: "promtool",
        package: "prometheus",
    },
    Tool {
        program: "prometheus",
        package: "prometheus",
    },
    Tool {
        program: "amtool",
        package: "prometheus-alertmanager",
    },
    Tool {
        program: "prometheus-alertmanager",
        package: "prometheus-alertmanager",
    },
    Tool {
        program: "prometheus-node-exporter",
        package: "prometheus-node-exporter",
    },
];

/// The web files of Debian's Prometheus, and where they go.
const PAGES: &[&str] = &[
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
];
const PAGES_FOLDER: &str = "usr/share/javascript";

/// Where Debian's Alertmanager looks for its templates, independent of its own location.
const TEMPLATES: &str = "usr/share/prometheus/alertmanager";

/// The folder of the unpacked tools.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(paths::cache()?.join("tools"))
}

/// Makes all tools available.
pub(crate) fn prepare() -> Result<()> {
    let folder = folder()?;
    let has_pages = prometheus_pages()?.is_none() || folder.join(PAGES_FOLDER).exists();
    if has_pages
        && TOOLS
            .iter()
            .all(|tool| locate(tool.program, &folder).is_some())
    {
        return place_templates(&folder);
    }
    let mut packages: Vec<&str> = TOOLS
        .iter()
        .filter(|tool| process::find_program(tool.program).is_none())
        .map(|tool| tool.package)
        .collect();
    packages.dedup();
    if packages.contains(&"prometheus") {
        packages.extend(PAGES);
    }
    // Under another name until it is complete, so that an interrupted run starts over.
    let partial = folder.with_extension("partial");
    for path in [&partial, &folder] {
        if path.exists() {
            fs::remove_dir_all(path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    packages::extract(
        &packages,
        &partial,
        "to check metrics, rules and alerts; installing it would start its service",
    )?;
    fs::rename(&partial, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    place_templates(&folder)
}

/// Puts the templates of the unpacked Alertmanager where it looks for them.
fn place_templates(folder: &Path) -> Result<()> {
    let (from, to) = (folder.join(TEMPLATES), Path::new("/").join(TEMPLATES));
    if to.exists() || !from.exists() {
        return Ok(());
    }
    eprintln!("==> putting Alertmanager's templates into {}", to.display());
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// A tool's path, after [`prepare`].
pub(crate) fn path(program: &str) -> Result<PathBuf> {
    let folder = folder()?;
    locate(program, &folder).with_context(|| {
        format!(
            "{program} is neither on PATH nor under {}",
            folder.display()
        )
    })
}

/// The web files of Debian's Prometheus, if it was unpacked; other builds have them inside.
pub(crate) fn prometheus_pages() -> Result<Option<PathBuf>> {
    let unpacked = process::find_program("prometheus").is_none();
    Ok(unpacked.then_some(folder()?.join("usr/share/prometheus/web")))
}

/// PATH with the tools' folder appended.
pub(crate) fn search_path() -> Result<std::ffi::OsString> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    folders.push(binaries(&folder()?));
    std::env::join_paths(folders).context("PATH")
}

fn binaries(folder: &Path) -> PathBuf {
    folder.join("usr/bin")
}

fn locate(program: &str, folder: &Path) -> Option<PathBuf> {
    process::find_program(program).or_else(|| {
        let path = binaries(folder).join(program);
        path.is_file().then_some(path)
    })
}
