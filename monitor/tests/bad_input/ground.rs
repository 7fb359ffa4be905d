//! What rows refer to: a host of our own making, and files that are none.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, chmod, mkfifoat};
use tempfile::TempDir;

/// Longer than any file that is read whole.
const HUGE: u64 = 10 << 30;
const BOOT: &str = "3f1c4a52-0000-4000-8000-000000000001";
/// No text, no module, no archive, and no UTF-8.
const JUNK: &[u8] = b"\xff\xfe\x00\x80junk\x01\x02\x03\x04\x05\x06\x07\n\xc3\x28";

/// A directory with all of it, one for each row.
pub(crate) struct Ground {
    root: TempDir,
    _socket: UnixListener,
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
        fs::write(at("file"), "text\n").unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::write(at("binary"), JUNK).unwrap();
        fs::write(at(".ko"), JUNK).unwrap();
        fs::write(at("two-lines"), "one\ntwo\n").unwrap();
        fs::write(at("password"), "secret\n").unwrap();
        symlink("loop", at("loop")).unwrap();
        mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let huge = fs::File::create(at("huge")).unwrap();
        huge.set_len(HUGE).unwrap();
        fs::write(at("denied"), "text\n").unwrap();
        chmod(at("denied"), Mode::empty()).unwrap();
        let socket = UnixListener::bind(at("socket")).unwrap();
        let ground = Self {
            root,
            _socket: socket,
        };
        ground.state();
        ground
    }

    /// State directories that somebody has spoilt, one for each kind of file in them.
    fn state(&self) {
        for (kind, make) in SPOILT {
            for (name, file) in [
                ("transition", "transition.json".to_owned()),
                ("recorder", format!("recorder/{BOOT}.rec")),
                ("earlier", "recorder/0f1c4a52-aaaa.rec".to_owned()),
                ("lock", "recorder/lock".to_owned()),
                (
                    "crash",
                    "crashes/20261123T124809Z-oops-deadbeef.json".to_owned(),
                ),
                ("counts", "crashes/counts.json".to_owned()),
            ] {
                let path = self.path(&format!("state-{name}-{kind}")).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                make(&path);
            }
        }
        for (kind, make) in SPOILT {
            for (name, file) in [
                ("dpkg", "var/lib/dpkg/status"),
                ("journal", "var/lib/dpkg/updates/0001"),
                ("dpkg-lock", "var/lib/dpkg/lock"),
                ("yum", "var/lib/yum/transaction-all.2026-11-27.00:00.00"),
            ] {
                let root = self.path(&format!("root-{name}-{kind}"));
                let path = root.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let status = root.join("var/lib/dpkg/status");
                if file.contains("dpkg/") && path != status {
                    fs::write(status, "").unwrap();
                }
                make(&path);
            }
            for (name, file) in [
                ("expect", "livepatch_fix.ko"),
                ("pstore", "dmesg-erst-7711348131945775110"),
                ("kdump", "202611270000/dmesg.202611270000"),
                ("dumps", "console.log"),
            ] {
                let path = self.path(&format!("{name}-{kind}")).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                make(&path);
            }
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
                let mut argument = OsString::from(before);
                argument.push(self.path(name));
                argument
            }
            _ => word.into(),
        }
    }
}

type Make = fn(&Path);

/// The ways in which a file is spoilt.
const SPOILT: [(&str, Make); 6] = [
    ("fifo", |path| {
        mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
    }),
    ("junk", |path| fs::write(path, JUNK).unwrap()),
    ("dir", |path| fs::create_dir_all(path).unwrap()),
    ("loop", |path| symlink(path, path).unwrap()),
    ("huge", |path| {
        fs::File::create(path).unwrap().set_len(HUGE).unwrap();
    }),
    ("denied", |path| {
        fs::write(path, "text\n").unwrap();
        chmod(path, Mode::empty()).unwrap();
    }),
];
