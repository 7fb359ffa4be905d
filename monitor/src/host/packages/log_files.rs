//! The logs of package managers, and the time zone that their dates are in.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use livepatch_core::updates::logs::{self, TimeZone};

use super::inside;
use crate::bounded_read;

pub(super) const ZYPP_LOG: &str = "var/log/zypp/history";
pub(super) const LOCALTIME: &str = "etc/localtime";

/// Bytes at the end of a log that are read.
const MAX_LOG: u64 = 4 << 20;
/// Bytes of a file of zoneinfo.
const MAX_ZONE: u64 = 1 << 20;

/// When zypper's runs began, in seconds since 1970.
pub(super) fn zypper_begins(root: &Path) -> Result<Vec<i64>, String> {
    let path = root.join(ZYPP_LOG);
    let text = end_of(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let runs = logs::zypper(&text, &zone(root)?).into_iter();
    Ok(runs.map(|run| run.begin_unix_seconds).collect())
}

/// The host's time zone; UTC where it has none set (localtime(5)).
///
/// # Errors
/// It cannot be read: the dates in the logs are then not known.
pub(super) fn zone(root: &Path) -> Result<TimeZone, String> {
    let path = zone_file(root);
    inside(root, &path)?;
    let unknown = |why: String| {
        format!(
            "cannot read the time zone in {}: {why}; the dates in the logs of package managers \
             are not known",
            path.display()
        )
    };
    match bounded_read::read(&path, MAX_ZONE) {
        Ok(bytes) => logs::zone(&bytes).map_err(|error| unknown(error.to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(TimeZone::UTC),
        Err(error) => Err(unknown(error.to_string())),
    }
}

/// The end of a log; empty where there is none.
pub(super) fn end_of(path: &Path) -> io::Result<String> {
    let mut file = match bounded_read::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let skipped = file.metadata()?.len().saturating_sub(MAX_LOG);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file of the host's time zone: a link, seen from the host's root.
fn zone_file(root: &Path) -> PathBuf {
    let path = root.join(LOCALTIME);
    match fs::read_link(&path) {
        Ok(target) => match target.strip_prefix("/") {
            Ok(inside) => root.join(inside),
            Err(_) => path,
        },
        Err(_) => path,
    }
}
