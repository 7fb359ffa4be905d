//! The inputs of the rows: a fake host, and files that are invalid.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    sync::Mutex,
};

use livepatch_monitor_test_support::host::FakeHost;
use rustix::fs::{CWD, Mode, chmod, mkfifoat};

/// Longer than any file that is read whole.
const HUGE: u64 = 10 << 30;
/// Not text, not a module, not an archive, and not UTF-8.
const JUNK: &[u8] = b"\xff\xfe\x00\x80junk\x01\x02\x03\x04\x05\x06\x07\n\xc3\x28";

/// A fake host with livepatch support, and the further inputs of a row.
pub(crate) struct Inputs {
    pub(crate) host: FakeHost,
    sockets: Mutex<Vec<UnixListener>>,
}

impl Inputs {
    pub(crate) fn new() -> Self {
        let host = FakeHost::default();
        for folder in ["sys/kernel/livepatch", "state", "dir", "textfile"] {
            host.create_dir(folder);
        }
        Self {
            host,
            sockets: Mutex::default(),
        }
    }

    /// Creates the input that a row names.
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
            "binary" => make_invalid("junk", &path),
            "socket" => {
                let socket = UnixListener::bind(path).unwrap();
                self.sockets.lock().unwrap().push(socket);
            }
            name => match name.rsplit_once('-') {
                None => make_invalid(name, &path),
                Some((place, kind)) => {
                    let (_, file) = PLACES.iter().find(|(of, _)| *of == place).unwrap();
                    let file = path.join(file);
                    fs::create_dir_all(file.parent().unwrap()).unwrap();
                    let status = path.join("var/lib/dpkg/status");
                    if place.starts_with("root-") && file != status && place != "root-yum" {
                        fs::create_dir_all(status.parent().unwrap()).unwrap();
                        fs::write(status, "").unwrap();
                    }
                    make_invalid(kind, &file);
                }
            },
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.host.path(name)
    }

    /// Replaces the names in an argument with paths.
    pub(crate) fn argument(&self, word: &str) -> OsString {
        // A path need not be UTF-8.
        if word == "@bytes" {
            return self.host.root().join(OsStr::from_bytes(b"\xff\xfe")).into();
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

/// Directories in which one file is invalid.
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

/// Puts something invalid in the place of a file.
fn make_invalid(kind: &str, path: &Path) {
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
        kind => panic!("no row can ask for {kind}"),
    }
}
