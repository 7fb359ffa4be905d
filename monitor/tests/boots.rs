//! Whose boot it was: a host that crashed, a machine cloned from it, a crash kernel; and
//! which dumps are believed. On a fake host, with one process of the monitor for each boot.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    thread,
    time::Duration,
};

use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
};
use rustix::process::Signal;

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// The monitor in a boot of this id.
fn boot(host: &FakeHost, number: u32, flags: &[&str]) -> Process {
    let id = format!("3f1c4a52-0000-4000-8000-{number:012}\n");
    host.write("proc/sys/kernel/random/boot_id", id);
    let serve = ["serve", "--web.listen-address", "127.0.0.1:0"];
    Process::serve(host.command(BINARY, &[&serve, flags].concat()))
}

/// Lets the machine lose its power.
fn lose_power(monitor: Process) {
    monitor.metrics();
    monitor.signal(Signal::KILL);
    monitor.finish();
}

/// Waits until the journal of the boot has the running transition: a thread of its own writes
/// it.
fn wait_for_the_journal(host: &FakeHost, number: u32) {
    let name = format!("state/recorder/3f1c4a52-0000-4000-8000-{number:012}.rec");
    let written = || {
        let journal = fs::read(host.path(&name)).unwrap_or_default();
        let journal = String::from_utf8_lossy(&journal).into_owned();
        journal.contains("\"transition\"") && journal.contains("\"patches\"")
    };
    for _ in 0..6000 {
        if written() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(written(), "{name} has no transition");
}

fn run(host: &FakeHost, arguments: &[&str]) -> Answer {
    Process::run(host.command(BINARY, arguments))
}

fn line<'a>(metrics: &'a str, start: &str) -> Option<&'a str> {
    metrics.lines().find(|line| line.starts_with(start))
}

#[test]
fn a_clone_does_not_report_its_templates_boot() {
    let host = FakeHost::held();
    host.write(
        "rootfs/etc/machine-id",
        "0123456789abcdef0123456789abcdef\n",
    );
    let monitor = boot(&host, 1, &[]);
    wait_for_the_journal(&host, 1);
    lose_power(monitor);
    // The copy that is still the same machine knows of its crash.
    let monitor = boot(&host, 2, &[]);
    let metrics = monitor.metrics();
    assert_eq!(
        line(&metrics, "livepatch_boot_unclean"),
        Some("livepatch_boot_unclean 1")
    );
    let last = line(&metrics, "livepatch_last_crash_info").unwrap();
    assert!(last.contains("phase=\"transition\""), "{last}");
    lose_power(monitor);

    host.write(
        "rootfs/etc/machine-id",
        "ffffffffffffffffffffffffffffffff\n",
    );
    run(&host, &["crashes"]).says(0, &["copied from another machine"]);
    let monitor = boot(&host, 3, &[]);
    let metrics = monitor.metrics();
    assert_eq!(line(&metrics, "livepatch_boot_unclean"), None);
    assert_eq!(line(&metrics, "livepatch_last_crash_info"), None);
    let said = monitor.text();
    assert!(said.contains("this one starts over"), "{said}");
    drop(monitor);
    // Nothing is lost.
    let mut entries = fs::read_dir(host.path("state")).unwrap();
    let aside = entries.find_map(|entry| {
        let path = entry.unwrap().path();
        path.to_string_lossy()
            .contains("of-machine-")
            .then_some(path)
    });
    assert!(aside.unwrap().join("crashes").is_dir());
}

