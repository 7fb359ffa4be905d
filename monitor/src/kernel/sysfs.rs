//! Reads the loaded livepatches (/sys/kernel/livepatch).
//!
//! Kernel versions (Documentation/ABI/testing/sysfs-kernel-livepatch): `enabled` and the
//! directories of objects and functions exist since 3.19, `transition` since 4.12, `OBJECT/patched`
//! since 6.1, `replace` since 6.11. Reading these takes no livepatch lock. `stack_order` (6.14)
//! takes `klp_mutex`, so a reader would hang as long as a patch is stuck; it and `force` are never
//! opened.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::bounded_read;
use livepatch_core::{
    patch::{Function, Object, Patch, PatchSet},
    patch_version::PatchVersion,
};

mod known;
#[cfg(test)]
mod tests;

pub use known::PatchReader;

/// Most patches that are read; a host has a handful.
const MAX_PATCHES: usize = 4096;
/// Most objects read of one patch; there is at most one for each loaded module.
const MAX_OBJECTS: usize = 4096;
/// Most functions read of one object; cumulative patches have some hundreds.
const MAX_FUNCTIONS: usize = 65536;
/// Most functions read in total.
const MAX_FUNCTIONS_IN_ALL: usize = 1 << 20;
/// Most bytes read of an attribute; the longest, srcversion, has 24.
const MAX_VALUE: usize = 256;

/// Whether a module's init has not returned yet: /sys/module/NAME/initstate is `coming`
/// (kernel/module/sysfs.c, formerly kernel/module.c).
#[must_use]
pub fn is_loading(sysfs: &Path, module: &str) -> bool {
    let state = sysfs.join("module").join(module).join("initstate");
    bounded_read::read_text(&state, bounded_read::VALUE).is_ok_and(|state| state.trim() == "coming")
}

/// What could not be read about the loaded patches, or is invalid.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// The path is not a sysfs.
    #[error("{} is not sysfs: mount it, or give the right path (--path.sysfs)", path.display())]
    NotSysfs {
        /// The path that was given as sysfs.
        path: PathBuf,
    },
    /// A file or directory could not be read.
    #[error("cannot read {}: {source} (see --path.sysfs)", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The content of an attribute is not what the kernel writes there.
    #[error("{} holds {value:?}, not {expected}", path.display())]
    Value {
        /// The attribute with the invalid value.
        path: PathBuf,
        /// Its content, cut to 256 bytes.
        value: String,
        /// What the kernel writes.
        expected: &'static str,
    },
    /// A directory under an object is not named `FUNCTION,POSITION`.
    #[error("{} is not named like a patched function (name,position)", path.display())]
    FunctionName {
        /// The directory with the unexpected name.
        path: PathBuf,
    },
    /// A directory has more entries than any kernel creates; the rest is left out.
    #[error("{} has more than {limit} entries; the rest is left out", path.display())]
    TooMany {
        /// The directory with too many entries.
        path: PathBuf,
        /// Number of entries that were read.
        limit: usize,
    },
}

/// Reads the loaded patches, and lists what could not be read: if a value is `None` for another
/// reason than the kernel's version, the list contains the error. A patch that is removed while it
/// is read is left out without an error.
///
/// # Errors
/// [`SysfsError::NotSysfs`] and [`SysfsError::Read`] if nothing at all can be read. A
/// kernel without livepatch is not an error: `supported` is false.
pub fn read_patches(sysfs: &Path) -> Result<(PatchSet, Vec<SysfsError>), SysfsError> {
    let root = sysfs.join("kernel/livepatch");
    let mut reader = Reader {
        sysfs,
        problems: Vec::new(),
        functions: 0,
    };
    let names = match list_directories(&root, MAX_PATCHES) {
        Ok(listing) => reader.complete(&root, listing, MAX_PATCHES),
        Err(source) if is_gone(&source) => {
            // A typo in the path must not look like a kernel without livepatch.
            return match sysfs.join("kernel").is_dir() {
                true => Ok((PatchSet::default(), Vec::new())),
                false => Err(SysfsError::NotSysfs {
                    path: sysfs.to_owned(),
                }),
            };
        }
        Err(source) => return Err(SysfsError::Read { path: root, source }),
    };
    let patches = names
        .into_iter()
        .filter_map(|name| reader.patch(&root, name).ok());
    let patches = patches.collect();
    Ok((
        PatchSet {
            supported: true,
            patches,
        },
        reader.problems,
    ))
}

