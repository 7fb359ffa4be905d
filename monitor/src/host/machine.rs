//! What the monitor runs on: a host, a copy of another host, a crash kernel, a container.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use livepatch_core::degradation::Degradation;

use crate::{
    bounded_read,
    kernel::namespace::{PidNsVisibility, visibility},
    state_dir::{self, OF_ANOTHER, OWNER, RECORDS},
};

#[cfg(test)]
mod tests;

/// Whether the kernel is one that runs only to save the memory of another that crashed:
/// it alone has this file (fs/proc/vmcore.c, `vmcore_init`).
#[must_use]
pub fn crash_kernel(procfs: &Path) -> Option<Degradation> {
    let vmcore = procfs.join("vmcore");
    vmcore.exists().then(|| Degradation {
        what: format!(
            "this is a crash kernel ({} is there): nothing is recorded",
            vmcore.display()
        ),
        remedy: "none is needed: the crash is recorded after the next boot".to_owned(),
    })
}

/// Whether this is a container that has the host's sysfs, but not its tasks.
#[must_use]
pub fn container(procfs: &Path, sysfs: &Path) -> Option<Degradation> {
    let sees_patches = sysfs.join("kernel/livepatch").is_dir();
    (sees_patches && visibility(procfs) == PidNsVisibility::Part).then(|| Degradation {
        what: "this is a container, not a host: the livepatches are those of the host, whose \
               tasks it does not see"
            .to_owned(),
        remedy: "run the monitor on the host, or with its PID namespace (hostPID: true)".to_owned(),
    })
}

/// What was done with a state directory at the start.
#[derive(Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is this machine's, or it has no owner on record.
    Own,
    /// It was another machine's and has been set aside here.
    SetAside(PathBuf),
}

/// Ensures that a state directory is this machine's. One that was copied with a machine contains
/// another's boots and crashes, which are set aside.
///
/// # Errors
/// The other machine's state cannot be moved.
pub fn adopt(state_dir: &Path, rootfs: &Path) -> io::Result<Adopted> {
    let Some(id) = id(rootfs) else {
        return Ok(Adopted::Own);
    };
    let owner = owner(state_dir);
    if owner.as_ref() == Some(&id) {
        return Ok(Adopted::Own);
    }
    let mut adopted = Adopted::Own;
    if let Some(owner) = owner {
        let aside = free_name(state_dir, &owner);
        state_dir::make(&aside)?;
        for name in RECORDS {
            match fs::rename(state_dir.join(name), aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        adopted = Adopted::SetAside(aside);
    }
    // If nothing can be written, the errors of recording say so.
    let _ = state_dir::make(state_dir);
    let _ = fs::write(state_dir.join(OWNER), format!("{id}\n"));
    Ok(adopted)
}

/// Whether a state directory is known to be another machine's.
#[must_use]
pub fn is_of_another(state_dir: &Path, rootfs: &Path) -> bool {
    let ids = id(rootfs).zip(owner(state_dir));
    ids.is_some_and(|(id, owner)| id != owner)
}

fn owner(state_dir: &Path) -> Option<String> {
    let text = bounded_read::read_text(&state_dir.join(OWNER), bounded_read::VALUE).ok()?;
    let text = text.trim();
    let is_id = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_owned())
}

fn free_name(state_dir: &Path, owner: &str) -> PathBuf {
    let name = format!("{OF_ANOTHER}{}", owner.get(..8).unwrap_or(owner));
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    let mut names = [name.clone()].into_iter().chain(numbered);
    let free = names.find(|name| !state_dir.join(name).exists());
    state_dir.join(free.unwrap_or(name))
}

/// The machine's id, hashed: machine-id(5) asks not to show it.
fn id(rootfs: &Path) -> Option<String> {
    let path = rootfs.join("etc/machine-id");
    let text = bounded_read::read_text(&path, bounded_read::VALUE).ok()?;
    let id = text.trim();
    // `uninitialized` during the first boot.
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| {
        let text = format!("livepatch-monitor {id}");
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        hash.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    })
}
