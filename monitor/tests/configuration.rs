//! `--config.check`, `--version` and `--textfile`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use livepatch_monitor_test_support::{
    host::FakeHost,
    http, left_out,
    process::{Answer, Process},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

fn check(host: &FakeHost, arguments: &[&str]) -> Answer {
    let arguments = [&["serve", "--config.check"], arguments].concat();
    Process::run(host.command(BINARY, &arguments))
}

/// A `serve` that writes its metrics to a file in this folder.
fn write_to(host: &FakeHost, folder: &Path, arguments: &[&str]) -> Process {
    let textfile = ["serve", "--textfile", folder.to_str().unwrap()];
    Process::serve(host.command(BINARY, &[&textfile[..], arguments].concat()))
}

/// A file's text, as soon as the file exists: it appears complete.
fn read_when_there(path: &Path) -> String {
    // The test runner ends a test that hangs.
    while !path.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_valid_configuration_is_accepted() {
    let host = FakeHost::default();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // A running monitor has the port, which is not an error of the configuration.
    let address = port.local_addr().unwrap().to_string();
    let state = host.path("state/made/later");
    let answer = check(
        &host,
        &[
            "--web.listen-address",
            &address,
            "--state-dir",
            state.to_str().unwrap(),
        ],
    );
    answer.says(0, &["the configuration is valid"]);
    assert!(!state.exists(), "checking has made something");
}

#[test]
fn an_invalid_value_is_named_with_its_flag() {
    let host = FakeHost::default();
    let file = host.path("kmsg");
    let file = file.to_str().unwrap();
    for (flag, value, reason) in [
        ("--web.listen-address", "192.0.2.1:9969", "Cannot assign"),
        ("--path.procfs", "/no/such", "not a procfs"),
        ("--path.sysfs", file, "not a sysfs"),
        ("--path.kmsg", "/no/such", "CAP_SYSLOG"),
        ("--path.rootfs", "/no/such", "No such file"),
        ("--expect-dir", file, "Not a directory"),
        ("--state-dir", file, "not a directory"),
        ("--textfile", "/no/such", "No such file"),
        ("--textfile", file, "not a directory"),
    ] {
        check(&host, &[flag, value]).refuses(&[flag, reason]);
    }
}

#[test]
fn the_version_names_the_build() {
    let version = |flag| {
        let mut command = Command::new(BINARY);
        command.arg(flag);
        Process::run(command).out
    };
    assert!(version("-V").contains("revision"));
    let long = version("--version");
    assert!(
        long.contains("revision: ") && long.contains("BPF programs: "),
        "{long}"
    );
}

#[test]
fn the_metrics_are_kept_as_a_file() {
    let host = FakeHost::default();
    host.create_dir("textfile");
    let folder = host.path("textfile");
    let file = folder.join("livepatch_monitor.prom");
    let mut monitor = write_to(&host, &folder, &[]);
    let content = read_when_there(&file);
    assert!(content.contains("\nlivepatch_supported 0\n"), "{content}");
    assert!(!content.contains("\nprocess_"), "{content}");
    // No port: its open sockets do not listen.
    assert_eq!(listening(monitor.pid()), 0);
    // A file that is no longer updated is removed.
    assert_eq!(monitor.stop().code, Some(0));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);

    // Both, if both are requested.
    let monitor = write_to(&host, &folder, &["--web.listen-address", "127.0.0.1:0"]);
    assert_eq!(
        read_when_there(&file).lines().next(),
        content.lines().next()
    );
    assert!(monitor.metrics().contains("\nlivepatch_supported 0\n"));
    assert_eq!(listening(monitor.pid()), 1);
}

/// Listening TCP sockets of a process (state 0A of /proc/net/tcp).
fn listening(pid: u32) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listening: Vec<String> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == "0A")
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("no such process");
    open.flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target: &PathBuf| listening.iter().any(|socket| Path::new(socket) == target))
        .count()
}

/// node_exporter accepts the file together with its own metrics.
#[test]
fn node_exporter_serves_the_file() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join("prometheus-node-exporter"))
        .find(|path| path.is_file());
    let Some(program) = program else {
        left_out(
            "node_exporter reads the file",
            "no prometheus-node-exporter on PATH; `cargo xtask test` brings it",
        );
        return;
    };
    let host = FakeHost::default();
    host.create_dir("textfile");
    let folder = host.path("textfile");
    let _monitor = write_to(&host, &folder, &[]);
    read_when_there(&folder.join("livepatch_monitor.prom"));
    let mut command = Command::new(program);
    command
        .arg(format!(
            "--collector.textfile.directory={}",
            folder.display()
        ))
        .args(["--collector.disable-defaults", "--collector.textfile"])
        .arg("--web.listen-address=127.0.0.1:0");
    let mut exporter = Process::start(command);
    exporter.wait_for_line("Listening on");
    let answer = http::body(&exporter.address(), "/metrics").unwrap();
    assert!(answer.contains("\nlivepatch_supported 0"), "{answer}");
    assert!(
        answer.contains("\nnode_textfile_scrape_error 0"),
        "{answer}"
    );
    assert!(
        answer.contains("\nprocess_resident_memory_bytes"),
        "{answer}"
    );
}