/// The thing that was being read no longer exists.
struct Gone;

/// The sorted names of directories, and whether there are more.
struct Listing {
    names: Vec<String>,
    cut: bool,
}

struct Reader<'a> {
    sysfs: &'a Path,
    problems: Vec<SysfsError>,
    functions: usize,
}

impl Reader<'_> {
    fn patch(&mut self, root: &Path, name: String) -> Result<Patch, Gone> {
        let directory = root.join(&name);
        let mark = self.problems.len();
        let read = self.patch_in(&directory, name);
        if read.is_err() {
            // Problems with a patch that is being removed do not matter.
            self.problems.truncate(mark);
        }
        read
    }

    fn patch_in(&mut self, directory: &Path, name: String) -> Result<Patch, Gone> {
        let enabled = self.flag(directory.join("enabled"))?;
        let transition = self.flag(directory.join("transition"))?;
        let replace = self.flag(directory.join("replace"))?;
        let srcversion = self.srcversion(&name);
        let version = self.version(&name);
        let build_id = build_id(&self.sysfs.join("module").join(&name));
        let mut objects = Vec::new();
        for object in self.list(directory, MAX_OBJECTS)? {
            if let Ok(object) = self.object(directory, object) {
                objects.push(object);
            }
        }
        // `enabled` is as old as livepatch, and a patch's own attributes are removed after its
        // objects (klp_free_patch_start, klp_free_patch_finish). So while it exists, an attribute
        // that was not found does not exist on this kernel.
        let last = fs::symlink_metadata(directory.join("enabled"));
        if last.is_err_and(|error| is_gone(&error)) {
            return Err(Gone);
        }
        Ok(Patch {
            name,
            enabled,
            transition,
            replace,
            srcversion,
            version,
            build_id,
            objects,
        })
    }

    fn object(&mut self, patch: &Path, name: String) -> Result<Object, Gone> {
        let directory = patch.join(&name);
        let patched = self.flag(directory.join("patched"))?;
        let limit = MAX_FUNCTIONS.min(MAX_FUNCTIONS_IN_ALL - self.functions);
        let names = self.list(&directory, limit)?;
        self.functions += names.len();
        let mut functions = Vec::with_capacity(names.len());
        for name in names {
            match parse_function(&name) {
                Some(function) => functions.push(function),
                None => self.problems.push(SysfsError::FunctionName {
                    path: directory.join(name),
                }),
            }
        }
        functions.sort_unstable();
        Ok(Object {
            name,
            patched,
            functions,
        })
    }

    /// The directories in `directory`. If it cannot be read, the result is empty and the error is
    /// added to the problems.
    fn list(&mut self, directory: &Path, limit: usize) -> Result<Vec<String>, Gone> {
        match list_directories(directory, limit) {
            Ok(listing) => Ok(self.complete(directory, listing, limit)),
            Err(source) if is_gone(&source) => Err(Gone),
            Err(source) => {
                self.problems.push(SysfsError::Read {
                    path: directory.to_owned(),
                    source,
                });
                Ok(Vec::new())
            }
        }
    }

    fn complete(&mut self, directory: &Path, listing: Listing, limit: usize) -> Vec<String> {
        if listing.cut {
            self.problems.push(SysfsError::TooMany {
                path: directory.to_owned(),
                limit,
            });
        }
        listing.names
    }

    /// An attribute that is 0 or 1; `None` if this kernel does not have it.
    fn flag(&mut self, path: PathBuf) -> Result<Option<bool>, Gone> {
        match self.value(&path) {
            Err(Missing::Gone) => Err(Gone),
            Err(Missing::Absent) | Ok(None) => Ok(None),
            Ok(Some(value)) => Ok(match value.as_str() {
                "0" => Some(false),
                "1" => Some(true),
                _ => {
                    self.problems.push(SysfsError::Value {
                        path,
                        value,
                        expected: "0 or 1",
                    });
                    None
                }
            }),
        }
    }

    /// `/sys/module/NAME/srcversion`, a hash in hexadecimal, which modules have that were built
    /// with `CONFIG_MODULE_SRCVERSION_ALL` or have a `MODULE_VERSION`.
    fn srcversion(&mut self, name: &str) -> Option<String> {
        let path = self.sysfs.join("module").join(name).join("srcversion");
        let value = self.value(&path).ok().flatten()?;
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Some(value);
        }
        self.problems.push(SysfsError::Value {
            path,
            value,
            expected: "a hash",
        });
        None
    }

    /// `/sys/module/NAME/version` (`MODULE_VERSION`); without it the version that the
    /// vendor's naming gives.
    fn version(&mut self, name: &str) -> Option<String> {
        let path = self.sysfs.join("module").join(name).join("version");
        let stated = self.value(&path).ok().flatten();
        let stated = stated.filter(|text| !text.is_empty());
        stated.or_else(|| Some(PatchVersion::of(name)?.text()))
    }

    /// An attribute's text without its newline; `None` if it could not be read, which adds a
    /// problem.
    fn value(&mut self, path: &Path) -> Result<Option<String>, Missing> {
        match read_value(path) {
            Ok(value) => Ok(Some(value)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(Missing::Absent),
            Err(source) if is_gone(&source) => Err(Missing::Gone),
            Err(source) => {
                self.problems.push(SysfsError::Read {
                    path: path.to_owned(),
                    source,
                });
                Ok(None)
            }
        }
    }
}

