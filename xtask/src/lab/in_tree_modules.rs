//! The modules that come with a kernel. Their dependencies differ between kernels, so they are read
//! from each module's file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

use crate::lab::kernels::Kernel;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InTreeModule {
    pub(crate) name: String,
    /// Content of the module's file, decompressed.
    pub(crate) content: Vec<u8>,
}

/// These in-tree modules and the modules they need, in load order. Built-in ones are left out.
pub(crate) fn with_needed(kernel: &Kernel, names: &[&str]) -> Result<Vec<InTreeModule>> {
    in_load_order(names, |name| {
        let Some(content) = in_tree_module(kernel, name)? else {
            return Ok(None);
        };
        let needed = needed(&content).with_context(|| format!("cannot read the module {name}"))?;
        Ok(Some((content, needed)))
    })
}

/// A module's file and the modules it needs; `None` if it is built in.
type Found = Option<(Vec<u8>, Vec<String>)>;

fn in_load_order(
    names: &[&str],
    read: impl Fn(&str) -> Result<Found>,
) -> Result<Vec<InTreeModule>> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for name in names {
        add(name, &read, &mut seen, &mut found)?;
    }
    Ok(found)
}

fn add(
    name: &str,
    read: &impl Fn(&str) -> Result<Found>,
    seen: &mut Vec<String>,
    found: &mut Vec<InTreeModule>,
) -> Result<()> {
    // Marked before it is read, so that two modules that need each other do not loop.
    if seen.iter().any(|other| other == name) {
        return Ok(());
    }
    seen.push(name.to_owned());
    let Some((content, needed)) = read(name)? else {
        return Ok(());
    };
    for needed in needed {
        add(&needed, read, seen, found)?;
    }
    found.push(InTreeModule {
        name: name.to_owned(),
        content,
    });
    Ok(())
}

/// The modules that a module needs: `depends=a,b` in its section `.modinfo` (scripts/mod/modpost.c,
/// add_depends).
fn needed(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file
        .section_by_name(".modinfo")
        .context("no section .modinfo")?;
    Ok(depends(section.data()?))
}

fn depends(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(b"depends="))
        .flat_map(|names| names.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// An in-tree module, decompressed; `None` if it is built in.
fn in_tree_module(kernel: &Kernel, name: &str) -> Result<Option<Vec<u8>>> {
    let folder = kernel.tree.join("usr/lib/modules").join(&kernel.release);
    let Some(path) = find(&folder.join("kernel"), name)? else {
        let list = folder.join("modules.builtin");
        let built_in =
            fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        if lists(&built_in, name) {
            return Ok(None);
        }
        bail!(
            "{name} is neither a module under {} nor built in",
            folder.display()
        );
    };
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(&path)
            .output()
            .context("cannot start `xz`")?;
        if !output.status.success() {
            bail!("cannot decompress {}", path.display());
        }
        return Ok(Some(output.stdout));
    }
    fs::read(&path)
        .map(Some)
        .with_context(|| format!("cannot read {}", path.display()))
}

/// Whether a list of paths, one per line, contains the module's.
fn lists(paths: &str, name: &str) -> bool {
    paths
        .lines()
        .filter_map(|path| path.rsplit('/').next())
        .any(|file| is_of(file, name))
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if is_of(&entry.file_name().to_string_lossy(), name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a file is the module's. File names may have hyphens in place of underscores.
fn is_of(file: &str, name: &str) -> bool {
    [".ko", ".ko.xz"]
        .iter()
        .filter_map(|suffix| file.strip_suffix(suffix))
        .any(|stem| stem.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_module_is_found_by_its_whole_name() {
        let list = "kernel/drivers/virtio/virtio_ring.ko\nkernel/drivers/virtio/virtio.ko\n";
        assert!(lists(list, "virtio"));
        assert!(!lists(list, "ring"));
        assert!(!lists("", "virtio"));
    }

    #[test]
    fn a_file_is_known_compressed_and_with_hyphens() {
        assert!(is_of("crc32c-intel.ko.xz", "crc32c_intel"));
        assert!(is_of("ext4.ko", "ext4"));
        assert!(!is_of("ext4.ko.xz.bak", "ext4"));
        assert!(!is_of("ext4", "ext4"));
    }

    #[test]
    fn needs_are_those_of_the_one_entry() {
        assert_eq!(
            depends(b"license=GPL\0depends=jbd2,mbcache\0softdep=pre: crc32c\0"),
            ["jbd2", "mbcache"]
        );
        assert!(depends(b"depends=\0name=x\0").is_empty());
        assert!(depends(b"").is_empty());
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(needed(b"text").is_err());
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let read = |name: &str| {
            Ok(match name {
                "disk" => Some((vec![1], vec!["ring".to_owned(), "crc".to_owned()])),
                "net" => Some((vec![2], vec!["ring".to_owned(), "net".to_owned()])),
                "ring" => Some((vec![3], vec![])),
                _ => None,
            })
        };
        let names: Vec<String> = in_load_order(&["net", "disk", "net"], read)
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        assert_eq!(names, ["ring", "net", "disk"]);
    }
}
