//! The binary from a user's point of view: bad input, hosts that lack everything, and the fallback
//! to sysfs and /proc on a fake host.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    process::{Command, Stdio},
};

use livepatch_monitor_ebpf::EventKind;
use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process, promtool},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

fn run(host: &FakeHost, arguments: &[&str]) -> Answer {
    Process::run(host.command(BINARY, arguments))
}

/// An exporter for which every transition is stuck.
fn serve(host: &FakeHost) -> Process {
    Process::serve(host.command(
        BINARY,
        &[
            "serve",
            "--web.listen-address",
            "127.0.0.1:0",
            "--stuck-after",
            "0s",
            "--log.format",
            "json",
        ],
    ))
}

#[test]
fn invalid_arguments_are_named() {
    let host = FakeHost::default();
    run(&host, &["serve", "--web.listen-adress", "x"])
        .refuses(&["--web.listen-adress", "--web.listen-address"]);
    run(&host, &["serve", "--web.listen-address", "here"])
        .refuses(&["here", "--web.listen-address"]);
    run(&host, &["serve", "--stuck-after", "soon"]).refuses(&["soon", "--stuck-after", "15s"]);
    run(&host, &["serve", "--web.telemetry-path", "metrics"]).refuses(&["metrics", "/metrics"]);
    run(&host, &["serve", "--log.level", "loud"]).refuses(&["loud", "debug"]);
    run(&host, &["blocker"]).refuses(&["blocker", "blockers"]);
}

#[test]
fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let host = FakeHost::default();
    run(&host, &["serve", "--web.listen-address", &address]).refuses(&[
        &address,
        "--web.listen-address",
        "in use",
    ]);
}

#[test]
fn a_missing_sysfs_is_named() {
    let host = FakeHost::default();
    fs::remove_dir_all(host.path("sys")).unwrap();
    for command in ["status", "blockers"] {
        run(&host, &[command]).refuses(&[host.path("sys").to_str().unwrap()]);
    }
}

#[test]
fn a_kernel_without_livepatch_is_reported() {
    let host = FakeHost::default();
    for command in ["status", "blockers"] {
        let answer = run(&host, &[command]);
        assert_eq!(answer.code, Some(0));
        assert!(
            answer.out.contains("no livepatch support"),
            "{}",
            answer.out
        );
    }
    let exporter = serve(&host);
    assert!(
        exporter.text().contains("CONFIG_LIVEPATCH"),
        "{}",
        exporter.text()
    );
    let metrics = exporter.metrics();
    assert!(metrics.contains("\nlivepatch_supported 0\n"), "{metrics}");
    assert!(
        metrics.contains("probe=\"klp_init_transition\"} 0\n"),
        "{metrics}"
    );
    assert!(!metrics.contains("livepatch_pending_tasks"), "{metrics}");
}

#[test]
fn a_kernel_that_another_mechanism_patched_is_not_called_unpatched() {
    let host = FakeHost::default();
    host.write("sys/module/kpatch/initstate", "live\n");
    host.write("sys/kernel/kpatch/kpatch_old/enabled", "1\n");
    for command in ["status", "blockers"] {
        let answer = run(&host, &[command]);
        answer.says(0, &["patched by another mechanism", "kpatch core"]);
        assert!(!answer.out.contains("no livepatch"), "{}", answer.out);
    }
    let doctor = run(&host, &["doctor"]);
    let remedy = "boot a kernel with CONFIG_LIVEPATCH";
    let lines = doctor
        .out
        .lines()
        .filter(|line| line.contains("livepatch support"));
    assert!(
        lines.clone().count() > 0 && lines.clone().all(|line| !line.contains(remedy)),
        "{}",
        doctor.out
    );
}

#[test]
fn names_of_any_bytes_are_shown_escaped() {
    let host = FakeHost::default();
    let patch = "sys/kernel/livepatch/fix\x1b[2Jv\n1";
    host.write(&format!("{patch}/enabled"), "1\n");
    host.write(&format!("{patch}/transition"), "1\n");
    host.create_dir(&format!("{patch}/ob\x1bj/hold\x1b,1"));
    host.task("hold+0x10/0x40 [target]", 0);
    for command in [&["status"][..], &["blockers"], &["blockers", "--stack"]] {
        let answer = run(&host, command);
        answer.says(1, &["fix\\x1b[2Jv\\n1"]);
        let raw = |c: char| c.is_control() && c != '\n';
        assert!(!answer.text().contains(raw), "{:?}", answer.text());
    }
}

