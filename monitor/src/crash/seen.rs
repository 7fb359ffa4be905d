//! The list of dumps that were already read, so that none is read again: `STATE-DIR/dumps.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    look::Candidate,
    store::{StoreError, read, write},
};

const FILE: &str = "dumps.json";
/// Another build's parser may recognise more.
const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " ",
    env!("LIVEPATCH_MONITOR_REVISION")
);

/// A file as it was when it was read, and the problems found in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SeenFile {
    path: PathBuf,
    size: u64,
    modified: (i64, u64),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

impl SeenFile {
    fn is(&self, file: &Candidate) -> bool {
        (&self.path, self.size, self.modified) == (&file.path, file.size, file.modified)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Files {
    build: String,
    files: Vec<SeenFile>,
    #[serde(default)]
    pstore_full: Option<String>,
}

/// The files that were read before, and those that are there now.
#[derive(Debug, Default)]
pub(super) struct Seen {
    path: Option<PathBuf>,
    before: Vec<SeenFile>,
    now: Vec<SeenFile>,
    full_before: Option<String>,
    /// What the dumps in pstore show about the room there.
    pub(super) pstore_full: Option<String>,
}

impl Seen {
    /// Reads the list. Without a state directory, or a list that can be used, every file is new.
    ///
    /// With `forget` every file is read again, because the records made from them are gone.
    pub(super) fn open(state_dir: Option<&Path>, forget: bool) -> (Self, Option<StoreError>) {
        let Some(path) = state_dir.map(|directory| directory.join(FILE)) else {
            return (Self::default(), None);
        };
        let files = match path.exists() && !forget {
            true => read::<Files>(&path),
            false => Ok(Files::default()),
        };
        match files {
            Ok(files) => {
                let before = match files.build == BUILD {
                    true => files.files,
                    false => Vec::new(),
                };
                let seen = Self {
                    path: Some(path),
                    before,
                    full_before: files.pstore_full,
                    ..Self::default()
                };
                (seen, None)
            }
            // The file is left alone.
            Err(error) => (Self::default(), Some(error)),
        }
    }

    /// Whether a file was read before; returns the problems found in it.
    pub(super) fn recall(&mut self, file: &Candidate) -> Option<Vec<String>> {
        let known = self.before.iter().find(|known| known.is(file))?.clone();
        let problems = known.problems.clone();
        self.now.push(known);
        Some(problems)
    }

    /// Whether a file was read before.
    pub(super) fn knows(&self, file: &Candidate) -> bool {
        self.before.iter().any(|known| known.is(file))
    }

    /// Whether the dumps in pstore are the same as before.
    pub(super) fn keep_pstore_full(&mut self) {
        self.pstore_full.clone_from(&self.full_before);
    }

    /// Remembers a file that was read.
    pub(super) fn add(&mut self, file: &Candidate, problems: Vec<String>) {
        self.now.push(SeenFile {
            path: file.path.clone(),
            size: file.size,
            modified: file.modified,
            problems,
        });
    }

    /// Writes the list, if it has changed.
    pub(super) fn save(self) -> Result<(), StoreError> {
        let Some(path) = self
            .path
            .filter(|_| self.now != self.before || self.pstore_full != self.full_before)
        else {
            return Ok(());
        };
        let content = Files {
            build: BUILD.to_owned(),
            files: self.now,
            pstore_full: self.pstore_full,
        };
        write(&path, &content)
    }
}
