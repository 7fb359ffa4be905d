//! Disks that are full.

use std::{ffi::CString, fs, fs::File, io::Write as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};

/// Mounts a file system of one MiB.
pub(super) fn mount_small(point: &str) -> Result<()> {
    fs::create_dir_all(point).with_context(|| format!("cannot make {point}"))?;
    let options = CString::new("size=1m,mode=0755").context("options")?;
    mount(
        "tmpfs",
        point,
        "tmpfs",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .with_context(|| format!("cannot mount {point}"))
}

/// Fills the file system of a directory to its last byte.
pub(super) fn fill(directory: &str) -> Result<()> {
    let path = filler(directory);
    let mut file = File::create(&path).with_context(|| format!("cannot make {path}"))?;
    for size in [1 << 20, 4096, 1] {
        let piece = vec![b'x'; size];
        while file.write_all(&piece).is_ok() {}
    }
    // Delayed allocation.
    file.sync_all()
        .with_context(|| format!("cannot write {path}"))?;
    let more = format!("{directory}/more");
    ensure!(fs::write(&more, "x").is_err(), "{directory} is not full");
    if Path::new(&more).exists() {
        fs::remove_file(&more).with_context(|| format!("cannot remove {more}"))?;
    }
    Ok(())
}

/// Gives the space back.
pub(super) fn free(directory: &str) -> Result<()> {
    let path = filler(directory);
    fs::remove_file(&path).with_context(|| format!("cannot remove {path}"))
}

fn filler(directory: &str) -> String {
    format!("{directory}/filler")
}
