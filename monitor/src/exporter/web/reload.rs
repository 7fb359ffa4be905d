//! The configuration in force, reread when one of its files changes.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tracing::{error, info};

use super::{
    config::{self, Settings},
    config_error::Error,
};
use crate::exporter::lock;

/// A file that changed within this time may still be being written.
const STILL: Duration = Duration::from_secs(1);

/// Metadata that changes when a file, its permissions or its path changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The web configuration file and the settings in use.
#[derive(Debug)]
pub struct Source {
    /// `None`: no file was given.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    settings: Arc<Settings>,
    files: Vec<PathBuf>,
    /// The stamps of the files as last read. `None`: they may have changed since.
    stamps: Option<Vec<Option<Stamp>>>,
}

impl Source {
    /// Reads the file, if one is given.
    ///
    /// # Errors
    /// The configuration is invalid: file, line, key.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        let mut state = State::default();
        if let Some(path) = path {
            let loaded = config::load(path);
            state.settings = Arc::new(loaded.result?);
            state.files = loaded.files;
            let stamps = stamps(&state.files);
            // A file that changed just now may have changed after it was read.
            state.stamps = (!fresh(&stamps, SystemTime::now())).then_some(stamps);
        }
        Ok(Self {
            path: path.map(Path::to_owned),
            state: Mutex::new(state),
        })
    }

    /// The file and the files that it names; empty if no file was given.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        lock(&self.state).files.clone()
    }

    /// The settings in force now, reread if a file has changed.
    pub(super) fn current(&self) -> Arc<Settings> {
        let mut state = lock(&self.state);
        if let Some(path) = &self.path {
            state.refresh(path, SystemTime::now());
        }
        state.settings.clone()
    }
}

impl State {
    fn refresh(&mut self, path: &Path, now: SystemTime) {
        let seen = stamps(&self.files);
        if self.stamps.as_ref() == Some(&seen) || fresh(&seen, now) {
            return;
        }
        let changed = self.stamps.is_some();
        let loaded = config::load(path);
        self.files = loaded.files;
        self.stamps = Some(stamps(&self.files));
        match loaded.result {
            Ok(settings) => match lost(&self.settings, &settings) {
                Some(what) => error!(
                    path = %path.display(),
                    "the changed file no longer has {what}: the previous configuration stays in force; \
                    restart to serve without it"
                ),
                None => {
                    self.settings = Arc::new(settings);
                    if changed {
                        info!(path = %path.display(), "web configuration reloaded");
                    }
                }
            },
            Err(error) => error!("{error}; the previous configuration stays in force"),
        }
    }
}

/// Which protection the new settings would drop, for example because the file is empty while it is
/// written.
fn lost(before: &Settings, after: &Settings) -> Option<&'static str> {
    if before.tls.is_some() && after.tls.is_none() {
        Some("tls_server_config")
    } else if !before.users.is_empty() && after.users.is_empty() {
        Some("basic_auth_users")
    } else {
        None
    }
}

impl Stamp {
    /// Whether it changed just now, or in the near future according to a clock that is slightly
    /// ahead.
    fn fresh(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let (seconds, nanoseconds) = self.modified;
        let modified = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanoseconds).unwrap_or_default(),
        );
        now.abs_diff(modified) < STILL
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

fn fresh(stamps: &[Option<Stamp>], now: SystemTime) -> bool {
    stamps.iter().flatten().any(|stamp| stamp.fresh(now))
}

/// `None` if the file does not exist.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}
