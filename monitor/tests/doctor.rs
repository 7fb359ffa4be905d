//! `doctor` on a fake host.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

fn run(host: &FakeHost, arguments: &[&str]) -> Answer {
    Process::run(host.command(BINARY, arguments))
}

/// The status of a check.
fn status(host: &FakeHost, check: &str) -> String {
    let answer = run(host, &["doctor", "--json"]);
    let report = answer.json();
    assert_eq!(
        report["exit_code"],
        serde_json::json!(answer.code),
        "{report}"
    );
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|one| one["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} in {report}"));
    found["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_host_without_livepatch_fails_with_the_remedy() {
    let host = FakeHost::default();
    run(&host, &["doctor"]).says(
        1,
        &[
            "FAILURE  livepatch            this kernel has no livepatch support",
            "do: boot a kernel with CONFIG_LIVEPATCH=y",
            "FAILURE  probes",
            "unknown  ftrace_enabled",
            "unknown  lockdown             cannot determine the level of kernel lockdown",
            "do: mount securityfs",
            "WARNING  btf",
        ],
    );
}

#[test]
fn each_setting_is_read_from_its_file() {
    let host = FakeHost::default();
    host.create_dir("sys/kernel/livepatch");
    assert_eq!(status(&host, "livepatch"), "ok");
    for (file, check, good, bad, worst) in [
        (
            "proc/sys/kernel/ftrace_enabled",
            "ftrace_enabled",
            "1\n",
            "0\n",
            "failure",
        ),
        (
            "proc/sys/kernel/kptr_restrict",
            "kptr_restrict",
            "1\n",
            "2\n",
            "warning",
        ),
        ("proc/sys/kernel/panic", "panic", "10\n", "0\n", "warning"),
        (
            "sys/kernel/kexec_crash_loaded",
            "kdump",
            "1\n",
            "?",
            "unknown",
        ),
        (
            "sys/kernel/security/lsm",
            "landlock",
            "lockdown,capability,landlock,bpf",
            "capability,apparmor",
            "warning",
        ),
    ] {
        assert_eq!(status(&host, check), "unknown", "{check}");
        host.write(file, good);
        assert_eq!(status(&host, check), "ok", "{check}");
        host.write(file, bad);
        assert_eq!(status(&host, check), worst, "{check}");
    }
    // With securityfs, but no lockdown: that is known since the list of modules is there.
    assert_eq!(status(&host, "lockdown"), "ok");
    for (text, then) in [
        ("none [integrity] confidentiality\n", "ok"),
        ("none integrity [confidentiality]\n", "failure"),
        ("none integrity\n", "unknown"),
    ] {
        host.write("sys/kernel/security/lockdown", text);
        assert_eq!(status(&host, "lockdown"), then, "{text}");
    }
    host.write("sys/module/kcare/initstate", "live\n");
    assert_eq!(status(&host, "other_mechanism"), "warning");
    // A log with what the clock was set to, in 2001.
    host.write(
        "kmsg",
        "6,100,1000000,-;rtc_cmos 00:04: setting system clock to 2001-09-09T01:46:40 UTC (1000000000)\n",
    );
    run(&host, &["doctor"]).says(1, &["ahead of what the kernel log says it was set to"]);
}
