//! `preflight` on hosts made by hand and the module of a real kernel: what it reads, what it
//! says, what it answers. (Whether the kernel then does so, the VM scenarios show.)
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/preflight/lpm_replace.ko"
);

struct Host {
    root: TempDir,
}

impl Host {
    /// A host for which the module was built, with nothing in its way.
    fn ready() -> Self {
        let host = Self {
            root: tempfile::tempdir().unwrap(),
        };
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
        fs::create_dir_all(host.path("sys/kernel/livepatch")).unwrap();
        host.task("lpm_other+0x4/0x40 [lpm_target]");
        host
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Its one task is here.
    fn task(&self, frame: &str) {
        self.write("proc/42/task/42/patch_state", "-1\n");
        let stat = "42 (ho\"l d) D 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0\n";
        self.write("proc/42/task/42/stat", stat);
        self.write("proc/42/task/42/stack", &format!("[<0>] {frame}\n"));
        self.write("proc/42/cgroup", "0::/system.slice/db.service\n");
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_livepatch-monitor"))
            .args(["preflight", "--sample", "0s"])
            .args(arguments)
            .arg("--path.sysfs")
            .arg(self.path("sys"))
            .arg("--path.procfs")
            .arg(self.path("proc"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("panicked"), "{errors}");
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }

    #[track_caller]
    fn expect(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let (answer, text) = self.run(arguments);
        assert_eq!(answer, Some(code), "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in:\n{text}");
        }
    }
}

#[test]
fn clear() {
    let host = Host::ready();
    let words = [
        "lpm_replace.ko: clear: nothing is in the way\n",
        "1 sample in ",
        "by /proc, 1 task: none would hold it up",
        "replaces all other livepatches",
        "lpm_target: lpm_hold, lpm_kthread_sleep, lpm_spin, lpm_version",
        "threads: 95, CPUs: 2",
    ];
    host.expect(&[MODULE], 0, &words);
}

#[test]
fn a_task_in_the_way_is_a_warning() {
    let host = Host::ready();
    host.task("lpm_hold+0x4/0x40 [lpm_target]");
    let words = [
        "lpm_replace.ko: warnings: 1\n  WARNING  1 task in lpm_hold (module lpm_target)",
        r#"process 42 "ho\"l d", unit db.service, state D, in 1 of 1 samples"#,
    ];
    host.expect(&[MODULE], 1, &words);
    let (_, json) = host.run(&["--json", MODULE]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let likely = &json["modules"][0]["forecast"]["likely"][0];
    assert_eq!(
        (&likely["tid"], &likely["function"]),
        (&42.into(), &"lpm_hold".into())
    );
    assert_eq!(json["verdict"], "warnings");
}

#[test]
fn another_kernel_and_another_file() {
    let host = Host::ready();
    host.write("proc/sys/kernel/osrelease", "6.1.0\n");
    let script = host.path("script.ko");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let script = script.to_str().unwrap();
    let words = [
        "FAILS    it was built for kernel 6.12.95+deb12-cloud-amd64, and this is 6.1.0",
        "script.ko: will fail\n  FAILS    it is no kernel module",
        "one at a time",
    ];
    host.expect(&[MODULE, script], 2, &words);
    host.expect(&["/nonexistent.ko"], 2, &["cannot read it"]);
}

#[test]
fn what_cannot_be_told_is_not_clear() {
    for (missing, says) in [
        (
            "proc/kallsyms",
            "whether its functions are in this kernel cannot be told",
        ),
        ("proc/modules", "which modules are loaded cannot be told"),
        (
            "proc/sys/kernel/osrelease",
            "which kernel runs cannot be told",
        ),
    ] {
        let host = Host::ready();
        fs::remove_file(host.path(missing)).unwrap();
        host.expect(&[MODULE], 2, &["cannot tell\n  UNKNOWN", says, missing]);
    }
    let host = Host::ready();
    fs::remove_dir_all(host.path("sys/kernel/livepatch")).unwrap();
    host.expect(&[MODULE], 2, &["this kernel has no livepatch support"]);
}

#[test]
fn tracers_that_cannot_be_read_are_a_warning() {
    let host = Host::ready();
    fs::remove_file(host.path("sys/kernel/debug/kprobes/list")).unwrap();
    host.expect(&[MODULE], 1, &["kprobes cannot be told", "kprobes/list"]);
}

#[test]
fn compressed_is_as_good() {
    let host = Host::ready();
    let packed = host.path("packed.ko.xz");
    let xz = Path::new(MODULE).with_extension("ko.xz");
    fs::copy(xz, &packed).unwrap();
    host.expect(&[packed.to_str().unwrap()], 0, &["module lpm_replace"]);
}