#[test]
fn a_crash_kernel_is_no_boot() {
    let host = FakeHost::held();
    let monitor = boot(&host, 1, &[]);
    wait_for_the_journal(&host, 1);
    lose_power(monitor);
    // The crash kernel starts services; it has no livepatch.
    fs::rename(host.path("sys/kernel/livepatch"), host.path("livepatch")).unwrap();
    host.write("proc/vmcore", "");
    let mut monitor = boot(&host, 2, &[]);
    let said = monitor.wait_for_line("crash kernel");
    assert!(said.contains("nothing is recorded"), "{said}");
    lose_power(monitor);
    // And the next boot.
    fs::remove_file(host.path("proc/vmcore")).unwrap();
    let metrics = boot(&host, 3, &[]).metrics();
    let last = line(&metrics, "livepatch_last_crash_info").unwrap();
    for label in ["phase=\"transition\"", "kind=\"reset\""] {
        assert!(last.contains(label), "no {label} in {last}");
    }
    assert!(
        metrics.contains("\nlivepatch_crashes_total 1\n"),
        "{metrics}"
    );
    let crashes = run(&host, &["crashes", "--json"]).json();
    assert_eq!(crashes["crashes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_container_says_that_it_is_none() {
    let host = FakeHost::held();
    host.create_dir("proc/self/ns");
    symlink("pid:[4026532201]", host.path("proc/self/ns/pid")).unwrap();
    // Those of the image.
    let half_done = "Package: a\nStatus: install ok unpacked\n";
    host.write("rootfs/var/lib/dpkg/status", half_done);
    let mut monitor = boot(&host, 1, &[]);
    let said = monitor.wait_for_line("container");
    assert!(said.contains("not a host"), "{said}");
    // Nor does it count as one.
    let metrics = monitor.metrics();
    for series in [
        "livepatch_kernel_info",
        "livepatch_patch_info",
        "livepatch_patch_enabled",
        "livepatch_transition_active",
        "livepatch_pending_tasks",
        "livepatch_crashes_total",
        "livepatch_boot_unclean",
        "livepatch_update_interrupted",
    ] {
        assert_eq!(line(&metrics, series), None);
    }
    let failed = "livepatch_monitor_collector_success{collector=\"sysfs\"} 0";
    assert!(metrics.contains(failed), "{metrics}");
    assert_eq!(monitor.get("/-/ready", &[]).status, 503);
    lose_power(monitor);
    assert!(!host.path("state/recorder").exists());
}

/// A user without privileges puts a crash of a livepatch where kdump puts its dumps.
#[test]
fn a_planted_dump_is_named_and_nothing_else() {
    let host = FakeHost::held();
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/crash/6.1/oops.log"
    );
    let dump = fs::read(fixture).unwrap();
    host.write("crash/root/dmesg.1", &dump);
    host.write("crash/planted/dmesg.1", &dump);
    let mode = |path: &str, mode| {
        fs::set_permissions(host.path(path), Permissions::from_mode(mode)).unwrap();
    };
    for path in ["crash", "crash/root", "crash/planted"] {
        mode(path, 0o755);
    }
    mode("crash/root/dmesg.1", 0o600);
    // Whoever runs the tests is root only sometimes: the owner is wrong, or the mode is.
    mode("crash/planted", 0o777);
    symlink(host.path("crash/root"), host.path("crash/link")).unwrap();
    let crash = host.path("crash");
    let flags = ["--path.kdump", crash.to_str().unwrap()];
    let is_root = rustix::process::getuid().is_root();

    let mut monitor = boot(&host, 1, &flags);
    let said = monitor.wait_for_line("not trusted");
    assert!(said.contains("crash"), "{said}");
    let metrics = monitor.metrics();
    let page = monitor.get("/", &[]).body;
    for text in ["planted", "crash/link"] {
        assert!(!metrics.contains(text) && !page.contains(text), "{text}");
    }
    let total = line(&metrics, "livepatch_crashes_total");
    assert_eq!(
        total,
        Some(format!("livepatch_crashes_total {}", u8::from(is_root))).as_deref()
    );
    drop(monitor);
    let code = if is_root { 0 } else { 1 };
    let crashes = run(&host, &[&["crashes"], &flags[..]].concat());
    crashes.says(code, &["Not trusted, and not counted"]);
    if is_root {
        crashes.says(
            0,
            &[
                "crash/planted: others than root",
                "crash/link: a symbolic link",
            ],
        );
    }
    let json = run(&host, &[&["crashes", "--json"], &flags[..]].concat()).json();
    assert!(!json["untrusted"].as_array().unwrap().is_empty());
}
