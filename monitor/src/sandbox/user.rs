//! Switches the user. Root without capabilities still owns root's files. If Landlock restricts what
//! the monitor opens, that costs nothing, and a certificate that only root may read can be read
//! again when it is renewed. Without Landlock the monitor switches to another user, if that user
//! can read everything it needs.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{Allowed, Cap, Part, Sandbox};
use crate::{bounded_read, state_dir};

/// A user that an administrator may have created for the monitor.
const NAME: &str = "livepatch-monitor";
/// Otherwise: `nobody`, which every distribution has.
const NOBODY: u32 = 65_534;

pub(super) fn enter(allowed: &Allowed, sandbox: &mut Sandbox) {
    let Some(state_dir) = &allowed.state_dir else {
        return;
    };
    // A process that keeps CAP_SYS_ADMIN is as powerful as root.
    if !geteuid().is_root() || allowed.capabilities.has(Cap::SYS_ADMIN) {
        return;
    }
    let (user, group) = unprivileged(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    if sandbox.holds.contains(&Part::Files) {
        // A monitor running on another kernel of this host may have changed the owner.
        let owner = fs::metadata(state_dir).map(|metadata| metadata.uid());
        if owner.is_ok_and(|owner| owner == user.as_raw())
            && let Err(error) = state_dir::give(state_dir, 0, 0)
        {
            sandbox.lacks(
                format!("cannot change the state directory's owner back to root: {error}"),
                "chown it to root",
            );
        }
        return;
    }
    if let Err(reason) = become_user(user, group, allowed, state_dir) {
        sandbox.lacks(
            format!("runs as root, who owns files that Landlock would keep it from: {reason}"),
            "let the systemd unit start it, or boot a kernel with Landlock (5.13 or later)",
        );
    }
}

/// User and group: those created for the monitor, else `nobody`.
fn unprivileged(passwd: &str) -> (Uid, Gid) {
    let own = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, user, group) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let (user, group) = (user.parse().ok()?, group.parse().ok()?);
        (name == NAME && user != 0 && group != 0).then_some((user, group))
    });
    let (user, group) = own.unwrap_or((NOBODY, NOBODY));
    (Uid::from_raw(user), Gid::from_raw(group))
}

fn become_user(user: Uid, group: Gid, allowed: &Allowed, state_dir: &Path) -> Result<(), String> {
    let switching = |error: rustix::io::Errno| {
        format!(
            "cannot become user {}: {}",
            user.as_raw(),
            io::Error::from(error)
        )
    };
    let before = needs(allowed, state_dir);
    // Only the effective IDs: they can be switched back.
    set_thread_res_gid(Gid::ROOT, group, Gid::ROOT).map_err(switching)?;
    let tried = set_thread_res_uid(Uid::ROOT, user, Uid::ROOT).map_err(switching);
    let after = tried.as_ref().map(|()| needs(allowed, state_dir));
    let back = set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .and_then(|()| set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT));
    back.map_err(switching)?;
    let lost = match after {
        Ok(after) => before.into_iter().find(|path| !after.contains(path)),
        Err(error) => return Err(error.clone()),
    };
    if let Some(lost) = lost {
        return Err(format!(
            "user {} could not use {}",
            user.as_raw(),
            lost.display()
        ));
    }
    state_dir::give(state_dir, user.as_raw(), group.as_raw()).map_err(|error| {
        format!(
            "cannot change the owner of {}: {error}",
            state_dir.display()
        )
    })?;
    if !allowed.capabilities.is_empty() {
        capctl::prctl::set_keepcaps(true).map_err(|error| error.to_string())?;
    }
    set_thread_groups(&[]).map_err(switching)?;
    set_thread_res_gid(group, group, group).map_err(switching)?;
    set_thread_res_uid(user, user, user).map_err(switching)
}

/// Which of the permitted files and directories this thread can open. The state directory is
/// chowned to the new user.
fn needs(allowed: &Allowed, state_dir: &Path) -> Vec<PathBuf> {
    let readable = |path: &&PathBuf| match path.metadata() {
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path).is_ok(),
        // A device is open already, and a pipe would block.
        Ok(metadata) if metadata.is_file() => bounded_read::open_unwaiting(path).is_ok(),
        _ => false,
    };
    let writable =
        |path: &&PathBuf| path.as_path() != state_dir && tempfile::tempfile_in(path).is_ok();
    let read = allowed.read.iter().filter(readable);
    read.chain(allowed.write.iter().filter(writable))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_made_for_it_is_preferred() {
        let raw = |passwd: &str| {
            let (user, group) = unprivileged(passwd);
            (user.as_raw(), group.as_raw())
        };
        let own = "root:x:0:0:root:/root:/bin/sh\nlivepatch-monitor:x:990:991::/:/bin/false\n";
        assert_eq!(raw(own), (990, 991));
        for other in [
            "",
            "livepatch-monitor:x:0:0::/:/bin/false\n",
            "livepatch-monitor:x\n",
            "livepatch-monitor2:x:5:5::/:\n",
        ] {
            assert_eq!(raw(other), (NOBODY, NOBODY), "{other:?}");
        }
    }
}
