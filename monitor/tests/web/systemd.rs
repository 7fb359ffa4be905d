//! What systemd is told and what it hands over, with this test in systemd's place.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::exporter::{Exporter, Host, ask};

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
    let host = Host::new();
    let socket = manager(&host);
    let mut command = host.command();
    command
        .args(["--web.listen-address", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", host.path("notify"))
        .env("WATCHDOG_USEC", "400000");
    let start = Instant::now();
    let mut exporter = Exporter::of(command);
    let ready = message(&socket);
    assert!(
        ready.contains("READY=1\n") && ready.contains("STATUS=listening on"),
        "{ready}"
    );
    // Ready means that it answers.
    assert_eq!(exporter.get("/metrics", "").0, 200);
    for _ in 0..5 {
        assert_eq!(message(&socket), "WATCHDOG=1\n");
    }
    // Twice in each interval, and not faster: the first comes at once.
    let time = start.elapsed();
    assert!(time > Duration::from_millis(4 * 200), "{time:?}");
    exporter.signal(Signal::TERM);
    let last = loop {
        let message = message(&socket);
        if message != "WATCHDOG=1\n" {
            break message;
        }
    };
    assert_eq!(last, "STOPPING=1\n");
    assert!(exporter.process.wait().unwrap().success());
}

#[test]
fn a_process_that_stands_still_is_not_alive() {
    let host = Host::new();
    let socket = manager(&host);
    let mut command = host.command();
    command
        .args(["--web.listen-address", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", host.path("notify"))
        .env("WATCHDOG_USEC", "200000");
    let exporter = Exporter::of(command);
    message(&socket);
    exporter.signal(Signal::STOP);
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut buffer = [0; 64];
    let start = Instant::now();
    // What was under way may still come.
    while socket.recv(&mut buffer).is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "told while stopped"
        );
    }
    exporter.signal(Signal::CONT);
}

/// Runs the command with `listener` as the socket that systemd hands over.
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
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = host.command();
    command.arg("--web.systemd-socket");
    let exporter = Exporter::of(hand_over(command, listener));
    assert_eq!(exporter.address, address);
    assert_eq!(exporter.get("/metrics", "").0, 200);
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let host = Host::new();
    let output = host.command().arg("--web.systemd-socket").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("--web.systemd-socket") && text.contains("socket unit"),
        "{text}"
    );
}

#[test]
fn a_scrape_under_way_is_finished_before_the_end() {
    let host = Host::new();
    let mut exporter = host.start();
    let mut idle = exporter.connect();
    let mut kept = exporter.connect();
    write!(kept, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut buffer = [0; 1024];
    assert!(kept.read(&mut buffer).unwrap() > 0);
    let address = exporter.address.clone();
    let scrapes: Vec<_> = (0..20)
        .map(|_| {
            let stream = std::net::TcpStream::connect(&address).unwrap();
            thread::spawn(move || ask(stream, "/metrics", ""))
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    exporter.signal(Signal::TERM);
    for scrape in scrapes {
        assert_eq!(scrape.join().unwrap().0, 200);
    }
    assert!(exporter.process.wait().unwrap().success());
    // Those who ask nothing are not waited for.
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(idle.read(&mut buffer).unwrap_or(0), 0);
    assert_eq!(kept.read(&mut buffer).unwrap_or(0), 0);
    assert!(exporter.log().contains("stopping"), "{}", exporter.log());
}
