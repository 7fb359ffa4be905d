//! What rows refer to: a host of our own making, and files that are none.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::fs::{CWD, Mode, chmod, mkfifoat};
use tempfile::TempDir;

/// Longer than any file that is read whole.
const HUGE: u64 = 10 << 30;
const BOOT: &str = "3f1c4a52-0000-4000-8000-000000000001";
/// No text, no module, no archive, and no UTF-8.
const JUNK: &[u8] = b"\xff\xfe\x00\x80junk\x01\x02\x03\x04\x05\x06\x07\n\xc3\x28";

/// A directory with what a row asks for.
pub(crate) struct Ground {
    root: TempDir,
    sockets: Mutex<Vec<UnixListener>>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in [
            "sys/kernel/livepatch",
            "proc/sys/kernel/random",
            "state",
            "dir",
            "rootfs",
            "textfile",
        ] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("proc/sys/kernel/osrelease"), "6.12\n").unwrap();
        let boot = format!("{BOOT}\n");
        fs::write(at("proc/sys/kernel/random/boot_id"), boot).unwrap();
        fs::write(at("kmsg"), "").unwrap();
        Self {
            root,
            sockets: Mutex::default(),
        }
    }

    /// Makes what a row names.
    fn make(&self, name: &str) {
        let path = self.path(name);
        if path.symlink_metadata().is_ok() {
            return;
        }
        match name {
            "absent" => {}
            "file" => fs::write(path, "text\n").unwrap(),
            "empty" => fs::write(path, "").unwrap(),
            "two-lines" => fs::write(path, "one\ntwo\n").unwrap(),
            "password" => fs::write(path, "secret\n").unwrap(),
            "binary" => spoil("junk", &path),
            "socket" => {
                let socket = UnixListener::bind(path).unwrap();
                self.sockets.lock().unwrap().push(socket);
            }
            name => match name.rsplit_once('-') {
                None => spoil(name, &path),
                Some((place, kind)) => {
                    let (_, file) = PLACES.iter().find(|(of, _)| *of == place).unwrap();
                    let file = path.join(file);
                    fs::create_dir_all(file.parent().unwrap()).unwrap();
                    let status = path.join("var/lib/dpkg/status");
                    if place.starts_with("root-") && file != status && place != "root-yum" {
                        fs::create_dir_all(status.parent().unwrap()).unwrap();
                        fs::write(status, "").unwrap();
                    }
                    spoil(kind, &file);
                }
            },
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// An argument with the paths in it.
    pub(crate) fn argument(&self, word: &str) -> OsString {
        // A path need not be UTF-8.
        if word == "@bytes" {
            return self.root.path().join(OsStr::from_bytes(b"\xff\xfe")).into();
        }
        if word == "BYTES" {
            return OsStr::from_bytes(b"x\xff\xfe").into();
        }
        match word.split_once('@') {
            Some((before, name)) if before.is_empty() || before.ends_with('=') => {
                self.make(name);
                let mut argument = OsString::from(before);
                argument.push(self.path(name));
                argument
            }
            _ => word.into(),
        }
    }
}

/// Directories in which one file is spoilt.
const PLACES: [(&str, &str); 14] = [
    ("state-transition", "transition.json"),
    (
        "state-recorder",
        "recorder/3f1c4a52-0000-4000-8000-000000000001.rec",
    ),
    ("state-earlier", "recorder/0f1c4a52-aaaa.rec"),
    ("state-lock", "recorder/lock"),
    ("state-crash", "crashes/20261123T124809Z-oops-deadbeef.json"),
    ("state-counts", "crashes/counts.json"),
    ("root-dpkg", "var/lib/dpkg/status"),
    ("root-journal", "var/lib/dpkg/updates/0001"),
    ("root-dpkg-lock", "var/lib/dpkg/lock"),
    (
        "root-yum",
        "var/lib/yum/transaction-all.2026-11-27.00:00.00",
    ),
    ("expect", "livepatch_fix.ko"),
    ("pstore", "dmesg-erst-7711348131945775110"),
    ("kdump", "202611270000/dmesg.202611270000"),
    ("dumps", "console.log"),
];

/// Puts something else where a file belongs.
fn spoil(kind: &str, path: &Path) {
    match kind {
        "fifo" => mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap(),
        "junk" => fs::write(path, JUNK).unwrap(),
        "dir" => fs::create_dir_all(path).unwrap(),
        "loop" => symlink(path, path).unwrap(),
        "huge" => fs::File::create(path).unwrap().set_len(HUGE).unwrap(),
        "denied" => {
            fs::write(path, "text\n").unwrap();
            chmod(path, Mode::empty()).unwrap();
        }
        kind => panic!("nobody knows how to make {kind}"),
    }
}
