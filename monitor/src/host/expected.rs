//! Livepatches that should be in force on this kernel, and those that are.
//!
//! Of several installed versions of one cumulative livepatch only the newest is expected:
//! it replaces the older ones, which stay on disk. What the vendors do:
//!
//! - kpatch (0.9): `kpatch install` copies a module to /var/lib/kpatch/RELEASE and leaves
//!   the ones that are there; `kpatch load --all` loads every `.ko` of that directory, so
//!   that after a boot the last one is in force. kpatch-build's modules replace all others
//!   unless they are built with `--non-replace`.
//! - Red Hat's kpatch-patch packages install below /usr/lib/kpatch/RELEASE.
//! - SUSE's kernel-livepatch packages install /lib/modules/RELEASE/livepatch/livepatch-N_M.ko
//!   (kernel-livepatch.spec, `INSTALL_MOD_DIR=livepatch`); zypper may keep several versions.
//! - Azure Linux installs below /usr/lib/livepatching/RELEASE.
//! - Canonical's client keeps its modules to itself: nothing is expected from disk.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use object::{Object as _, ObjectSection as _};

use super::stamp::Cached;
use crate::bounded_read;
use livepatch_core::{
    patch::{Beside, Patch, PatchSet},
    patch_version::is_newer,
    preflight::{
        module::{KlpLayout, Module},
        unpack::unpack,
    },
};

#[cfg(test)]
mod tests;

/// Most bytes read of a module's file; the largest livepatches have a few MiB.
const MAX_MODULE: u64 = 64 << 20;
/// Most CVEs kept of a module; cumulative patches name some hundreds.
const MAX_CVES: usize = 4096;
/// Most files read in one directory.
const MAX_FILES: usize = 4096;

/// Where a directory named after the kernel's release holds livepatches for it.
const BY_RELEASE: [&str; 3] = ["var/lib/kpatch", "usr/lib/kpatch", "usr/lib/livepatching"];

/// The state of an expected livepatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Loaded and enabled, from the build on disk as far as that is known.
    InForce,
    /// Not loaded, because a newer version of it took or should take its place.
    Superseded {
        /// The newer patch, by its module's name.
        by: String,
        /// Whether that is in force; otherwise it is expected itself.
        in_force: bool,
    },
    /// It should be in force and is not loaded.
    Missing,
    /// Its module is loaded, and it was disabled or replaced. `by` is the patch that
    /// replaces all others and is not a newer version of it.
    NotInForce {
        /// The patch that may have replaced it.
        by: Option<String>,
    },
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
    /// Whether the host lacks the patch.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        !matches!(self, Self::InForce | Self::Superseded { .. })
    }

    /// Its state, as the predicate of a sentence about the patch.
    #[must_use]
    pub fn described(&self) -> String {
        match self {
            Self::InForce => "is in force".to_owned(),
            Self::Superseded { by, in_force: true } => {
                format!("is superseded by {by}, which is in force")
            }
            Self::Superseded { by, .. } => {
                format!("is superseded by {by}, which is installed and should be in force")
            }
            _ => self.problem().unwrap_or_default(),
        }
    }

    /// What is wrong, as the predicate of a sentence about the patch; `None` if the host does
    /// not lack it.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::InForce | Self::Superseded { .. } => None,
            Self::NotInForce { by: None } => Some(
                "should be in force; its module is loaded, and it was disabled or replaced"
                    .to_owned(),
            ),
            Self::NotInForce { by: Some(by) } => Some(format!(
                "should be in force; its module is loaded, but {by} replaces all others and is \
                 not a newer version of it"
            )),
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
    /// Name of the livepatch, which is its module's.
    pub patch: String,
    /// Its file, unless it is expected by its name only.
    pub file: Option<PathBuf>,
    /// Whether it is in force, and why not.
    pub state: State,
    /// The fingerprint of its file; `None` if it has none or cannot be read.
    pub srcversion: Option<String>,
    /// The CVEs that its file names in `.modinfo`, such as in its description.
    pub cves: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OnDisk {
    file: PathBuf,
    /// `None` if it is unknown, because the file cannot be read or is not a module.
    srcversion: Option<String>,
    /// Whether it replaces all others; `None` if its code decides that.
    replace: Option<bool>,
    /// The CVEs that `.modinfo` names.
    cves: Vec<String>,
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
        let installed = BY_RELEASE.map(|directory| root.join(directory).join(release));
        let of_suse = root.join("lib/modules").join(release).join("livepatch");
        let further = directories.iter().flat_map(|directory| {
            let of_release = directory.join(release);
            [directory.clone(), of_release]
        });
        Self {
            directories: installed
                .into_iter()
                .chain([of_suse])
                .chain(further)
                .collect(),
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
    pub fn compare(&mut self, loaded: &PatchSet, beside: &Beside) -> (Vec<Expected>, Vec<String>) {
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
        let host = Facts {
            loaded,
            beside,
            on_disk,
            names: &self.names,
        };
        let compared = expected.into_iter().map(|(patch, found)| Expected {
            patch: patch.to_owned(),
            file: found.map(|found| found.file.clone()),
            state: host.state(patch, found),
            srcversion: found.and_then(|found| found.srcversion.clone()),
            cves: found.map(|found| found.cves.clone()).unwrap_or_default(),
        });
        (compared.collect(), [unreadable.as_slice(), broken].concat())
    }
}

/// What determines the state of a patch.
struct Facts<'a> {
    loaded: &'a PatchSet,
    beside: &'a Beside,
    on_disk: &'a BTreeMap<String, OnDisk>,
    names: &'a [String],
}

