//! Livepatches that should be in force on this kernel, and those that are.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use object::{Object as _, ObjectSection as _};

use super::stamp::Cached;
use crate::bounded_read;
use livepatch_core::patch::PatchSet;

#[cfg(test)]
mod tests;

/// Most bytes read of a module's file; the largest livepatches have a few MiB.
const MAX_MODULE: u64 = 64 << 20;
/// Most files read in one directory.
const MAX_FILES: usize = 4096;

/// Where kpatch keeps patches for a kernel (`kpatch install`, kpatch/kpatch 0.9; the
/// distributions' packages, below /usr/lib).
const KPATCH: [&str; 2] = ["var/lib/kpatch", "usr/lib/kpatch"];

/// The state of an expected livepatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Loaded and enabled, from the build on disk as far as that is known.
    InForce,
    /// Not loaded.
    Missing,
    /// Loaded but not enabled.
    Disabled,
    /// Loaded from another build than the one on disk.
    OtherBuild {
        /// The fingerprint (srcversion) on disk.
        disk: String,
        /// The one in the kernel.
        loaded: String,
    },
}

impl State {
    /// What is wrong, as the predicate of a sentence about the patch; `None` if it is in force.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::InForce => None,
            Self::Missing => Some("should be in force and is not loaded".to_owned()),
            Self::Disabled => Some("should be in force and is disabled".to_owned()),
            Self::OtherBuild { disk, loaded } => Some(format!(
                "is in force from another build ({loaded}) than the one on disk ({disk})"
            )),
        }
    }
}

/// A livepatch that is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub patch: String,
    /// Its file, unless it is expected by its name only.
    pub file: Option<PathBuf>,
    /// Its state.
    pub state: State,
}

/// A module's file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OnDisk {
    file: PathBuf,
    /// `None` if it is unknown, because the file is compressed or not a module.
    srcversion: Option<String>,
}

/// The expected livepatches and the directories that define them.
#[derive(Debug)]
pub struct Expectations {
    directories: Vec<PathBuf>,
    names: Vec<String>,
    on_disk: Cached<(BTreeMap<String, OnDisk>, Vec<String>)>,
}

impl Expectations {
    /// Expects the patches that are installed for this kernel under `root` and in further
    /// directories, and those given by name. A directory may contain the modules, or a directory of
    /// modules for each release.
    #[must_use]
    pub fn new(root: &Path, release: &str, directories: &[PathBuf], names: &[String]) -> Self {
        let installed = KPATCH.map(|directory| root.join(directory).join(release));
        let further = directories.iter().flat_map(|directory| {
            let of_release = directory.join(release);
            [directory.clone(), of_release]
        });
        Self {
            directories: installed.into_iter().chain(further).collect(),
            names: names.iter().map(|name| module_name(name)).collect(),
            on_disk: Cached::default(),
        }
    }

    /// The directories that are read, whether or not they exist.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Compares the loaded patches with the expected ones. Also returns what could not be read.
    pub fn compare(&mut self, loaded: &PatchSet) -> (Vec<Expected>, Vec<String>) {
        let (files, unreadable) = modules(&self.directories);
        let paths = files.iter().map(PathBuf::as_path);
        let (on_disk, broken) = self.on_disk.get(paths, || read(&files));
        let mut expected: BTreeMap<&str, Option<&OnDisk>> = on_disk
            .iter()
            .map(|(name, found)| (name.as_str(), Some(found)))
            .collect();
        for name in &self.names {
            expected.entry(name).or_default();
        }
        let compared = expected.into_iter().map(|(patch, found)| Expected {
            patch: patch.to_owned(),
            file: found.map(|found| found.file.clone()),
            state: state(patch, found, loaded),
        });
        (compared.collect(), [unreadable.as_slice(), broken].concat())
    }
}

fn state(patch: &str, found: Option<&OnDisk>, loaded: &PatchSet) -> State {
    let Some(known) = loaded.get(patch) else {
        return State::Missing;
    };
    if known.enabled == Some(false) {
        return State::Disabled;
    }
    let disk = found.and_then(|found| found.srcversion.as_ref());
    match disk.zip(known.srcversion.as_ref()) {
        Some((disk, loaded)) if disk != loaded => State::OtherBuild {
            disk: disk.clone(),
            loaded: loaded.clone(),
        },
        _ => State::InForce,
    }
}

/// The module name of a file: `_` replaces each `-` (scripts/Makefile.lib).
fn module_name(file: &str) -> String {
    file.replace('-', "_")
}

/// The modules' files, and the directories that cannot be read.
fn modules(directories: &[PathBuf]) -> (Vec<PathBuf>, Vec<String>) {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for directory in directories {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                problems.push(format!("cannot read {}: {error}", directory.display()));
                continue;
            }
        };
        let mut found: Vec<_> = entries
            .flatten()
            .filter(|entry| stem(&entry.file_name().to_string_lossy()).is_some())
            .map(|entry| entry.path())
            .take(MAX_FILES)
            .collect();
        found.sort();
        files.append(&mut found);
    }
    (files, problems)
}

fn read(files: &[PathBuf]) -> (BTreeMap<String, OnDisk>, Vec<String>) {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for file in files {
        let name = file.file_name().map(|name| name.to_string_lossy());
        let Some((stem, compressed)) = name.as_deref().and_then(stem) else {
            continue;
        };
        let (mut name, mut srcversion) = (module_name(stem), None);
        if !compressed {
            match information(file) {
                Ok(information) => {
                    name = information.get("name").cloned().unwrap_or(name);
                    srcversion = information.get("srcversion").cloned();
                }
                Err(reason) => {
                    problems.push(format!(
                        "{} is not a kernel module: {reason}",
                        file.display()
                    ));
                }
            }
        }
        let file = file.clone();
        found.insert(name, OnDisk { file, srcversion });
    }
    (found, problems)
}

/// The name without `.ko`, and whether the file is compressed.
fn stem(name: &str) -> Option<(&str, bool)> {
    if let Some(stem) = name.strip_suffix(".ko") {
        return Some((stem, false));
    }
    let packed = [".ko.xz", ".ko.gz", ".ko.zst"];
    let stem = packed.iter().find_map(|end| name.strip_suffix(end))?;
    Some((stem, true))
}

/// The `key=value` strings of section `.modinfo` (include/linux/moduleparam.h).
fn information(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let bytes = bounded_read::read(path, MAX_MODULE).map_err(|error| error.to_string())?;
    let module = object::File::parse(bytes.as_slice()).map_err(|error| error.to_string())?;
    let section = module
        .section_by_name(".modinfo")
        .ok_or("it has no section .modinfo")?;
    let data = section.data().map_err(|error| error.to_string())?;
    let strings = data.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    Ok(strings
        .filter_map(|text| {
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect())
}
