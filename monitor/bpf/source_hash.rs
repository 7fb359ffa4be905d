//! The checksum of the BPF programs' sources, shared by `build.rs` and `xtask`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// CRC-32 over the names and contents of `monitor-ebpf/Cargo.toml` and `monitor-ebpf/src`,
/// as eight hexadecimal digits. It notices an object that was not rebuilt; it does not
/// protect against a forged one.
///
/// # Errors
///
/// A source that cannot be read.
pub(crate) fn source_hash(package: &Path) -> io::Result<String> {
    let mut hash = crc32fast::Hasher::new();
    for path in sources(package)? {
        let name = path.strip_prefix(package).unwrap_or(&path);
        hash.update(name.to_string_lossy().as_bytes());
        hash.update(&[0]);
        hash.update(&fs::read(&path)?);
        hash.update(&[0]);
    }
    Ok(format!("{:08x}", hash.finalize()))
}

/// The files that the checksum is over, sorted.
///
/// # Errors
///
/// A folder that cannot be read.
pub(crate) fn sources(package: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![package.join("Cargo.toml")];
    let mut folders = vec![package.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
