//! A fake host: a directory tree used as procfs, sysfs and so on (`--path.*` and `--state-dir`). It
//! tests how the monitor handles what it reads; the VM scenarios test against real kernels.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails at once"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

/// The id of the fake host's boot.
pub const BOOT_ID: &str = "3f1c4a52-0000-4000-8000-000000000001";

/// The path of each part of the host, relative to its root. There are no dump directories: nothing in
/// those of an ordinary user, who may run the tests, is trusted.
const PLACES: [(&str, &str); 8] = [
    ("--path.sysfs", "sys"),
    ("--path.procfs", "proc"),
    ("--path.kmsg", "kmsg"),
    ("--path.rootfs", "rootfs"),
    ("--path.pstore", "no-pstore"),
    ("--path.systemd-pstore", "no-systemd-pstore"),
    ("--path.kdump", "no-kdump"),
    ("--state-dir", "state"),
];

/// A fake host; its files are removed when it is dropped.
#[derive(Debug)]
pub struct FakeHost {
    root: TempDir,
}

impl Default for FakeHost {
    /// A kernel without livepatch support, no tasks, an empty kernel log.
    fn default() -> Self {
        let host = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for folder in ["sys/kernel", "rootfs"] {
            host.create_dir(folder);
        }
        host.write("proc/sys/kernel/osrelease", "6.12\n");
        let id = format!("{BOOT_ID}\n");
        host.write("proc/sys/kernel/random/boot_id", id);
        host.write("kmsg", "");
        host
    }
}

impl FakeHost {
    /// A host in a transition of `fix`, held up by task 42, which is asleep in `hold` of module
    /// `target`.
    #[must_use]
    pub fn held() -> Self {
        let host = Self::default();
        host.write("sys/kernel/livepatch/fix/enabled", "1\n");
        host.write("sys/kernel/livepatch/fix/transition", "1\n");
        host.create_dir("sys/kernel/livepatch/fix/target/hold,1");
        host.task("hold+0x10/0x40 [target]\n[<0>] vfs_read+0x90/0x300", 0);
        host
    }

    /// A host on which nothing blocks the livepatch
    /// `tests/fixtures/preflight/lpm_replace.ko`.
    #[must_use]
    pub fn ready_for_lpm_replace() -> Self {
        let host = Self::default();
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.12.95+deb12-cloud-amd64\n"),
            ("proc/loadavg", "0.00 0.01 0.05 1/95 1234\n"),
            ("proc/modules", "lpm_target 16384 0 - Live 0x0 (OE)\n"),
            (
                "proc/kallsyms",
                "ffffffff81000000 t cmdline_proc_show\nffffffff81000040 T next\n\
                 ffffffff82000000 T _end\n\
                 ffffffffc0000000 t lpm_hold\t[lpm_target]\n\
                 ffffffffc0000040 t lpm_kthread_sleep\t[lpm_target]\n\
                 ffffffffc0000080 t lpm_spin\t[lpm_target]\n\
                 ffffffffc00000c0 t lpm_version\t[lpm_target]\n",
            ),
            ("sys/kernel/kexec_crash_loaded", "1\n"),
            ("sys/kernel/tracing/enabled_functions", ""),
            ("sys/kernel/debug/kprobes/list", ""),
            ("sys/devices/system/cpu/online", "0-1\n"),
        ] {
            host.write(path, text);
        }
        host.create_dir("sys/kernel/livepatch");
        host.task("lpm_other+0x4/0x40 [lpm_target]", -1);
        host
    }

    /// Adds task 42, uninterruptibly asleep in this function, with this `/proc/PID/patch_state`.
    pub fn task(&self, frame: &str, patch_state: i8) {
        self.write("proc/42/task/42/patch_state", format!("{patch_state}\n"));
        let stat = "42 (ho\"l d) D 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0\n";
        self.write("proc/42/task/42/stat", stat);
        self.write("proc/42/task/42/stack", format!("[<0>] {frame}\n"));
        self.write("proc/42/cgroup", "0::/system.slice/db.service\n");
        self.write("proc/42/task/42/cgroup", "0::/system.slice/db.service\n");
    }

    /// The root directory of the host.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path below the host's root.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Creates a directory and its parents.
    pub fn create_dir(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    /// Writes a file, and creates its directory if needed.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a file and dates it back, because the monitor treats a file that changed within the
    /// last second as one that is still being written.
    pub fn write_settled(&self, name: &str, text: impl AsRef<[u8]>) {
        self.write(name, text);
        self.settle(name);
    }

    /// Dates a file back by a minute.
    pub fn settle(&self, name: &str) {
        let file = fs::File::open(self.path(name)).unwrap();
        let then = SystemTime::now() - Duration::from_secs(60);
        file.set_modified(then).unwrap();
    }

    /// The monitor's `binary` with these arguments, on this host unless they name another path. It
    /// inherits nothing of the test's own environment.
    pub fn command(&self, binary: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(arguments);
        self.complete(&mut command, arguments);
        command
    }

    /// Adds this host's paths to a command, except for those that are `given`.
    pub fn complete(&self, command: &mut Command, given: &[&str]) {
        for (flag, name) in PLACES {
            if !given.iter().any(|word| word.starts_with(flag)) {
                command.arg(flag).arg(self.path(name));
            }
        }
        Self::shield(command);
    }

    /// Removes the test's own environment (proxies, systemd) from a command.
    pub fn shield(command: &mut Command) {
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"] {
            command.env_remove(name);
        }
    }
}
