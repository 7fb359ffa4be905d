//! Reading the loaded patches again and again.
//!
//! What a patch consists of does not change while it is loaded: its objects and functions
//! get their directories before it is enabled (`klp_init_patch`), and only lose some of
//! them afterwards (the functions that an atomic replace adds, `klp_free_objects_dynamic`;
//! kernel/livepatch/core.c, 5.10 to 7.2). A sysfs directory has an inode number of its
//! own, and as many links as directories in it and two (`kernfs_new_node`,
//! `kernfs_refresh_inode`; fs/kernfs, 5.10 to 7.2). So where the directories are the same,
//! only the attributes are read.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, Stat},
    io::Errno,
};

use super::{PatchSet, SysfsError, read_patches};
use livepatch_core::patch::{Object, Patch};

/// Reads the loaded patches, as [`read_patches`] does, at the cost of what can have changed
/// since it did so before.
#[derive(Debug)]
pub struct PatchReader {
    sysfs: PathBuf,
    known: Option<Known>,
}

impl PatchReader {
    /// A reader of the livepatches below this root of sysfs.
    #[must_use]
    pub const fn new(sysfs: PathBuf) -> Self {
        Self { sysfs, known: None }
    }

    /// The root below which it reads.
    #[must_use]
    pub fn sysfs(&self) -> &Path {
        &self.sysfs
    }

    /// The loaded livepatches: the same value as before if nothing has changed.
    ///
    /// # Errors
    /// Those of [`read_patches`].
    pub fn read(&mut self) -> Result<(Arc<PatchSet>, Vec<SysfsError>), SysfsError> {
        if let Some(set) = self.known.as_mut().and_then(|known| known.refresh().ok()) {
            return Ok((set, Vec::new()));
        }
        self.known = None;
        let (set, problems) = read_patches(&self.sysfs)?;
        let set = Arc::new(set);
        if !set.supported || !problems.is_empty() {
            return Ok((set, problems));
        }
        let Ok(known) = Known::find(&self.sysfs, set.clone()) else {
            return Ok((set, problems));
        };
        // Only what was the same before and after the directories were read belongs to them.
        let (again, problems) = read_patches(&self.sysfs)?;
        if again == *set && problems.is_empty() {
            self.known = Some(known);
            return Ok((set, problems));
        }
        Ok((Arc::new(again), problems))
    }
}

/// Something has changed that requires a complete reading.
#[derive(Debug)]
struct Changed;

impl From<Errno> for Changed {
    fn from(_: Errno) -> Self {
        Self
    }
}

impl From<io::Error> for Changed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A directory, and what it is recognised by.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    mark: Mark,
}

/// Device, inode, links and the time of the last change. For sysfs the inode and the links are
/// needed; the others are for file systems that reuse inodes.
type Mark = (u64, u64, u64, (i64, u64));

fn mark(path: &Path) -> Result<Mark, Errno> {
    let stat: Stat = rustix::fs::stat(path)?;
    #[allow(
        clippy::useless_conversion,
        reason = "the types differ by architecture"
    )]
    Ok((
        stat.st_dev.into(),
        stat.st_ino.into(),
        stat.st_nlink.into(),
        (stat.st_ctime, stat.st_ctime_nsec.into()),
    ))
}

impl Directory {
    /// Whether it has this number of directories in it, if the file system counts them.
    fn find(path: PathBuf, entries: usize) -> Result<Self, Changed> {
        let mark = mark(&path)?;
        let (_, _, links, _) = mark;
        if links != entries as u64 + 2 {
            return Err(Changed);
        }
        Ok(Self { path, mark })
    }

    fn check(&self) -> Result<(), Changed> {
        match mark(&self.path)? == self.mark {
            true => Ok(()),
            false => Err(Changed),
        }
    }
}

/// An attribute of 0 or 1; `None` if this kernel does not have it.
#[derive(Debug)]
struct Flag(Option<PathBuf>);

impl Flag {
    fn of(directory: &Directory, name: &str, value: Option<bool>) -> Self {
        Self(value.map(|_| directory.path.join(name)))
    }

    fn read(&self) -> Result<Option<bool>, Changed> {
        let Some(path) = &self.0 else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let mut value = [0; 4];
        match rustix::io::read(&file, &mut value)? {
            2 if value.starts_with(b"0\n") => Ok(Some(false)),
            2 if value.starts_with(b"1\n") => Ok(Some(true)),
            _ => Err(Changed),
        }
    }
}

#[derive(Debug)]
struct KnownPatch {
    directory: Directory,
    enabled: Flag,
    transition: Flag,
    objects: Vec<(Directory, Flag)>,
}

#[derive(Debug)]
struct Known {
    set: Arc<PatchSet>,
    root: Directory,
    patches: Vec<KnownPatch>,
}

impl Known {
    fn find(sysfs: &Path, set: Arc<PatchSet>) -> Result<Self, Changed> {
        let root = Directory::find(sysfs.join("kernel/livepatch"), set.patches.len())?;
        let patches = set.patches.iter().map(|patch| {
            let directory = Directory::find(root.path.join(&patch.name), patch.objects.len())?;
            let object = |object: &Object| {
                let path = directory.path.join(&object.name);
                let directory = Directory::find(path, object.functions.len())?;
                let patched = Flag::of(&directory, "patched", object.patched);
                Ok((directory, patched))
            };
            Ok(KnownPatch {
                enabled: Flag::of(&directory, "enabled", patch.enabled),
                transition: Flag::of(&directory, "transition", patch.transition),
                objects: patch
                    .objects
                    .iter()
                    .map(object)
                    .collect::<Result<_, Changed>>()?,
                directory,
            })
        });
        let patches = patches.collect::<Result<_, Changed>>()?;
        Ok(Self { set, root, patches })
    }

