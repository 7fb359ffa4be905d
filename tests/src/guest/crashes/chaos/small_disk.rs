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

/// A file that uses all space of its file system, until it is dropped.
#[derive(Debug)]
pub(super) struct Filler(String);

impl Filler {
    /// Fills the file system of a directory to its last block.
    pub(super) fn fill(directory: &str) -> Result<Self> {
        let filler = Self(path_in(directory));
        let path = &filler.0;
        let mut file = File::create(path).with_context(|| format!("cannot make {path}"))?;
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
        Ok(filler)
    }

    /// Frees the space.
    pub(super) fn free(self) -> Result<()> {
        let path = &self.0;
        fs::remove_file(path).with_context(|| format!("cannot remove {path}"))
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // After a failure the next scenario needs the space. It may already be free.
        let _ = fs::remove_file(&self.0);
    }
}

/// The filler file that an earlier boot left in a directory.
pub(super) fn left_in(directory: &str) -> Filler {
    Filler(path_in(directory))
}

/// On a full disk, fills the rest of a file's last block with empty lines.
pub(super) fn fill_last_block(path: &str) -> Result<()> {
    let file = File::options().append(true).open(path);
    let mut file = file.with_context(|| format!("cannot open {path}"))?;
    while file.write_all(b"\n").is_ok() {}
    Ok(())
}

fn path_in(directory: &str) -> String {
    format!("{directory}/filler")
}
