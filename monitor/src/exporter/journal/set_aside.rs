//! What is damaged is kept for a person to look at, out of the way.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::error::{RecorderError, io_error};

/// Files of one name that are kept.
const MOST: u32 = 16;

/// Renames a file that cannot be used, to a name that is free.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, RecorderError> {
    for number in 0..MOST {
        let mut name = path.as_os_str().to_owned();
        name.push(match number {
            0 => ".damaged".to_owned(),
            number => format!(".damaged.{number}"),
        });
        let aside = PathBuf::from(name);
        if aside.symlink_metadata().is_err() {
            fs::rename(path, &aside).map_err(io_error("set aside", path))?;
            return Ok(aside);
        }
    }
    let full = io::Error::other("too many damaged files are kept beside it, remove them");
    Err(io_error("set aside", path)(full))
}
