//! Loaded modules that belong to livepatching without being a patch in force: livepatches that were
//! disabled or replaced, and the modules of other mechanisms.
//!
//! A module that is a livepatch has the taint `K` in /sys/module/NAME/taint (`TAINT_LIVEPATCH`;
//! kernel/module/livepatch.c and before it kernel/module.c, 4.10 to 7.2). Once it is disabled or
//! replaced its directory in /sys/kernel/livepatch is removed (klp_free_patch_start, 5.1 and
//! later), and the module stays until it is unloaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use super::sysfs;
use crate::bounded_read;
use livepatch_core::patch::{Beside, Mechanism, PatchSet};

#[cfg(test)]
mod tests;

/// Most modules that are examined; a host has some hundreds, built-in ones included.
const MAX_MODULES: usize = 16_384;

/// Reads them, and caches for each module what cannot change while it is loaded, so that reading
/// again costs one listing of a directory.
#[derive(Debug, Default)]
pub struct LiveModules {
    is_livepatch: BTreeMap<String, bool>,
}

impl LiveModules {
    /// What is loaded in addition to `patches`, and what could not be read.
    pub fn beside(&mut self, root: &Path, patches: &PatchSet) -> (Beside, Vec<String>) {
        let directory = root.join("module");
        let mut found = Beside::default();
        let mut problems = Vec::new();
        let names = match names(&directory) {
            Ok(names) => names,
            // A kernel without modules.
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                problems.push(format!(
                    "cannot read {}: {error}; livepatches that are loaded without being in force \
                     are not shown (see --path.sysfs)",
                    directory.display()
                ));
                return (found, problems);
            }
        };
        self.is_livepatch.retain(|name, _| names.contains(name));
        let mut mechanisms: BTreeSet<Mechanism> = names
            .iter()
            .filter(|name| is_loadable(&directory.join(name)))
            .filter_map(|name| Mechanism::of_module(name))
            .collect();
        let of_kpatch_core = of_kpatch_core(root);
        if of_kpatch_core.is_some() {
            mechanisms.insert(Mechanism::KpatchCore);
        }
        let of_kpatch_core = of_kpatch_core.unwrap_or_default();
        for name in names {
            let is_other = Mechanism::of_module(&name).is_some() || of_kpatch_core.contains(&name);
            if is_other || patches.get(&name).is_some() {
                continue;
            }
            let is_livepatch = *self
                .is_livepatch
                .entry(name.clone())
                .or_insert_with(|| has_taint(&directory.join(&name)));
            // It may have been loaded after `patches` was read.
            let is_patch = || root.join("kernel/livepatch").join(&name).exists();
            if is_livepatch && !is_patch() && !sysfs::is_loading(root, &name) {
                found.left_over.push(name);
            }
        }
        found.mechanisms = mechanisms.into_iter().collect();
        (found, problems)
    }
}

fn names(directory: &Path) -> io::Result<BTreeSet<String>> {
    let entries = fs::read_dir(directory)?.take(MAX_MODULES);
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Built-in modules have a directory as well, without a state.
fn is_loadable(module: &Path) -> bool {
    module.join("initstate").exists()
}

fn has_taint(module: &Path) -> bool {
    bounded_read::read_text(&module.join("taint"), bounded_read::VALUE)
        .is_ok_and(|taint| taint.trim().contains('K'))
}

/// The patches of the old core: /sys/kernel/kpatch/NAME, or /sys/kernel/kpatch/patches/NAME before
/// its 0.3; `None` if that core is not loaded.
fn of_kpatch_core(root: &Path) -> Option<BTreeSet<String>> {
    let directory = root.join("kernel/kpatch");
    let mut patches = names(&directory).ok()?;
    patches.extend(names(&directory.join("patches")).unwrap_or_default());
    Some(patches)
}
