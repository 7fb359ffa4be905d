//! Replaces whole files: a reader sees the old or the new one, never a mixture. The new one is
//! written under a random name that did not exist, so in a directory of another user no link is
//! followed, no pipe is waited for and none of their files is written to.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use crate::stable_storage::sync_all;

/// How a file is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Its permissions, whatever the umask.
    pub mode: u32,
    /// Whether it must be on the disk on return.
    pub durable: bool,
}

/// Suffix of the names of unfinished files.
const UNFINISHED: &str = ".new";

/// Replaces `path`, or creates it.
///
/// # Errors
/// Those of the system calls; then the old file is unchanged.
pub fn replace(path: &Path, content: &[u8], how: How) -> io::Result<()> {
    let directory = directory(path);
    let mut fresh = tempfile::Builder::new()
        .prefix(&prefix(path)?)
        .suffix(UNFINISHED)
        // Like tempfile_in, without the random name in errors: a persistent error has the same text
        // each time, and is logged once.
        .make_in(directory, |path| {
            File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })?;
    let file = fresh.as_file_mut();
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(how.mode))?;
    if how.durable {
        sync_all(file)?;
    }
    fresh.persist(path).map_err(|error| error.error)?;
    if how.durable {
        sync_all(&File::open(directory)?)?;
    }
    Ok(())
}

/// Removes what a killed process left of its attempts to replace `path`.
///
/// # Errors
/// The directory cannot be read.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    let prefix = prefix(path)?;
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_unfinished = name.starts_with(&prefix) && name.ends_with(UNFINISHED);
        if !is_unfinished {
            continue;
        }
        let metadata = entry.metadata()?;
        if metadata.is_file() && metadata.uid() == own {
            // Another process may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn prefix(path: &Path) -> io::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    Ok(format!(".{name}."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const HOW: How = How {
        mode: 0o640,
        durable: true,
    };

    #[test]
    fn what_others_put_in_the_way_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.prom");
        let outside = directory.path().join("outside");
        fs::write(&outside, "theirs").unwrap();
        for way in [
            &(|| symlink(&outside, &path)) as &dyn Fn() -> io::Result<()>,
            &|| fs::hard_link(&outside, &path),
            &|| Ok(rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o666.into())?),
        ] {
            way().unwrap();
            replace(&path, b"ours", HOW).unwrap();
            let metadata = fs::symlink_metadata(&path).unwrap();
            assert!(metadata.is_file());
            assert_eq!(metadata.mode() & 0o777, 0o640);
            assert_eq!(fs::read(&path).unwrap(), b"ours");
            assert_eq!(fs::read(&outside).unwrap(), b"theirs");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"ours", HOW).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_reads_the_same_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let error = replace(&directory.path().join("none/file"), b"ours", HOW).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2), "{error}");
    }

    #[test]
    fn unfinished_files_of_this_one_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for name in [".file.abc.new", ".file.abc", ".other.abc.new"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        symlink("/none", directory.path().join(".file.link.new")).unwrap();
        remove_unfinished(&path).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".file.abc", ".file.link.new", ".other.abc.new"]);
    }
}
