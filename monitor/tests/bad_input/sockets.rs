//! Invalid sockets and addresses from systemd; addresses in use, outputs that are full.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    process::{Command, Stdio},
};

use livepatch_monitor_test_support::process::Process;

use crate::{inputs::Inputs, run};

/// `serve --web.systemd-socket` with this environment; `$$` is its own pid, and descriptor 3 is
/// what is passed to it.
fn handed(
    inputs: &Inputs,
    environment: &str,
    descriptor: Option<OwnedFd>,
) -> (Option<i32>, String) {
    let serve = run::command(inputs, &["serve", "--web.systemd-socket"]);
    let mut shell = Command::new("sh");
    let descriptors = match descriptor {
        Some(_) => "3<&0",
        None => "3<&-",
    };
    shell
        .arg("-c")
        .arg(format!(
            "{environment} exec \"$0\" \"$@\" {descriptors} 0</dev/null"
        ))
        .arg(serve.get_program())
        .args(serve.get_args());
    shell.stdin(descriptor.map_or_else(Stdio::null, Stdio::from));
    let mut process = Process::start_with_input(shell);
    if process.listens() {
        return (None, process.stop().text());
    }
    let answer = process.stop();
    (answer.code, answer.text())
}

#[test]
fn sockets_that_systemd_does_not_pass() {
    let inputs = Inputs::new();
    let file = |name: &str| OwnedFd::from(fs::File::create(inputs.path(name)).unwrap());
    let none: &[&str] = &["--web.systemd-socket", "no socket", "socket unit"];
    let other: &[&str] = &["--web.systemd-socket", "TCP socket", "ListenStream="];
    for (environment, descriptor, says) in [
        ("LISTEN_PID=1 LISTEN_FDS=1", None, none),
        ("LISTEN_PID=$$ LISTEN_FDS=0", None, none),
        ("LISTEN_PID=$$ LISTEN_FDS=many", None, none),
        ("LISTEN_PID=$$ LISTEN_FDS=-1", None, none),
        ("LISTEN_PID=self LISTEN_FDS=1", None, none),
        ("LISTEN_PID=$$ LISTEN_FDS=1", None, other),
        ("LISTEN_PID=$$ LISTEN_FDS=100000", None, other),
        ("LISTEN_PID=$$ LISTEN_FDS=1", Some(file("a-file")), other),
        (
            "LISTEN_PID=$$ LISTEN_FDS=1",
            Some(UdpSocket::bind("127.0.0.1:0").unwrap().into()),
            other,
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=1",
            Some(UnixListener::bind(inputs.path("stream")).unwrap().into()),
            other,
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=1",
            Some(UnixDatagram::bind(inputs.path("datagram")).unwrap().into()),
            other,
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=2",
            Some(TcpListener::bind("127.0.0.1:0").unwrap().into()),
            other,
        ),
    ] {
        let (code, text) = handed(&inputs, environment, descriptor);
        assert_eq!(code, Some(2), "{environment}: {text}");
        for word in says {
            assert!(text.contains(word), "{environment}: no {word:?} in: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

/// A notification that systemd does not receive has no other effect.
#[test]
fn no_systemd_to_notify() {
    let inputs = Inputs::new();
    fs::write(inputs.path("a-file"), "").unwrap();
    let _stream = UnixListener::bind(inputs.path("stream")).unwrap();
    let path = |name: &str| inputs.path(name).into_os_string().into_string().unwrap();
    for socket in [
        path("nowhere"),
        path("a-file"),
        path("stream"),
        "relative".to_owned(),
        "@nobody-livepatch-monitor".to_owned(),
        String::new(),
        format!("/{}", "x".repeat(200)),
    ] {
        let mut command = run::command(&inputs, &["serve"]);
        command.env("NOTIFY_SOCKET", &socket);
        let mut process = Process::start(command);
        assert!(process.listens(), "{socket}: {}", process.text());
        let answer = process.stop();
        assert_eq!(answer.code, Some(0), "{socket}: {}", answer.text());
        assert!(!answer.text().contains("panicked"), "{}", answer.text());
        if !socket.is_empty() {
            for word in ["cannot notify systemd", "NOTIFY_SOCKET"] {
                assert!(answer.text().contains(word), "{socket}: {}", answer.text());
            }
        }
    }
    for (name, value) in [("WATCHDOG_USEC", "soon"), ("WATCHDOG_USEC", "0")] {
        let mut command = run::command(&inputs, &["serve"]);
        command.env(name, value);
        let mut process = Process::start(command);
        assert!(process.listens(), "{value}: {}", process.text());
        assert_eq!(process.stop().code, Some(0));
    }
}

#[test]
fn an_address_in_use() {
    let inputs = Inputs::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let lines = [
        vec!["serve", "--web.listen-address", &address],
        vec![
            "serve",
            "--web.listen-address",
            "127.0.0.1:0",
            "--web.listen-address",
            &address,
        ],
    ];
    for line in lines {
        let answer = Process::start(run::command(&inputs, &line)).finish();
        assert_eq!(answer.code, Some(2), "{}", answer.text());
        for word in [&address, "in use", "--web.listen-address"] {
            assert!(answer.text().contains(word), "{}", answer.text());
        }
    }
}

/// A full disk behind standard output is an error that is reported.
#[test]
fn full_outputs() {
    let inputs = Inputs::new();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for line in [&["status"][..], &["crashes"], &["preflight", "@file"]] {
        let mut command = run::command(&inputs, line);
        let output = command.stdout(full()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line:?}: {text}");
        assert!(text.contains("cannot write to standard output"), "{text}");
        // There is nowhere to report it.
        let mut command = run::command(&inputs, line);
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{line:?}");
    }
}
