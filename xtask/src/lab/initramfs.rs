//! The VM's file system: a cpio archive ("newc", the form the kernel unpacks; see
//! Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed
//! because an emulated processor unpacks slowly.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::guest_binaries::Programs,
    lab::{
        host_files::HostFile,
        in_tree_modules::{self, InTreeModule},
        kernels::Kernel,
        modules,
    },
};

/// The in-tree modules for a virtio network card; their dependencies are added.
pub(crate) const NETWORK_MODULES: &[&str] = &["virtio_pci", "virtio_net"];

/// The in-tree modules for a virtio disk and its file system.
pub(crate) const DISK_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];

/// The same, and those for a disk that fails when a scenario wants it to.
pub(crate) const REBOOT_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4", "loop", "dm_mod"];

/// The in-tree modules for ramoops, which the guest loads on demand.
pub(crate) const RAMOOPS_MODULES: &[&str] = &["ramoops"];

/// The file with the names of the modules in `/modules/kernel` that are loaded at boot, one per
/// line, in load order.
const LOAD_ORDER: &str = "modules/kernel/load-order";

const FOLDERS: &[&str] = &[
    "bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "var",
];

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN_FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// What a machine's file system contains in addition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras<'a> {
    /// In-tree modules that are loaded at boot, with their dependencies.
    pub(crate) modules: &'a [&'a str],
    /// In-tree modules that are loaded on demand.
    pub(crate) modules_on_demand: &'a [&'a str],
    /// Programs of this machine.
    pub(crate) files: &'a [HostFile],
    /// A script to run as PID 1 instead of the scenarios' guest.
    pub(crate) init: Option<&'a str>,
    /// Paths and contents of further files, all executable.
    pub(crate) contents: &'a [(&'a str, &'a [u8])],
}

/// Writes the file system for a run on `kernel` to `path`.
pub(crate) fn write(
    path: &Path,
    kernel: &Kernel,
    programs: &Programs,
    extras: Extras<'_>,
) -> Result<()> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    // Without it, PID 1 starts without standard streams.
    archive.device("dev/console", 5, 1)?;
    match extras.init {
        Some(script) => archive.file("init", PROGRAM, script.as_bytes())?,
        None => archive.file("init", PROGRAM, &read(&programs.guest)?)?,
    }
    archive.file("bin/livepatch-monitor", PROGRAM, &read(&programs.monitor)?)?;
    for module in modules::build(kernel)? {
        let name = module
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{} has no usable name", module.display()))?;
        archive.file(&format!("modules/{name}"), PLAIN_FILE, &read(&module)?)?;
    }
    add_kernel_modules(&mut archive, kernel, extras)?;
    for file in extras.files {
        archive.file(&file.guest, PROGRAM, &read(&file.host)?)?;
    }
    for (path, content) in extras.contents {
        archive.file(path, PROGRAM, content)?;
    }
    fs::write(path, archive.finish()?).with_context(|| format!("cannot write {}", path.display()))
}

fn add_kernel_modules(archive: &mut Archive, kernel: &Kernel, extras: Extras<'_>) -> Result<()> {
    let mut order = String::new();
    for InTreeModule { name, content } in in_tree_modules::with_needed(kernel, extras.modules)? {
        archive.file(&format!("modules/kernel/{name}.ko"), PLAIN_FILE, &content)?;
        order.push_str(&name);
        order.push('\n');
    }
    for InTreeModule { name, content } in
        in_tree_modules::with_needed(kernel, extras.modules_on_demand)?
    {
        archive.file(&format!("modules/kernel/{name}.ko"), PLAIN_FILE, &content)?;
    }
    archive.file(LOAD_ORDER, PLAIN_FILE, order.as_bytes())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A cpio archive that is being written.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    fn folder(&mut self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        if self.folders.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, (0, 0), &[])?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        self.entry(path, mode, (0, 0), content)
    }

    fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[])
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        if name.contains('\0') {
            bail!("the file name {name:?} has a NUL byte");
        }
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for an initramfs"))?;
        let name_size = u32::try_from(name.len() + 1).context("a file name is too long")?;
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let fields = [
            self.entries, // inode
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            size,
            0, // major, minor of the file system
            0,
            device.0,
            device.1,
            name_size,
            0, // checksum, unused in this form
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the archive back as the kernel does: name, mode, content.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "magic at {at}");
            let field = |number: usize| {
                let begin = at + 6 + 8 * number;
                let digits = std::str::from_utf8(&bytes[begin..begin + 8]).unwrap();
                usize::try_from(u32::from_str_radix(digits, 16).unwrap()).unwrap()
            };
            let name_at = at + 110;
            let name_end = name_at + field(11);
            assert_eq!(bytes[name_end - 1], 0);
            let name = String::from_utf8(bytes[name_at..name_end - 1].to_vec()).unwrap();
            let content_at = name_end.next_multiple_of(4);
            let content_end = content_at + field(6);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((
                name,
                u32::try_from(field(1)).unwrap(),
                bytes[content_at..content_end].to_vec(),
            ));
            at = content_end.next_multiple_of(4);
        }
    }

    #[test]
    fn archive_reads_back() {
        let mut archive = Archive::default();
        archive.folder("bin").unwrap();
        archive.file("/bin/abc", PROGRAM, b"12345").unwrap();
        archive.file("lib/x/y.so", PLAIN_FILE, b"").unwrap();
        archive.file("lib/x/z.so", PLAIN_FILE, b"1234").unwrap();
        let names: Vec<_> = entries(&archive.finish().unwrap())
            .into_iter()
            .map(|(name, mode, content)| (name, mode, content.len()))
            .collect();
        assert_eq!(
            names,
            [
                ("bin".to_owned(), DIRECTORY, 0),
                ("bin/abc".to_owned(), PROGRAM, 5),
                ("lib".to_owned(), DIRECTORY, 0),
                ("lib/x".to_owned(), DIRECTORY, 0),
                ("lib/x/y.so".to_owned(), PLAIN_FILE, 0),
                ("lib/x/z.so".to_owned(), PLAIN_FILE, 4),
            ]
        );
    }
}
