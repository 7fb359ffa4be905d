//! Keeps damaged files for inspection, out of the way.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Most files of one name that are kept.
const MOST: u32 = 16;

/// Renames a file that cannot be used, to a name that is free, and returns that.
///
/// # Errors
/// It cannot be renamed, or too many are kept already.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 0..MOST {
        let mut name = path.as_os_str().to_owned();
        name.push(match number {
            0 => ".damaged".to_owned(),
            number => format!(".damaged.{number}"),
        });
        let aside = PathBuf::from(name);
        let renamed = renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE);
        match renamed.map_err(io::Error::from) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(
        "too many damaged files are kept beside it, remove them",
    ))
}