/// Why an attribute is missing.
enum Missing {
    /// It does not exist.
    Absent,
    /// It is being removed.
    Gone,
}

fn read_value(path: &Path) -> io::Result<String> {
    let mut value = Vec::new();
    bounded_read::open_unwaiting(path)?
        .take(MAX_VALUE as u64)
        .read_to_end(&mut value)?;
    let value = value.strip_suffix(b"\n").unwrap_or(&value);
    Ok(String::from_utf8_lossy(value).into_owned())
}

/// The build id of a module: the note `NT_GNU_BUILD_ID` (3) of `GNU`
/// (/sys/module/NAME/notes/.note.gnu.build-id; kernel/module/sysfs.c). Not every build has
/// one.
fn build_id(module: &Path) -> Option<String> {
    const HEADER: usize = 16;
    let note = module.join("notes/.note.gnu.build-id");
    let note = bounded_read::read(&note, MAX_VALUE as u64).ok()?;
    let word = |at: usize| {
        let bytes = *note.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(bytes))
    };
    let is_build_id = (word(0)?, word(8)?) == (4, 3) && note.get(12..HEADER)? == b"GNU\0";
    let length = usize::try_from(word(4)?).ok()?;
    let id = note.get(HEADER..HEADER.checked_add(length)?)?;
    let digits = id.iter().map(|byte| format!("{byte:02x}"));
    (is_build_id && !id.is_empty()).then(|| digits.collect())
}

/// Whether the file is being removed: sysfs returns ENODEV if a file is removed while it is opened
/// (kernfs_fop_open, fs/kernfs/file.c).
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn list_directories(directory: &Path, limit: usize) -> io::Result<Listing> {
    let mut names = Vec::new();
    let mut cut = false;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            cut = names.len() >= limit;
            if cut {
                break;
            }
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(Listing { names, cut })
}

/// Parses `FUNCTION,POSITION`; the kernel shows position 0 ("the only one") as 1.
fn parse_function(directory: &str) -> Option<Function> {
    let (name, position) = directory.rsplit_once(',')?;
    let digits = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
    let sympos = position
        .parse()
        .ok()
        .filter(|_| digits && !name.is_empty())?;
    Some(Function {
        name: name.to_owned(),
        sympos,
    })
}
