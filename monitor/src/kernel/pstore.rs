//! The settings of pstore, and whether its store has room.

use std::path::Path;

use crate::bounded_read;

/// The backend that stores dumps for pstore, if there is one.
#[must_use]
pub fn backend(sysfs: &Path) -> Option<String> {
    // No file: this kernel has no pstore.
    let path = sysfs.join("module/pstore/parameters/backend");
    let text = bounded_read::read_text(&path, bounded_read::VALUE).ok()?;
    let backend = text.trim();
    (!backend.is_empty() && backend != "(null)").then(|| backend.to_owned())
}

/// The bytes of a log that the kernel gives to pstore at a crash
/// (`CONFIG_PSTORE_DEFAULT_KMSG_BYTES`).
#[must_use]
pub fn kmsg_bytes(sysfs: &Path) -> u64 {
    let path = sysfs.join("module/pstore/parameters/kmsg_bytes");
    let text = bounded_read::read_text(&path, bounded_read::VALUE).ok();
    text.and_then(|text| text.trim().parse().ok())
        .unwrap_or(10240)
}

/// Why EFI's variables have no room for a dump, if they have none: the available space, without the
/// reserve that the kernel does not touch (`fs/efivarfs/super.c`, `efivarfs_statfs`). Early kernels
/// do not report it, nor does some firmware; both report no blocks at all.
#[must_use]
pub fn efi_full(sysfs: &Path) -> Option<String> {
    /// `f_type` of efivarfs in statfs(2): `EFIVARFS_MAGIC` (include/uapi/linux/magic.h).
    const EFIVARFS: u64 = 0xde5e_81e4;
    let path = sysfs.join("firmware/efi/efivars");
    let kind = rustix::fs::statfs(&path).ok()?;
    let room = rustix::fs::statvfs(&path).ok()?;
    let of_efi = u64::try_from(kind.f_type)
        .ok()
        .map(|kind| kind & 0xffff_ffff)
        == Some(EFIVARFS);
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let full = of_efi && room.f_blocks > 0 && free < kmsg_bytes(sysfs);
    full.then(|| format!("EFI's variables have room for {free} bytes only, too few for a dump"))
}
