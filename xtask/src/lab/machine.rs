//! Prepares a machine for a kernel: packages, kernel, modules, programs and file system.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    build::guest_binaries::Programs,
    host::paths,
    lab::{
        initramfs::{self, Extras},
        kernels::{self, Kernel, Line},
    },
};

/// A kernel, its file system, and the folder for the results.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) kernel: Kernel,
    pub(crate) initramfs: PathBuf,
    /// Where this run's logs and artifacts go; empty at the start.
    pub(crate) folder: PathBuf,
}

impl Prepared {
    /// The file for the kernel log.
    pub(crate) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }
}

/// Prepares everything that a run needs, under `target/PURPOSE/KERNEL`.
pub(crate) fn prepare(
    line: &Line,
    programs: &Programs,
    purpose: &str,
    extras: Extras<'_>,
) -> Result<Prepared> {
    let kernel = kernels::prepare(line)?;
    let folder = paths::target()?.join(purpose).join(line.name);
    paths::empty(&folder)?;
    let initramfs = folder.join("initramfs.cpio");
    initramfs::write(&initramfs, &kernel, programs, extras)?;
    Ok(Prepared {
        kernel,
        initramfs,
        folder,
    })
}
