//! Programs of this machine that are copied into a VM, with the libraries they need.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::host::process;

/// A file of this machine, and its place in the VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostFile {
    /// The path in the VM.
    pub(crate) guest: String,
    /// Path of the file on the host.
    pub(crate) host: PathBuf,
}

/// A program, at the path `guest` in the VM, and the shared libraries that `ldd` lists.
pub(crate) fn program(host: &Path, guest: &str) -> Result<Vec<HostFile>> {
    let mut files = vec![HostFile {
        guest: guest.to_owned(),
        host: host.to_path_buf(),
    }];
    // `ldd` fails on a static program, which needs nothing.
    let listing = process::output(Command::new("ldd").arg(host)).unwrap_or_default();
    for library in libraries(&listing) {
        files.push(HostFile {
            guest: library.to_owned(),
            host: PathBuf::from(library),
        });
    }
    Ok(files)
}

/// Programs found on PATH, each as `/bin/NAME`, with their libraries, without duplicates.
pub(crate) fn programs(names: &[&str]) -> Result<Vec<HostFile>> {
    let mut files: Vec<HostFile> = Vec::new();
    for name in names {
        let host = process::find_program(name)
            .with_context(|| format!("no program `{name}` on this machine's PATH"))?;
        merge(&mut files, program(&host, &format!("/bin/{name}"))?);
    }
    Ok(files)
}

/// Adds the files whose path in the VM is not taken yet.
pub(crate) fn merge(files: &mut Vec<HostFile>, more: Vec<HostFile>) {
    for file in more {
        if files.iter().all(|known| known.guest != file.guest) {
            files.push(file);
        }
    }
}

/// The absolute paths in the output of `ldd`: after `=>`, or the loader itself.
fn libraries(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| {
        let place = line.split_once("=>").map_or(line, |(_, place)| place);
        place
            .split_whitespace()
            .next()
            .filter(|path| path.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_absolute_paths() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            libraries(listing).collect::<Vec<_>>(),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }
}