    fn refresh(&mut self) -> Result<Arc<PatchSet>, Changed> {
        self.root.check()?;
        for index in 0..self.patches.len() {
            let (Some(known), Some(patch)) = (self.patches.get(index), self.set.patches.get(index))
            else {
                return Err(Changed);
            };
            let (enabled, transition) = (known.enabled.read()?, known.transition.read()?);
            let is_same = patch.enabled == enabled && patch.transition == transition;
            let patched = known.patched()?;
            let objects = patch.objects.iter().map(|object| object.patched);
            let is_same = is_same && objects.eq(patched.iter().copied());
            // Last, so that the attributes are those of this directory, not of one that was
            // removed.
            known.directory.check()?;
            if !is_same && let Some(patch) = Arc::make_mut(&mut self.set).patches.get_mut(index) {
                update(patch, enabled, transition, &patched);
            }
        }
        Ok(self.set.clone())
    }
}

impl KnownPatch {
    fn patched(&self) -> Result<Vec<Option<bool>>, Changed> {
        let objects = self.objects.iter().map(|(directory, patched)| {
            let value = patched.read()?;
            directory.check()?;
            Ok(value)
        });
        objects.collect()
    }
}

fn update(
    patch: &mut Patch,
    enabled: Option<bool>,
    transition: Option<bool>,
    patched: &[Option<bool>],
) {
    (patch.enabled, patch.transition) = (enabled, transition);
    for (object, patched) in patch.objects.iter_mut().zip(patched) {
        object.patched = *patched;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Fake {
        root: tempfile::TempDir,
        reader: PatchReader,
    }

    impl Fake {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let reader = PatchReader::new(root.path().to_owned());
            let fake = Self { root, reader };
            fs::create_dir_all(fake.path("")).unwrap();
            fake.patch("fix", &["a", "b"]);
            fake
        }

        fn path(&self, below: &str) -> PathBuf {
            self.root.path().join("kernel/livepatch").join(below)
        }

        fn patch(&self, name: &str, functions: &[&str]) {
            for function in functions {
                let path = self.path(&format!("{name}/vmlinux/{function},1"));
                fs::create_dir_all(path).unwrap();
            }
            for (file, value) in [
                ("enabled", "1\n"),
                ("transition", "0\n"),
                ("vmlinux/patched", "1\n"),
            ] {
                fs::write(self.path(name).join(file), value).unwrap();
            }
        }

        /// A repeated reading must give the same as a fresh one.
        fn read(&mut self) -> Arc<PatchSet> {
            let (set, problems) = self.reader.read().unwrap();
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(*set, read_patches(self.root.path()).unwrap().0);
            set
        }
    }

    #[test]
    fn without_a_change_it_is_the_same_value() {
        let mut fake = Fake::new();
        let first = fake.read();
        assert!(
            fake.reader.known.is_some(),
            "this file system counts no directories"
        );
        assert!(Arc::ptr_eq(&first, &fake.read()));
        // Its functions are not read again.
        let known = fake.reader.known.as_ref().unwrap();
        assert_eq!(known.patches[0].objects.len(), 1);
    }

    #[test]
    fn each_attribute_is_read_each_time() {
        let mut fake = Fake::new();
        for attribute in ["enabled", "transition", "vmlinux/patched"] {
            let mut before = fake.read();
            for value in ["0\n", "1\n", "0\n"] {
                let path = fake.path("fix").join(attribute);
                fs::write(path, value).unwrap();
                let now = fake.read();
                assert!(fake.reader.known.is_some(), "{attribute}");
                before = now;
            }
            assert!(Arc::ptr_eq(&before, &fake.read()));
        }
    }

    #[test]
    fn what_comes_and_goes_is_seen() {
        let mut fake = Fake::new();
        fake.read();
        // The functions that an atomic replace added are removed.
        fs::remove_dir(fake.path("fix/vmlinux/b,1")).unwrap();
        fake.read();
        fs::create_dir_all(fake.path("fix/nf_tables/c,1")).unwrap();
        fake.read();
        fake.patch("other", &["x"]);
        assert_eq!(fake.read().patches.len(), 2);
        // Another patch of the same name.
        fs::remove_dir_all(fake.path("other")).unwrap();
        fake.patch("other", &["y"]);
        assert_eq!(fake.read().patches[1].objects[0].functions[0].name, "y");
        // One patch in place of another.
        fs::rename(fake.path("other"), fake.path("third")).unwrap();
        assert_eq!(fake.read().patches[1].name, "third");
        for name in ["fix", "third"] {
            fs::remove_dir_all(fake.path(name)).unwrap();
            fake.read();
        }
        fs::remove_dir(fake.path("")).unwrap();
        assert!(!fake.read().supported);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_a_problem_each_time() {
        let mut fake = Fake::new();
        fake.read();
        fs::write(fake.path("fix/enabled"), "2\n").unwrap();
        for _ in 0..3 {
            let (set, problems) = fake.reader.read().unwrap();
            assert_eq!((set.patches[0].enabled, problems.len()), (None, 1));
        }
        fs::write(fake.path("fix/enabled"), "0\n").unwrap();
        assert_eq!(fake.read().patches[0].enabled, Some(false));
    }
}
