//! Whether a file has changed since it was read.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// What changes when a file's content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// None where there is no such file.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        size: metadata.size(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
    })
}

/// What was read of some files, and of which state of them.
#[derive(Debug)]
pub(super) struct Cached<T> {
    stamps: Vec<Option<Stamp>>,
    value: Option<T>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self {
            stamps: Vec::new(),
            value: None,
        }
    }
}

impl<T> Cached<T> {
    /// The value, read again if one of the files has changed.
    pub(super) fn get<'a>(
        &'a mut self,
        files: impl IntoIterator<Item = &'a Path>,
        read: impl FnOnce() -> T,
    ) -> &'a T {
        self.look(files);
        self.value.get_or_insert_with(read)
    }

    /// The same; what cannot be read is tried again each time, because a file's content does not
    /// change when it becomes readable.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn try_get<'a, E>(
        &'a mut self,
        files: impl IntoIterator<Item = &'a Path>,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<&'a T, E> {
        self.look(files);
        let value = match self.value.take() {
            Some(value) => value,
            None => read()?,
        };
        Ok(self.value.insert(value))
    }

    /// Forgets the value if one of the files has changed.
    fn look<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        let stamps: Vec<_> = files.into_iter().map(stamp).collect();
        if stamps != self.stamps {
            self.value = None;
            self.stamps = stamps;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_not_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut cached = Cached::default();
        let mut get =
            |read: Result<u32, &'static str>| cached.try_get([file.path()], || read).copied();
        assert_eq!(get(Err("cannot read it")), Err("cannot read it"));
        assert_eq!(get(Ok(1)), Ok(1));
        // The file has not changed.
        assert_eq!(get(Ok(2)), Ok(1));
    }
}
