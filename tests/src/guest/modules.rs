//! Loading and unloading the modules of the scenarios.

use std::{
    ffi::CString,
    fs::{self, File},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    system::{delete_module, finit_module},
};

use crate::{eventually::eventually, files};

/// `O_NONBLOCK`: fail at once if the module is still in use (delete_module(2)).
const NON_BLOCKING: i32 = 0o4000;

/// A module's reference is dropped by deferred work some time after its livepatch is freed
/// (klp_free_patch_work_fn, kernel/livepatch/core.c).
const UNLOAD: Duration = Duration::from_secs(15);

/// Where the host puts the kernel's own modules.
const KERNEL_MODULES: &str = "/modules/kernel";

/// Loads those of the kernel's own modules that the host wants loaded from the start.
pub(crate) fn load_kernel_modules() -> Result<()> {
    for name in files::read(&format!("{KERNEL_MODULES}/load-order"))?.lines() {
        load_file(&format!("{KERNEL_MODULES}/{name}.ko"))?;
    }
    Ok(())
}

/// Loads one of the kernel's own modules.
pub(crate) fn load_kernel_module(name: &str, parameters: &str) -> Result<()> {
    load_with(&format!("{KERNEL_MODULES}/{name}.ko"), parameters)
}

/// Loads a module from a file, with parameters for it.
pub(crate) fn load_with(path: &str, parameters: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    let c_parameters = CString::new(parameters).context("parameters with a NUL")?;
    finit_module(&file, &c_parameters, 0)
        .with_context(|| format!("cannot load {path} with `{parameters}`"))
}

pub(crate) fn load(name: &str) -> Result<()> {
    load_file(&format!("/modules/{name}.ko"))
}

/// Loads a module from a file.
pub(crate) fn load_file(path: &str) -> Result<()> {
    try_load(path)?.with_context(|| format!("cannot load {path}; the kernel's log says why"))
}

/// Loads /modules/NAME.ko under another name of the same length.
pub(crate) fn load_renamed(name: &str, as_name: &str) -> Result<()> {
    const COPY: &str = "/tmp/renamed.ko";
    ensure!(
        name.len() == as_name.len(),
        "{name} and {as_name} are not of one length"
    );
    let path = format!("/modules/{name}.ko");
    let mut bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let (from, to) = (name.as_bytes(), as_name.as_bytes());
    let mut at = 0;
    while let Some(window) = bytes.get_mut(at..at + from.len()) {
        if window == from {
            window.copy_from_slice(to);
        }
        at += 1;
    }
    fs::write(COPY, bytes).with_context(|| format!("cannot write {COPY}"))?;
    load_file(COPY)
}

/// Loads /modules/NAME.ko, which the kernel must refuse with `expected`.
pub(crate) fn expect_refused(name: &str, expected: Errno) -> Result<()> {
    match try_load(&format!("/modules/{name}.ko"))? {
        Err(errno) if errno == expected => Ok(()),
        Err(errno) => anyhow::bail!("loading {name} failed with {errno}, not with {expected}"),
        Ok(()) => anyhow::bail!("{name} was loaded, but should have been refused: {expected}"),
    }
}

fn try_load(path: &str) -> Result<rustix::io::Result<()>> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    Ok(finit_module(&file, c"", 0))
}

/// Unloads a module, waiting until it is no longer in use.
pub(crate) fn unload(name: &str) -> Result<()> {
    eventually(UNLOAD, || try_unload(name))
}

/// Unloads a module that is not in use.
pub(crate) fn try_unload(name: &str) -> Result<()> {
    let c_name = CString::new(name).context("a module's name with a NUL")?;
    delete_module(&c_name, NON_BLOCKING).with_context(|| format!("cannot unload {name}"))
}

/// The loaded modules that belong to the scenarios, the newest first.
pub(crate) fn loaded() -> Result<Vec<String>> {
    Ok(files::read("/proc/modules")?
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("lpm_"))
        .map(str::to_owned)
        .collect())
}
