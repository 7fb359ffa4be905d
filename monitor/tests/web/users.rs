//! Users, headers and the rate of requests.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use livepatch_monitor_test_support::{http::Response, process::Process};

use crate::exporter::{Host, start};

/// Concurrent guesses of a password.
const GUESSES: usize = 60;

/// Made by libxcrypt, for "secret".
const SECRET: &str = "$2y$04$SVD9pY3o2cUAFL/gtIY7KuYTyHa.7o/WohDkGABBMb44MvjscP0Xq";

type Header = (&'static str, String);

fn authorization(value: impl Into<String>) -> Header {
    ("authorization", value.into())
}

fn basic(user: &str, password: &str) -> Header {
    let text = BASE64_STANDARD.encode(format!("{user}:{password}"));
    authorization(format!("Basic {text}"))
}

/// What the exporter answers to a request with these headers.
#[track_caller]
fn get(exporter: &Process, path: &str, headers: &[Header]) -> Response {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    exporter.get(path, &headers)
}

/// The status of a scrape as this user.
#[track_caller]
fn scrape(exporter: &Process, user: &Header) -> u16 {
    get(exporter, "/metrics", std::slice::from_ref(user)).status
}

#[test]
fn only_users_are_let_in() {
    let host = Host::default();
    let (a, b) = (SECRET.replace("2y", "2a"), SECRET.replace("2y", "2b"));
    host.write(
        "web.yml",
        format!("basic_auth_users:\n  y: {SECRET}\n  a: {a}\n  b: {b}\n"),
    );
    let exporter = start(&host);
    for path in ["/metrics", "/", "/-/healthy", "/nothing"] {
        let answer = exporter.get(path, &[]);
        assert_eq!(answer.status, 401, "{path}");
        let challenge = answer.header("www-authenticate");
        assert!(
            challenge.is_some_and(|value| value.starts_with("Basic realm=")),
            "{answer:?}"
        );
        assert!(!answer.body.contains("livepatch_"), "{answer:?}");
    }
    for user in ["y", "a", "b"] {
        assert_eq!(scrape(&exporter, &basic(user, "secret")), 200);
        assert_eq!(scrape(&exporter, &basic(user, "wrong")), 401);
        // Still correct, now from memory.
        assert_eq!(scrape(&exporter, &basic(user, "secret")), 200);
    }
    for headers in [
        vec![basic("nobody", "secret")],
        vec![basic("", "")],
        vec![basic("y", "")],
        vec![basic("Y", "secret")],
        vec![basic("y", &"x".repeat(5000))],
        vec![authorization("Basic")],
        vec![authorization("Basic !")],
        vec![authorization("Basic eQ==")],
        vec![authorization("Bearer secret")],
        vec![authorization("")],
        vec![basic("nobody", "x"), basic("y", "secret")],
    ] {
        let answer = get(&exporter, "/metrics", &headers);
        assert_eq!(answer.status, 401, "{headers:?}");
    }
    let (name, value) = basic("y", "secret");
    let lower = (name, value.replace("Basic", "bASIC"));
    assert_eq!(scrape(&exporter, &lower), 200);
}

#[test]
fn a_password_is_hashed_once() {
    let host = Host::default();
    // Expensive compared with a request, in an unoptimised build too.
    let hash = bcrypt::hash("secret", 9).unwrap();
    host.write("web.yml", format!("basic_auth_users:\n  a: {hash}\n"));
    let exporter = start(&host);
    let cost = |password: &str, expected: u16| {
        let before = exporter.cpu_time();
        let answer = get(&exporter, "/-/healthy", &[basic("a", password)]);
        assert_eq!(answer.status, expected);
        exporter.cpu_time() - before
    };
    let hashing = cost("secret", 200);
    let five: Duration = (0..5).map(|_| cost("secret", 200)).sum();
    assert!(
        five < hashing,
        "five more cost {five:?}, the first {hashing:?}"
    );
    // A wrong one is hashed, and does not displace the right one.
    cost("wrong", 401);
    let five: Duration = (0..5).map(|_| cost("secret", 200)).sum();
    assert!(
        five < hashing,
        "five more cost {five:?}, the first {hashing:?}"
    );
}

#[test]
fn headers_are_on_every_answer() {
    let host = Host::default();
    host.write(
        "web.yml",
        format!("http_server_config:\n  headers:\n    X-Frame-Options: deny\nbasic_auth_users:\n  a: {SECRET}\n"),
    );
    let exporter = start(&host);
    for (path, headers, status) in [
        ("/metrics", vec![basic("a", "secret")], 200),
        ("/none", vec![basic("a", "secret")], 404),
        ("/metrics", vec![], 401),
    ] {
        let answer = get(&exporter, path, &headers);
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-frame-options"), Some("deny"), "{answer:?}");
    }
}

#[test]
fn requests_beyond_the_rate_are_refused() {
    let host = Host::default();
    host.write("web.yml", "rate_limit:\n  interval: 1h\n  burst: 3\n");
    let exporter = start(&host);
    let codes: Vec<_> = (0..5)
        .map(|_| exporter.get("/-/healthy", &[]).status)
        .collect();
    assert_eq!(codes, [200, 200, 200, 429, 429]);
}

#[test]
fn guesses_do_not_delay_a_known_user() {
    let host = Host::default();
    let hash = bcrypt::hash("secret", 8).unwrap();
    host.write("web.yml", format!("basic_auth_users:\n  a: {hash}\n"));
    let exporter = start(&host);
    assert_eq!(scrape(&exporter, &basic("a", "secret")), 200);
    // Sent and not read: a client that waits for its answer would guess one at a time.
    let guessers: Vec<_> = (0..GUESSES)
        .map(|number| {
            let mut stream = exporter.connect();
            let (name, value) = basic("a", &number.to_string());
            write!(
                stream,
                "GET /metrics HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n\r\n"
            )
            .unwrap();
            stream
        })
        .collect();
    assert_eq!(scrape(&exporter, &basic("a", "secret")), 200);
    // A client that had to wait in line would be answered after all of them.
    let answered = guessers.iter().filter(|guesser| {
        guesser.set_nonblocking(true).unwrap();
        guesser.peek(&mut [0]).is_ok()
    });
    let answered = answered.count();
    assert!(
        answered < GUESSES,
        "all {answered} guesses were answered first"
    );
}

/// Endless wrong passwords from some addresses do not keep out a scraper at another address, whose
/// password was not seen before.
#[test]
fn guesses_from_other_addresses_do_not_keep_a_scraper_out() {
    for guessing in [1_u8, 4, 40] {
        let host = Host::default();
        let hash = bcrypt::hash("secret", 8).unwrap();
        host.write("web.yml", format!("basic_auth_users:\n  a: {hash}\n"));
        let exporter = start(&host);
        let address: SocketAddr = exporter.address().parse().unwrap();
        let done = AtomicBool::new(false);
        let checked = AtomicUsize::new(0);
        thread::scope(|scope| {
            for guesser in 0..80_u8 {
                let (done, checked) = (&done, &checked);
                scope.spawn(move || {
                    let from = Ipv4Addr::new(127, 0, 1, guesser % guessing);
                    while !done.load(Ordering::Relaxed) {
                        let status = ask_from(from, address, "wrong");
                        assert!(matches!(status, 401 | 429), "{status}");
                        if status == 401 {
                            checked.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            // The guesses are in progress, and are repeated all the time.
            while checked.load(Ordering::Relaxed) < 4 {
                thread::sleep(Duration::from_millis(10));
            }
            let statuses: Vec<_> = (2..6)
                .map(|last| ask_from(Ipv4Addr::new(127, 0, 0, last), address, "secret"))
                .collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(statuses, [200; 4], "{guessing} addresses guess");
        });
    }
}

/// The status that a client at `from` gets with this password of user `a`.
fn ask_from(from: Ipv4Addr, to: SocketAddr, password: &str) -> u16 {
    let mut stream = connect_from(from, to);
    let (name, value) = basic("a", password);
    write!(
        stream,
        "GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name}: {value}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A connection from another address of loopback.
fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((from, 0))).unwrap();
    connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}
