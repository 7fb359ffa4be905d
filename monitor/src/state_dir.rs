//! The state directory, whose content belongs to the monitor alone.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    path::{Path, PathBuf},
};

/// The permissions of the directory and its subdirectories.
const MODE: u32 = 0o700;

/// The monitor's subdirectories and files.
pub const RECORDS: [&str; 4] = ["recorder", "crashes", "dumps.json", "transition.json"];

/// The file that identifies the machine that the records are from.
pub const OWNER: &str = "machine";

/// Prefix of the directories with the records of another machine.
pub const OF_ANOTHER: &str = "of-machine-";

/// Exists in the root of each ext file system.
const LOST: &str = "lost+found";

/// Another user may read or change the content of the directory.
#[derive(Debug, thiserror::Error)]
#[error("others can access {}: {reason}; give --state-dir a separate directory with mode 0700", path.display())]
pub struct Exposed {
    path: PathBuf,
    reason: String,
}

/// Creates a directory, and its missing parents, for this user only.
///
/// # Errors
/// Those of the system call.
pub fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(directory)
}

/// Removes all permissions of others from the state directory and its content. A directory that
/// does not exist yet belongs to nobody.
///
/// # Errors
/// It is not the monitor's own.
pub fn close_to_others(directory: &Path) -> Result<(), Exposed> {
    let exposed = |reason: String| Exposed {
        path: directory.to_owned(),
        reason,
    };
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        // The caller that uses it reports the problem.
        Err(_) => return Ok(()),
    };
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(exposed(format!("it belongs to user {}", metadata.uid())));
    }
    match foreign(directory) {
        Ok(None) => own_directories(directory)
            .try_for_each(|path| set_mode(&path))
            .and_then(|()| set_mode(directory))
            .map_err(|error| exposed(error.to_string())),
        Ok(Some(name)) => Err(exposed(format!(
            "its mode is {:04o}, and {name} in it is not the monitor's",
            metadata.mode() & 0o7777
        ))),
        Err(error) => Err(exposed(error.to_string())),
    }
}

/// Chowns the directory and the monitor's content in it to a user. Links are not followed. A
/// directory that does not exist yet belongs to nobody.
///
/// # Errors
/// It is shared with another user, or the system refuses it.
pub fn give(directory: &Path, user: u32, group: u32) -> io::Result<()> {
    if !directory.try_exists()? {
        return Ok(());
    }
    if let Some(name) = foreign(directory)? {
        return Err(io::Error::other(format!(
            "{name} in it is not the monitor's; give --state-dir a separate directory"
        )));
    }
    let directories = own_directories(directory).chain([directory.to_owned()]);
    for path in directories {
        for entry in fs::read_dir(&path)? {
            lchown(entry?.path(), Some(user), Some(group))?;
        }
        lchown(&path, Some(user), Some(group))?;
    }
    Ok(())
}

/// The monitor's subdirectories.
fn own_directories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let paths = RECORDS.map(|own| directory.join(own)).into_iter();
    paths.filter(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()))
}

fn set_mode(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(MODE))
}

/// A file in the directory that is not the monitor's. If there is one, the directory is shared, and
/// its permissions are for its owner to set.
fn foreign(directory: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let bare = name.strip_prefix('.').unwrap_or(&name);
        let mut own = RECORDS.iter().chain([&OWNER, &OF_ANOTHER]);
        if bare != LOST && !own.any(|own| bare.starts_with(own)) {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use livepatch_monitor_test_support::left_out;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn its_own_directory_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("a/state");
        make(&state).unwrap();
        assert_eq!(mode(&state), 0o700);
        fs::create_dir(state.join("crashes")).unwrap();
        fs::create_dir(state.join("of-machine-01234567")).unwrap();
        for name in ["transition.json", "dumps.json", "machine"] {
            fs::write(state.join(name), "").unwrap();
        }
        for path in [&state, &state.join("crashes")] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        close_to_others(&state).unwrap();
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join("crashes")), 0o700);
    }

    /// `--state-dir /var/lib` must not close /var/lib.
    #[test]
    fn a_shared_directory_is_left_as_it_is_and_named() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.path().join("recorder")).unwrap();
        fs::create_dir(root.path().join("dpkg")).unwrap();
        let error = close_to_others(root.path()).unwrap_err().to_string();
        assert!(error.contains("0755") && error.contains("dpkg"), "{error}");
        assert_eq!(mode(root.path()), 0o755);
        let before = mode(&root.path().join("dpkg"));
        assert_eq!(mode(&root.path().join("recorder")), before);
        let owner = fs::metadata(root.path()).unwrap().uid();
        let error = give(root.path(), owner + 1, owner + 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains("dpkg"), "{error}");
        assert_eq!(fs::metadata(root.path().join("dpkg")).unwrap().uid(), owner);
    }

    #[test]
    fn its_own_directory_is_given_whole() {
        if !rustix::process::geteuid().is_root() {
            left_out(
                "giving the state directory to another user",
                "only root can",
            );
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::write(&outside, "").unwrap();
        let state = root.path().join("state");
        make(&state.join("crashes")).unwrap();
        for name in ["crashes/one.json", "transition.json"] {
            fs::write(state.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(&outside, state.join("crashes/link.json")).unwrap();
        give(&state, 4242, 4243).unwrap();
        for name in ["", "crashes", "crashes/one.json", "transition.json"] {
            let metadata = fs::metadata(state.join(name)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (4242, 4243), "{name}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
        give(&state, 0, 0).unwrap();
        assert_eq!(
            fs::metadata(state.join("crashes/one.json")).unwrap().uid(),
            0
        );
    }
}