impl Facts<'_> {
    fn state(&self, patch: &str, found: Option<&OnDisk>) -> State {
        let known = self.loaded.get(patch);
        if let Some(known) = known.filter(|known| known.enabled != Some(false)) {
            let disk = found.and_then(|found| found.srcversion.as_ref());
            return match disk.zip(known.srcversion.as_ref()) {
                Some((disk, loaded)) if disk != loaded => State::OtherBuild {
                    disk: disk.clone(),
                    loaded: loaded.clone(),
                },
                _ => State::InForce,
            };
        }
        if let Some((by, in_force)) = self.newer(patch) {
            let by = by.to_owned();
            return State::Superseded { by, in_force };
        }
        if known.is_some() {
            return State::Disabled;
        }
        if self.beside.left_over.iter().any(|name| name == patch) {
            let replacing = self.in_force().find(|other| other.replace == Some(true));
            let by = replacing.map(|other| other.name.clone());
            return State::NotInForce { by };
        }
        State::Missing
    }

    fn in_force(&self) -> impl Iterator<Item = &Patch> {
        let patches = self.loaded.patches.iter();
        patches.filter(|patch| patch.enabled == Some(true))
    }

    /// A newer version of a patch that replaces it, and whether that is in force. Kernels
    /// before 6.11 do not report whether a patch replaces the others, and the code of
    /// kpatch-build's modules decides it: those count as cumulative, as they are unless they
    /// were built otherwise. A patch that is expected by name is expected whatever else is
    /// installed.
    fn newer(&self, patch: &str) -> Option<(&str, bool)> {
        let replaces = |name: &str, loaded: Option<bool>| {
            let on_disk = self.on_disk.get(name).and_then(|found| found.replace);
            loaded.or(on_disk) != Some(false) && is_newer(name, patch)
        };
        let mut in_force = self.in_force();
        if let Some(by) = in_force.find(|other| replaces(&other.name, other.replace)) {
            return Some((&by.name, true));
        }
        if self.names.iter().any(|name| name == patch) {
            return None;
        }
        let reported = |name: &str| self.loaded.get(name).and_then(|patch| patch.replace);
        let installed = self.on_disk.keys();
        let mut installed = installed.filter(|name| replaces(name, reported(name)));
        let first = installed.next()?;
        let newest = installed.fold(
            first,
            |newest, name| {
                if is_newer(name, newest) { name } else { newest }
            },
        );
        Some((newest, false))
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
        let Some(stem) = name.as_deref().and_then(stem) else {
            continue;
        };
        let (mut name, mut srcversion, mut replace) = (module_name(stem), None, None);
        let mut named = Vec::new();
        match contents(file) {
            Ok(bytes) => {
                // A livepatch with damaged structures is still expected.
                let module = Module::parse(&bytes, &KlpLayout::KNOWN).ok();
                replace = module.and_then(|module| module.replace);
                match information(&bytes) {
                    Ok(information) => {
                        name = information.get("name").cloned().unwrap_or(name);
                        srcversion = information.get("srcversion").cloned();
                        named = cves(information.values());
                    }
                    Err(reason) => problems.push(not_a_module(file, &reason)),
                }
            }
            Err(reason) => problems.push(not_a_module(file, &reason)),
        }
        let file = file.clone();
        found.insert(
            name,
            OnDisk {
                file,
                srcversion,
                replace,
                cves: named,
            },
        );
    }
    (found, problems)
}

fn not_a_module(file: &Path, reason: &str) -> String {
    format!("{} is not a kernel module: {reason}", file.display())
}

fn contents(file: &Path) -> Result<Vec<u8>, String> {
    let bytes = bounded_read::read(file, MAX_MODULE).map_err(|error| error.to_string())?;
    unpack(bytes).map_err(|error| error.to_string())
}

/// The name without `.ko`, of a module's file, compressed or not.
fn stem(name: &str) -> Option<&str> {
    let ends = [".ko", ".ko.xz", ".ko.gz", ".ko.zst"];
    ends.iter().find_map(|end| name.strip_suffix(end))
}

/// The CVEs that these texts name, ordered, at most [`MAX_CVES`].
fn cves<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut found = std::collections::BTreeSet::new();
    for text in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        found.extend(words.filter(|word| is_cve(word)).map(str::to_owned));
    }
    found.into_iter().take(MAX_CVES).collect()
}

/// Whether a word is a CVE's number, such as `CVE-2026-12345`.
fn is_cve(word: &str) -> bool {
    let Some((year, number)) = word
        .strip_prefix("CVE-")
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(year) && digits(number) && year.len() == 4 && (4..=19).contains(&number.len())
}

/// The `key=value` strings of section `.modinfo` (include/linux/moduleparam.h).
fn information(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let module = object::File::parse(bytes).map_err(|error| error.to_string())?;
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
