//! A disk that fails on request: an image behind a loop device behind device-mapper, whose target
//! is changed from `linear` to `error` and back.

use std::{
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, symlink},
    },
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    ioctl::{Direction, IntegerSetter, Opcode, Updater, ioctl, opcode},
    mount::{MountFlags, mount, mount_remount},
};

use crate::{
    eventually::{eventually, seconds},
    files, monitor,
};

/// The image, which the host made, on a disk that survives the boot.
const IMAGE: &str = "/var/lib/failing.img";
const LOOP: &str = "/dev/loop0";
const CONTROL: &str = "/dev/mapper/control";
const DEVICE: &str = "/dev/dm-0";
const NAME: &[u8] = b"failing";

/// Where the disk is mounted.
pub(super) const POINT: &str = "/var/lib/failing";

/// include/uapi/linux/loop.h
const LOOP_SET_FD: Opcode = 0x4C00;

/// `struct dm_ioctl` (include/uapi/linux/dm-ioctl.h): offsets of its fields, and its size.
const VERSION: usize = 0;
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const NAME_FIELD: usize = 48;
const HEADER: usize = 312;
/// `struct dm_target_spec`, which follows it: offsets of its fields, and its size.
const LENGTH: usize = HEADER + 8;
const TARGET_TYPE: usize = HEADER + 24;
const PARAMETERS: usize = HEADER + 40;

const SUSPEND: u32 = 1 << 1;
/// Do not freeze the file system first, which would write to a device that fails.
const SKIP_LOCKFS: u32 = 1 << 10;
/// Do not write first what waits for the device.
const NO_FLUSH: u32 = 1 << 11;

/// `DM_DEV_CREATE_CMD`, `DM_DEV_SUSPEND_CMD`, `DM_TABLE_LOAD_CMD`.
const CREATE: Opcode = command(3);
const SUSPEND_OR_RESUME: Opcode = command(6);
const LOAD_TABLE: Opcode = command(9);

const fn command(number: u8) -> Opcode {
    opcode::from_components(Direction::ReadWrite, 0xfd, number, HEADER)
}

type Request = [u8; 512];

/// The disk, mounted.
#[derive(Debug)]
pub(super) struct Device {
    control: File,
    sectors: u64,
}

impl Device {
    /// Mounts the disk, which works, unless an earlier scenario of this boot has.
    fn mount() -> Result<Self> {
        let image = open(IMAGE)?;
        let size = image.metadata().context(IMAGE)?.size();
        if is_mounted(POINT)? {
            return Ok(Self {
                control: open(CONTROL)?,
                sectors: size / 512,
            });
        }
        let loop_device = open(LOOP)?;
        let descriptor = usize::try_from(image.as_raw_fd()).context("a descriptor")?;
        // SAFETY: LOOP_SET_FD takes a descriptor, which is open.
        unsafe {
            ioctl(
                &loop_device,
                IntegerSetter::<LOOP_SET_FD>::new_usize(descriptor),
            )
        }
        .with_context(|| format!("cannot put {IMAGE} behind {LOOP}"))?;
        let device = Self {
            control: open(CONTROL)?,
            sectors: size / 512,
        };
        device
            .ask::<CREATE>(&mut header(0))
            .context("cannot make a device")?;
        device.work()?;
        fs::create_dir_all(POINT).with_context(|| format!("cannot make {POINT}"))?;
        eventually(seconds(5), || {
            ensure!(Path::new(DEVICE).exists(), "no {DEVICE}");
            Ok(())
        })?;
        mount(DEVICE, POINT, "ext4", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {DEVICE}"))?;
        Ok(device)
    }

    /// From now on every read and every write fails with EIO.
    pub(super) fn fail(&self) -> Result<()> {
        self.load(b"error", b"")
    }

    /// The disk works again.
    pub(super) fn work(&self) -> Result<()> {
        self.load(b"linear", format!("{LOOP} 0").as_bytes())
    }

    fn load(&self, target: &[u8], parameters: &[u8]) -> Result<()> {
        self.ask::<SUSPEND_OR_RESUME>(&mut header(SUSPEND | SKIP_LOCKFS | NO_FLUSH))
            .context("cannot suspend the device")?;
        let mut table = header(0);
        put(&mut table, TARGET_COUNT, &1_u32.to_ne_bytes());
        put(&mut table, LENGTH, &self.sectors.to_ne_bytes());
        put(&mut table, TARGET_TYPE, target);
        put(&mut table, PARAMETERS, parameters);
        self.ask::<LOAD_TABLE>(&mut table)
            .context("cannot load the device's table")?;
        self.ask::<SUSPEND_OR_RESUME>(&mut header(0))
            .context("cannot resume the device")
    }

    fn ask<const COMMAND: Opcode>(&self, request: &mut Request) -> Result<()> {
        // SAFETY: the kernel reads and writes as many bytes as DATA_SIZE says, which is
        // the size of the request, and keeps no pointer to it.
        unsafe { ioctl(&self.control, Updater::<COMMAND, Request>::new(request)) }
            .context("device-mapper refuses")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // After a failure the next scenario needs disks that work.
        let _ = self.work();
        let _ = make_all_writable();
    }
}

/// Mounts the disk, with the monitor's state in a directory of it.
pub(super) fn state_on_it(directory: &str) -> Result<Device> {
    let disk = Device::mount()?;
    let state = format!("{POINT}/{directory}");
    fs::create_dir_all(&state).with_context(|| format!("cannot make {state}"))?;
    if !fs::exists(monitor::STATE).context(monitor::STATE)? {
        symlink(&state, monitor::STATE)
            .with_context(|| format!("cannot make {}", monitor::STATE))?;
    }
    Ok(disk)
}

/// Remounts all file systems of disks read-only, by force.
pub(super) fn make_all_read_only() -> Result<()> {
    files::write("/proc/sysrq-trigger", "u")?;
    eventually(seconds(20), || {
        ensure!(is_read_only(POINT)?, "{POINT} is not read-only");
        ensure!(is_read_only("/var/lib")?, "/var/lib is not read-only");
        Ok(())
    })
}

/// Makes them writable again.
pub(super) fn make_all_writable() -> Result<()> {
    for point in ["/var/lib", POINT] {
        mount_remount(point, MountFlags::empty(), "")
            .with_context(|| format!("cannot remount {point}"))?;
        ensure!(!is_read_only(point)?, "{point} is still read-only");
    }
    Ok(())
}

fn is_mounted(point: &str) -> Result<bool> {
    let mounts = files::read("/proc/mounts")?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(point)))
}

fn is_read_only(point: &str) -> Result<bool> {
    let mounts = files::read("/proc/mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ').skip(1);
            (words.next()? == point).then(|| words.nth(1))?
        })
        .map(|options| options.split(',').any(|option| option == "ro"))
        .with_context(|| format!("{point} is not mounted:\n{mounts}"))
}

fn header(flags: u32) -> Request {
    let mut request = [0; size_of::<Request>()];
    put(&mut request, VERSION, &4_u32.to_ne_bytes());
    let size = u32::try_from(request.len()).unwrap_or(u32::MAX);
    put(&mut request, DATA_SIZE, &size.to_ne_bytes());
    let start = u32::try_from(HEADER).unwrap_or(u32::MAX);
    put(&mut request, DATA_START, &start.to_ne_bytes());
    put(&mut request, FLAGS, &flags.to_ne_bytes());
    put(&mut request, NAME_FIELD, NAME);
    request
}

fn put(request: &mut Request, at: usize, bytes: &[u8]) {
    if let Some(place) = request.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn open(path: &str) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {path}"))
}
