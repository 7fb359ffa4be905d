//! Installed livepatches and those in force, as each output shows them: `status`, the
//! metrics, the status page.

use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

fn run(host: &FakeHost, arguments: &[&str]) -> Answer {
    Process::run(host.command(BINARY, arguments))
}

/// A loaded livepatch module.
fn module(host: &FakeHost, name: &str) {
    host.write(&format!("sys/module/{name}/taint"), "OEK\n");
    host.write(&format!("sys/module/{name}/initstate"), "live\n");
}

fn in_force(host: &FakeHost, name: &str, replace: &str) {
    module(host, name);
    let patch = format!("sys/kernel/livepatch/{name}");
    host.write(&format!("{patch}/enabled"), "1\n");
    host.write(&format!("{patch}/transition"), "0\n");
    host.write(&format!("{patch}/replace"), replace);
    host.create_dir(&format!("{patch}/vmlinux/show,1"));
}

/// Installed for the kernel that `status` reads from procfs, and for the one that the system
/// reports to the exporter.
fn install(host: &FakeHost, file: &str) {
    let running = rustix::system::uname();
    for release in ["6.12", &running.release().to_string_lossy()] {
        host.write(
            &format!("rootfs/var/lib/kpatch/{release}/{file}"),
            "any bytes",
        );
    }
}