#[test]
fn without_probes_a_blocker_is_still_named() {
    let host = FakeHost::held();
    let answer = run(&host, &["blockers", "--json"]);
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(
        (&report["patch"], &report["pending"]),
        (&"fix".into(), &1.into())
    );
    let task = &report["tasks"][0];
    assert_eq!(
        (&task["pid"], &task["comm"]),
        (&42.into(), &"ho\"l d".into())
    );
    assert_eq!(
        (&task["reason"], &task["unit"]),
        (&"sleeping".into(), &"db.service".into())
    );
    assert_eq!(
        (&task["function"], &task["object"]),
        (&"hold".into(), &"target".into())
    );
    assert_eq!(task["stack"][0], "hold+0x10/0x40 [target]");
    assert!(
        report["attempts"].is_null(),
        "not known without probes: {report}"
    );
}

#[test]
fn without_probes_the_metrics_say_what_can_be_known() {
    let host = FakeHost::held();
    let exporter = serve(&host);
    let metrics = exporter.metrics();
    for line in [
        "livepatch_transition_active{direction=\"patch\",patch=\"fix\"} 1",
        "livepatch_pending_tasks{patch=\"fix\",reason=\"sleeping\"} 1",
        "livepatch_stuck_tasks{patch=\"fix\",reason=\"sleeping\"} 1",
        "livepatch_blocking_tasks{function=\"hold\",object=\"target\",patch=\"fix\"} 1",
        "livepatch_monitor_probe_attached{method=\"none\",probe=\"klp_init_transition\"} 0",
    ] {
        assert!(
            metrics.contains(&format!("{line}\n")),
            "no {line} in:\n{metrics}"
        );
    }
    // Root attaches the tracepoints, which are those of the real kernel; nobody else does.
    let attached = metrics
        .lines()
        .find_map(|line| line.strip_prefix("livepatch_monitor_probes_attached "))
        .and_then(|number| number.parse().ok());
    let missing = metrics.matches("livepatch_monitor_probe_attached{").count();
    // Each hook, the scan of tasks, and transitions, which sysfs shows.
    let all = EventKind::ALL.len() + 2;
    assert_eq!(attached, Some(all - missing), "{metrics}");
    assert!(attached >= Some(1), "{metrics}");
    // What replaces a probe is on the status page.
    let page = exporter.get("/", &[]).body;
    let row = "<tr><th><code>transition</code></th><td>sysfs</td><td></td></tr>";
    assert!(page.contains(row), "no {row} in:\n{page}");
    // Already running when it was found, and the log does not reach back: no start is invented.
    assert!(
        !metrics.contains("livepatch_transition_start_timestamp_seconds"),
        "{metrics}"
    );
    assert!(!metrics.contains("livepatch_patch_forced"), "{metrics}");
}

