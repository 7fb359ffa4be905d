//! `preflight` on fake hosts, with a livepatch that was built for a real kernel.

use std::{fs, path::Path};

use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");
const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/preflight/lpm_replace.ko"
);

fn ready() -> FakeHost {
    FakeHost::ready_for_lpm_replace()
}

fn preflight(host: &FakeHost, arguments: &[&str]) -> Answer {
    let arguments = [&["preflight", "--sample", "0s"], arguments].concat();
    Process::run(host.command(BINARY, &arguments))
}

#[test]
fn clear() {
    let host = ready();
    let words = [
        "lpm_replace.ko: clear: nothing is in the way\n",
        "1 sample in ",
        "by /proc, 1 task: none would hold it up",
        "replaces all other livepatches",
        "lpm_target: lpm_hold, lpm_kthread_sleep, lpm_spin, lpm_version",
        "threads: 95, CPUs: 2",
    ];
    preflight(&host, &[MODULE]).says(0, &words);
}

#[test]
fn a_task_in_the_way_is_a_warning() {
    let host = ready();
    host.task("lpm_hold+0x4/0x40 [lpm_target]", -1);
    let words = [
        "lpm_replace.ko: warnings: 1\n  WARNING  1 task in lpm_hold (module lpm_target)",
        r#"process 42 "ho\"l d", unit db.service, state D, in 1 of 1 samples"#,
    ];
    preflight(&host, &[MODULE]).says(1, &words);
    let json = preflight(&host, &["--json", MODULE]).json();
    let likely = &json["modules"][0]["forecast"]["likely"][0];
    assert_eq!(
        (&likely["tid"], &likely["function"]),
        (&42.into(), &"lpm_hold".into())
    );
    assert_eq!(json["verdict"], "warnings");
}

#[test]
fn another_kernel_and_another_file() {
    let host = ready();
    host.write("proc/sys/kernel/osrelease", "6.1.0\n");
    let script = host.path("script.ko");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let script = script.to_str().unwrap();
    let words = [
        "FAILS    it was built for kernel 6.12.95+deb12-cloud-amd64, and this is 6.1.0",
        "script.ko: will fail\n  FAILS    not a kernel module",
        "one at a time",
    ];
    preflight(&host, &[MODULE, script]).says(2, &words);
    preflight(&host, &["/nonexistent.ko"]).says(2, &["cannot read it"]);
}

#[test]
fn what_is_unknown_is_not_clear() {
    for (missing, says) in [
        (
            "proc/kallsyms",
            "cannot determine whether its functions are in this kernel",
        ),
        ("proc/modules", "cannot determine which modules are loaded"),
        (
            "proc/sys/kernel/osrelease",
            "cannot determine which kernel is running",
        ),
    ] {
        let host = ready();
        fs::remove_file(host.path(missing)).unwrap();
        preflight(&host, &[MODULE]).says(2, &["cannot determine\n  UNKNOWN", says, missing]);
    }
    let host = ready();
    fs::remove_dir_all(host.path("sys/kernel/livepatch")).unwrap();
    preflight(&host, &[MODULE]).says(2, &["this kernel has no livepatch support"]);
}

#[test]
fn tracers_that_cannot_be_read_are_a_warning() {
    let host = ready();
    fs::remove_file(host.path("sys/kernel/debug/kprobes/list")).unwrap();
    preflight(&host, &[MODULE]).says(1, &["cannot determine the kprobes", "kprobes/list"]);
}

#[test]
fn a_compressed_module_is_read() {
    let host = ready();
    let packed = host.path("packed.ko.xz");
    let xz = Path::new(MODULE).with_extension("ko.xz");
    fs::copy(xz, &packed).unwrap();
    preflight(&host, &[packed.to_str().unwrap()]).says(0, &["module lpm_replace"]);
}