#[test]
fn every_output_agrees_on_a_superseded_patch() {
    let host = FakeHost::default();
    in_force(&host, "kpatch_fix_v2", "1\n");
    module(&host, "kpatch_fix_v1");
    install(&host, "kpatch-fix-v1.ko.xz");
    install(&host, "kpatch-fix-v2.ko.xz");

    let status = run(&host, &["status"]);
    status.says(
        0,
        &[
            "kpatch_fix_v2 version 2: enabled, 1 functions in vmlinux, replaces all others",
            "kpatch_fix_v1: loaded, not in force: it was disabled or replaced",
            "kpatch_fix_v1: is superseded by kpatch_fix_v2, which is in force",
        ],
    );
    assert!(!status.out.contains("should be in force"), "{}", status.out);
    let json = run(&host, &["status", "--json"]).json();
    assert_eq!(json["left_over"], serde_json::json!(["kpatch_fix_v1"]));
    assert_eq!(json["expected"][0]["missing"], false, "{json}");
    assert_eq!(json["expected"][0]["superseded_by"], "kpatch_fix_v2");

    let exporter =
        Process::serve(host.command(BINARY, &["serve", "--web.listen-address", "127.0.0.1:0"]));
    let metrics = exporter.metrics();
    for line in [
        "livepatch_patch_missing{patch=\"kpatch_fix_v1\"} 0",
        "livepatch_patch_missing{patch=\"kpatch_fix_v2\"} 0",
        "livepatch_modules_left_over 1",
        "livepatch_other_mechanisms 0",
    ] {
        assert!(
            metrics.contains(&format!("\n{line}\n")),
            "no {line} in {metrics}"
        );
    }
    let page = exporter.get("/", &[]).body;
    for text in [
        "is superseded by kpatch_fix_v2, which is in force",
        "Loaded and not in force",
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    assert!(!page.contains("Patch missing"), "{page}");
}

#[test]
fn a_patch_that_another_one_took_out_of_force_is_missing() {
    let host = FakeHost::default();
    in_force(&host, "hotfix", "1\n");
    module(&host, "kpatch_fix_v1");
    install(&host, "kpatch-fix-v1.ko");
    run(&host, &["status"]).says(
        0,
        &["kpatch_fix_v1: should be in force; its module is loaded, but hotfix replaces all others"],
    );
    let exporter =
        Process::serve(host.command(BINARY, &["serve", "--web.listen-address", "127.0.0.1:0"]));
    let metrics = exporter.metrics();
    let line = "livepatch_patch_missing{patch=\"kpatch_fix_v1\"} 1";
    assert!(metrics.contains(line), "no {line} in {metrics}");
}

#[test]
fn another_mechanism_is_never_no_livepatch() {
    let host = FakeHost::default();
    host.write("sys/module/ksplice_q3k1xx_vmlinux_new/taint", "OE\n");
    host.write("sys/module/ksplice_q3k1xx_vmlinux_new/initstate", "live\n");
    // With and without livepatch in the kernel.
    for supported in [false, true] {
        if supported {
            host.create_dir("sys/kernel/livepatch");
        }
        let status = run(&host, &["status"]);
        status.says(
            0,
            &["patched by another mechanism, which this monitor cannot watch: Ksplice"],
        );
        for never in ["no livepatch is loaded", "no livepatch support"] {
            assert!(!status.out.contains(never), "{}", status.out);
        }
        let json = run(&host, &["status", "--json"]).json();
        assert_eq!(json["other_mechanisms"], serde_json::json!(["ksplice"]));
        let exporter =
            Process::serve(host.command(BINARY, &["serve", "--web.listen-address", "127.0.0.1:0"]));
        let line = "livepatch_other_mechanisms 1";
        assert!(exporter.metrics().contains(line), "no {line}");
        let page = exporter.get("/", &[]).body;
        assert!(page.contains("<title>Not watched"), "{page}");
    }
}

#[test]
fn every_output_says_which_functions_are_in_force() {
    let host = FakeHost::default();
    in_force(&host, "fix", "0\n");
    host.create_dir("sys/kernel/livepatch/fix/vmlinux/store,1");
    host.create_dir("sys/kernel/livepatch/fix/vmlinux/should_failslab,1");
    host.create_dir("sys/kernel/livepatch/fix/late/init,1");
    host.write("proc/modules", "fix 16384 1 - Live 0x0 (OEK)\n");
    let lists = "sys/kernel/debug";
    host.write(
        &format!("{lists}/tracing/enabled_functions"),
        "show (1) R I     \ttramp: 0xffffffffc0a7e000 (klp_ftrace_handler+0x0/0x1e0)\n\
         should_failslab (2) R I D M \ttramp: 0xffffffffc0a80000\n\
         \tdirect-->bpf_trampoline_6442536467+0x0/0xf3\n",
    );
    host.write(&format!("{lists}/kprobes/list"), "");
    host.write(
        &format!("{lists}/error_injection/list"),
        "should_failslab\tEI_ETYPE_ERRNO\n",
    );
    let says = [
        "1 of 4 functions are in force",
        "should_failslab (vmlinux) may be overridden by ",
        "store (vmlinux) is not redirected: enabled_functions shows no livepatch on it",
        "init (late) is in a module that is not loaded",
    ];
    run(&host, &["status"]).says(0, &says);
    let exporter =
        Process::serve(host.command(BINARY, &["serve", "--web.listen-address", "127.0.0.1:0"]));
    let metrics = exporter.metrics();
    for line in [
        "functions_in_force{object=\"vmlinux\",patch=\"fix\"} 1",
        "functions_in_force{object=\"late\",patch=\"fix\"} 0",
        "functions_not_in_force{patch=\"fix\",reason=\"may_be_overridden\"} 1",
        "functions_not_in_force{patch=\"fix\",reason=\"not_redirected\"} 1",
        "functions_not_in_force{patch=\"fix\",reason=\"object_not_loaded\"} 1",
    ] {
        let line = format!("\nlivepatch_patch_{line}\n");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let none = "functions_not_in_force{patch=\"fix\",reason=\"unknown\"}";
    assert!(!metrics.contains(none), "{none} in {metrics}");
    let page = exporter.get("/", &[]).body;
    assert!(page.contains("1 of 4 functions are in force."), "{page}");
    // A value that cannot be read is unknown, not 0.
    std::fs::remove_dir_all(host.path(lists)).unwrap();
    let status = run(&host, &["status"]);
    status.says(0, &["how many of its functions are in force is unknown"]);
}

#[test]
fn a_drill_is_marked_as_one() {
    let host = FakeHost::default();
    let quiet = ["serve", "--web.listen-address", "127.0.0.1:0"];
    let exporter = Process::serve(host.command(BINARY, &quiet));
    assert!(!exporter.metrics().contains("livepatch_drill"));
    let drill = [&quiet[..], &["--drill", "critical"]].concat();
    let exporter = Process::serve(host.command(BINARY, &drill));
    let metrics = exporter.metrics();
    assert!(
        metrics.contains("\nlivepatch_drill{level=\"critical\"} 1\n"),
        "{metrics}"
    );
    assert!(
        exporter.text().contains("a drill runs"),
        "{}",
        exporter.text()
    );
    assert!(
        exporter
            .get("/", &[])
            .body
            .contains("Nothing has happened.")
    );
}