#[test]
fn invalid_values_are_left_out() {
    let host = FakeHost::held();
    host.write("sys/kernel/livepatch/fix/enabled", "");
    host.write("sys/kernel/livepatch/odd/enabled", "17\n");
    let exporter = serve(&host);
    let metrics = exporter.metrics();
    assert!(!metrics.contains("livepatch_patch_enabled"), "{metrics}");
    assert!(
        metrics.contains("livepatch_patch_info{build_id=\"unknown\",patch=\"odd\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("livepatch_monitor_collector_success{collector=\"sysfs\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn unknown_tasks_are_not_zero() {
    let host = FakeHost::held();
    fs::remove_dir_all(host.path("proc/42")).unwrap();
    // A process whose state cannot be read.
    host.write("proc/43/task/43/stat", "43 (x) S 1\n");
    let exporter = serve(&host);
    let metrics = exporter.metrics();
    assert!(
        !metrics.contains("livepatch_pending_tasks{patch=\"fix\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("livepatch_monitor_collector_success{collector=\"tasks\"} 0\n"),
        "{metrics}"
    );
}

/// State of 0.1.0 is known to the first monitor, to the next one after it was killed, and to a
/// command, which reads it without the monitor's lock.
#[test]
fn the_start_of_a_transition_outlives_its_monitor() {
    let host = FakeHost::held();
    let boot_id = fs::read_to_string(host.path("proc/sys/kernel/random/boot_id")).unwrap();
    let boot_id = boot_id.trim();
    host.write(
        "state/transition.json",
        format!(
            r#"{{"version":1,"boot_id":"{boot_id}","start_unix_seconds":1795438218.0,"transitions":
            {{"active":{{"patch":"fix","direction":"patch","start":1000000000,"attempts":9,
            "forced":false,"cancelling":false}}}}}}"#
        ),
    );
    let start = "livepatch_transition_start_timestamp_seconds{patch=\"fix\"} 1795438218\n";
    for round in 0..2 {
        let exporter = serve(&host);
        let metrics = exporter.metrics();
        assert!(metrics.contains(start), "round {round}: {metrics}");
        assert!(!host.path("state/transition.json").exists());
        let status = run(&host, &["status", "--json"]).json();
        let age = &status["transition"]["running_for_seconds"];
        assert!(age.as_f64().is_some_and(|age| age > 0.0), "{status}");
        drop(exporter);
    }
}

#[test]
fn a_state_file_of_a_newer_version_is_left_alone() {
    let host = FakeHost::held();
    host.write("state/transition.json", "{\"version\": 99}");
    let exporter = serve(&host);
    assert!(
        exporter.text().contains("transition.json"),
        "{}",
        exporter.text()
    );
    exporter.metrics();
    drop(exporter);
    let text = fs::read_to_string(host.path("state/transition.json")).unwrap();
    assert_eq!(text, "{\"version\": 99}");
}

#[test]
fn a_state_directory_that_cannot_be_written_costs_only_the_state() {
    let host = FakeHost::held();
    fs::write(host.path("state"), "a file").unwrap();
    let exporter = serve(&host);
    assert!(
        exporter.text().contains("--state-dir"),
        "{}",
        exporter.text()
    );
    exporter.metrics();
}

#[test]
fn unknown_paths_are_not_found() {
    let host = FakeHost::default();
    let exporter = serve(&host);
    assert_eq!(exporter.get("/nothing", &[]).status, 404);
    let ready = exporter.get("/-/ready", &[]);
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    fs::remove_dir_all(host.path("sys")).unwrap();
    let ready = exporter.get("/-/ready", &[]);
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("is not sysfs"), "{ready:?}");
    let healthy = exporter.get("/-/healthy", &[]);
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    let page = exporter.get("/", &[]);
    assert_eq!(page.status, 200);
    assert!(page.body.contains("href=\"/metrics\""), "{page:?}");
}

#[test]
fn the_status_page_names_the_blocker() {
    let host = FakeHost::held();
    let exporter = serve(&host);
    let answer = exporter.get("/", &[]);
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    let policy = answer.header("content-security-policy").unwrap();
    let strict = "default-src 'none'; style-src 'sha256-";
    assert!(policy.starts_with(strict), "{policy}");
    let page = answer.body;
    for text in [
        "STUCK: the transition of fix, patching for an unknown time, 1 task pending.",
        "process 42 &quot;ho\\&quot;l d&quot;, unit db.service",
        "asleep in hold (module target), which the patch replaces",
        "vfs_read+0x90/0x300",
        "task_scan",
        "http-equiv=\"refresh\"",
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    let page = exporter.get("/?refresh=off", &[]).body;
    assert!(!page.contains("http-equiv=\"refresh\""), "{page}");
}

#[test]
fn the_status_page_says_what_cannot_be_read() {
    let host = FakeHost::held();
    fs::remove_dir_all(host.path("proc/42")).unwrap();
    host.write("proc/43/task/43/stat", "43 (x) S 1\n");
    fs::write(host.path("state"), "a file").unwrap();
    fs::remove_file(host.path("kmsg")).unwrap();
    let exporter = serve(&host);
    let page = exporter.get("/", &[]).body;
    for text in [
        "an unknown number of tasks pending",
        "Which tasks are pending is unknown.",
        "collector tasks could not read all it needs: cannot determine the pending tasks",
        "journal entries that did not reach the disk",
        "kmsg cannot be read",
        "--state-dir",
        "probes not attached",
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
}

#[test]
fn promtool_finds_no_fault() {
    let host = FakeHost::held();
    let exporter = serve(&host);
    let metrics = exporter.metrics();
    let Some(promtool) = promtool("promtool's check of the metrics") else {
        return;
    };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let answer = Answer::from(check.wait_with_output().unwrap());
    assert_eq!(
        (answer.code, answer.out.as_str(), answer.err.as_str()),
        (Some(0), "", "")
    );
}
