//! What is checked without starting, what is said of the build, and the metrics as a
//! file.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// A host of our own making: no livepatch, nothing in its log.
fn host() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["sys/kernel", "proc/sys/kernel/random", "state", "textfile"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    fs::write(root.path().join("proc/sys/kernel/osrelease"), "6.12\n").unwrap();
    let id = "3f1c4a52-0000-4000-8000-000000000001\n";
    fs::write(root.path().join("proc/sys/kernel/random/boot_id"), id).unwrap();
    fs::write(root.path().join("kmsg"), "").unwrap();
    root
}

fn serve(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("serve");
    for (flag, path) in [
        ("--path.sysfs", "sys"),
        ("--path.procfs", "proc"),
        ("--path.kmsg", "kmsg"),
        ("--state-dir", "state"),
    ] {
        if !arguments.contains(&flag) {
            command.arg(flag).arg(root.join(path));
        }
    }
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn check(root: &Path, arguments: &[&str]) -> Output {
    serve(root, arguments)
        .arg("--config.check")
        .output()
        .unwrap()
}

#[test]
fn a_right_configuration_is_said_to_be_right() {
    let host = host();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // A monitor that runs has the port: that is no fault of the configuration.
    let address = port.local_addr().unwrap().to_string();
    let state = host.path().join("state/made/later");
    let output = check(
        host.path(),
        &[
            "--web.listen-address",
            &address,
            "--state-dir",
            state.to_str().unwrap(),
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("right"));
    assert!(!state.exists(), "checking has made something");
}

#[test]
fn what_is_wrong_is_named_with_its_flag() {
    let host = host();
    let file = host.path().join("kmsg");
    let file = file.to_str().unwrap();
    for (flag, value, reason) in [
        ("--web.listen-address", "192.0.2.1:9969", "Cannot assign"),
        ("--path.procfs", "/no/such", "no procfs"),
        ("--path.sysfs", file, "no sysfs"),
        ("--path.kmsg", "/no/such", "CAP_SYSLOG"),
        ("--path.rootfs", "/no/such", "No such file"),
        ("--expect-dir", file, "Not a directory"),
        ("--state-dir", file, "no directory"),
        ("--textfile", "/no/such", "No such file"),
        ("--textfile", file, "no directory"),
    ] {
        let output = check(host.path(), &[flag, value]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flag} {value}: {error}");
        assert!(
            error.contains(flag) && error.contains(reason),
            "{flag} {value}: {error}"
        );
    }
}

#[test]
fn the_version_tells_the_build() {
    let version = |flag| text(&Command::new(BINARY).arg(flag).output().unwrap().stdout);
    assert!(version("-V").contains("revision"));
    let long = version("--version");
    assert!(
        long.contains("revision: ") && long.contains("BPF programs: "),
        "{long}"
    );
}

/// A monitor, stopped when dropped.
struct Monitor(Child);

impl Monitor {
    fn start(root: &Path, arguments: &[&str]) -> Self {
        let mut command = serve(root, arguments);
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(path: &Path, word: &str) -> String {
    let begin = Instant::now();
    loop {
        let content = fs::read_to_string(path).unwrap_or_default();
        if content.contains(word) {
            return content;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "no {word} in {content}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_metrics_are_kept_as_a_file() {
    let host = host();
    let folder = host.path().join("textfile");
    let file = folder.join("livepatch_monitor.prom");
    let mut monitor = Monitor::start(host.path(), &["--textfile", folder.to_str().unwrap()]);
    let content = wait_for(&file, "livepatch_supported 0");
    assert!(!content.contains("\nprocess_"), "{content}");
    // No port: what it has open are no sockets that listen.
    assert_eq!(listening(monitor.0.id()), 0);
    // What is not kept current any more is not there.
    monitor.terminate();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);

    // Both, where both are asked for.
    let arguments = [
        "--textfile",
        folder.to_str().unwrap(),
        "--web.listen-address",
        "127.0.0.1:0",
    ];
    let monitor = Monitor::start(host.path(), &arguments);
    wait_for(&file, "livepatch_supported 0");
    assert_eq!(listening(monitor.0.id()), 1);
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

/// node_exporter takes the file beside its own metrics.
#[test]
fn node_exporter_serves_the_file() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join("prometheus-node-exporter"))
        .find(|path| path.is_file());
    let Some(program) = program else {
        eprintln!("not tried: no prometheus-node-exporter on PATH (`cargo xtask test` brings it)");
        return;
    };
    let host = host();
    let folder = host.path().join("textfile");
    let _monitor = Monitor::start(host.path(), &["--textfile", folder.to_str().unwrap()]);
    wait_for(
        &folder.join("livepatch_monitor.prom"),
        "livepatch_supported 0",
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = Command::new(program);
    command
        .arg(format!(
            "--collector.textfile.directory={}",
            folder.display()
        ))
        .args(["--collector.disable-defaults", "--collector.textfile"])
        .arg(format!("--web.listen-address={free}"))
        .stderr(Stdio::null());
    let _exporter = Monitor(command.spawn().unwrap());
    let begin = Instant::now();
    let answer = loop {
        if let Ok(answer) = get(&free.to_string()) {
            break answer;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "node_exporter does not answer"
        );
        thread::sleep(Duration::from_millis(100));
    };
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

fn get(address: &str) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
