//! The notifications sent to systemd and the sockets it passes, with this test in its place.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use livepatch_monitor_test_support::http;
use rustix::process::Signal;

use crate::exporter::{Host, Process, command, start};

fn manager(host: &Host) -> UnixDatagram {
    let socket = UnixDatagram::bind(host.path("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn ready_alive_stopping() {
    let host = Host::default();
    let socket = manager(&host);
    let mut command = command(&host);
    command
        .args(["--web.listen-address", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", host.path("notify"))
        .env("WATCHDOG_USEC", "400000");
    let start = Instant::now();
    let exporter = Process::serve(command);
    let ready = message(&socket);
    assert!(
        ready.contains("READY=1\n") && ready.contains("STATUS=listening on"),
        "{ready}"
    );
    // Ready means that it answers requests.
    assert_eq!(exporter.get("/metrics", &[]).status, 200);
    for _ in 0..5 {
        assert_eq!(message(&socket), "WATCHDOG=1\n");
    }
    // Twice in each interval, and no more: the first comes at once.
    let least = 4 * Duration::from_millis(200);
    assert!(start.elapsed() > least, "five in less than {least:?}");
    exporter.signal(Signal::TERM);
    let last = loop {
        let message = message(&socket);
        if message != "WATCHDOG=1\n" {
            break message;
        }
    };
    assert_eq!(last, "STOPPING=1\n");
    assert_eq!(exporter.finish().code, Some(0));
}

#[test]
fn a_stopped_process_sends_no_keep_alive() {
    const WATCHDOG: Duration = Duration::from_millis(200);
    let host = Host::default();
    let socket = manager(&host);
    let mut command = command(&host);
    command
        .args(["--web.listen-address", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", host.path("notify"))
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let exporter = Process::serve(command);
    message(&socket);
    exporter.signal(Signal::STOP);
    while !stands_still(exporter.pid()) {
        thread::sleep(Duration::from_millis(10));
    }
    // The bytes sent before.
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    while socket.recv(&mut buffer).is_ok() {}
    // Nothing can be awaited here: that nothing comes is shown by the time in which it would.
    thread::sleep(5 * WATCHDOG);
    assert!(socket.recv(&mut buffer).is_err(), "alive while stopped");
    exporter.signal(Signal::CONT);
}

/// Whether every thread of the process is stopped.
fn stands_still(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")));
    stats.all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
}

/// Runs the command with `listener` as the socket that systemd passes.
fn hand_over(mut command: Command, listener: TcpListener) -> Command {
    let descriptor: OwnedFd = listener.into();
    // The shell names itself before it becomes the exporter: LISTEN_PID is its pid.
    let mut shell = Command::new("sh");
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    shell
        .args([
            "-c",
            "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null",
        ])
        .arg(command.get_program())
        .args(arguments)
        .stdin(descriptor);
    command = shell;
    command
}

#[test]
fn a_socket_of_systemds_is_served() {
    let host = Host::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = command(&host);
    command.arg("--web.systemd-socket");
    let mut exporter = Process::start_with_input(hand_over(command, listener));
    assert!(exporter.listens(), "{}", exporter.text());
    assert_eq!(exporter.address(), address);
    assert_eq!(exporter.get("/metrics", &[]).status, 200);
}

#[test]
fn a_missing_socket_is_named() {
    let host = Host::default();
    let output = command(&host).arg("--web.systemd-socket").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("--web.systemd-socket") && text.contains("socket unit"),
        "{text}"
    );
}

#[test]
fn a_scrape_in_progress_is_finished_before_the_end() {
    let host = Host::default();
    let exporter = start(&host);
    let address = exporter.address();
    let mut idle = exporter.connect();
    let kept = http::Client::default();
    assert_eq!(kept.get(&address, "/-/healthy", &[]).unwrap().status, 200);
    // Nobody reads these responses before the order to stop.
    let mut scrapes: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = exporter.connect();
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    // Connections are accepted in order: once a later request is answered, those before
    // it have been read.
    exporter.metrics();
    exporter.signal(Signal::TERM);
    for scrape in &mut scrapes {
        let mut answer = String::new();
        scrape.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let answer = exporter.finish();
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(answer.err.contains("stopping"), "{}", answer.err);
    // Connections without a request are not waited for until time runs out.
    let late = "stopped before every answer was taken";
    assert!(!answer.err.contains(late), "{}", answer.err);
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
}
