//! Users, headers and the rate of requests.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::exporter::Host;

/// By libxcrypt, of "secret".
const SECRET: &str = "$2y$04$SVD9pY3o2cUAFL/gtIY7KuYTyHa.7o/WohDkGABBMb44MvjscP0Xq";

fn basic(user: &str, password: &str) -> String {
    let text = BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {text}\r\n")
}

#[test]
fn only_users_are_let_in() {
    let host = Host::new();
    let (a, b) = (SECRET.replace("2y", "2a"), SECRET.replace("2y", "2b"));
    host.write(
        "web.yml",
        format!("basic_auth_users:\n  y: {SECRET}\n  a: {a}\n  b: {b}\n"),
    );
    let exporter = host.start();
    for path in ["/metrics", "/", "/-/healthy", "/nothing"] {
        let (code, answer) = exporter.get(path, "");
        assert_eq!(code, 401, "{path}");
        assert!(
            answer.contains("www-authenticate: Basic realm="),
            "{answer}"
        );
        assert!(!answer.contains("livepatch_"), "{answer}");
    }
    for user in ["y", "a", "b"] {
        assert_eq!(exporter.get("/metrics", &basic(user, "secret")).0, 200);
        assert_eq!(exporter.get("/metrics", &basic(user, "wrong")).0, 401);
        // Still right, now from memory.
        assert_eq!(exporter.get("/metrics", &basic(user, "secret")).0, 200);
    }
    for headers in [
        basic("nobody", "secret"),
        basic("", ""),
        basic("y", ""),
        basic("Y", "secret"),
        basic("y", &"x".repeat(5000)),
        "Authorization: Basic\r\n".into(),
        "Authorization: Basic !\r\n".into(),
        "Authorization: Basic eQ==\r\n".into(),
        "Authorization: Bearer secret\r\n".into(),
        "Authorization: \r\n".into(),
        format!("{}{}", basic("nobody", "x"), basic("y", "secret")),
    ] {
        assert_eq!(exporter.get("/metrics", &headers).0, 401, "{headers}");
    }
    let lower = basic("y", "secret").replace("Basic", "bASIC");
    assert_eq!(exporter.get("/metrics", &lower).0, 200);
}

#[test]
fn a_password_is_worked_out_once() {
    let host = Host::new();
    // Slow enough to be told from a round trip, in an unoptimised build too.
    let hash = bcrypt::hash("secret", 9).unwrap();
    host.write("web.yml", format!("basic_auth_users:\n  a: {hash}\n"));
    let exporter = host.start();
    let time = |password: &str, expected: u16| {
        let start = Instant::now();
        assert_eq!(
            exporter.get("/-/healthy", &basic("a", password)).0,
            expected
        );
        start.elapsed()
    };
    let first = time("secret", 200);
    let second = (0..5).map(|_| time("secret", 200)).min().unwrap();
    assert!(second * 5 < first, "{first:?}, then {second:?}");
    // Wrong ones do not push it out.
    time("wrong", 401);
    let again = (0..5).map(|_| time("secret", 200)).min().unwrap();
    assert!(again * 5 < first, "{first:?}, then {again:?}");
}

#[test]
fn headers_are_on_every_answer() {
    let host = Host::new();
    host.write(
        "web.yml",
        format!("http_server_config:\n  headers:\n    X-Frame-Options: deny\nbasic_auth_users:\n  a: {SECRET}\n"),
    );
    let exporter = host.start();
    for (path, headers, code) in [
        ("/metrics", basic("a", "secret"), 200),
        ("/none", basic("a", "secret"), 404),
        ("/metrics", String::new(), 401),
    ] {
        let (found, answer) = exporter.get(path, &headers);
        assert_eq!(found, code);
        assert!(answer.contains("\r\nx-frame-options: deny\r\n"), "{answer}");
    }
}

#[test]
fn requests_beyond_the_rate_are_refused() {
    let host = Host::new();
    host.write("web.yml", "rate_limit:\n  interval: 1h\n  burst: 3\n");
    let exporter = host.start();
    let codes: Vec<_> = (0..5).map(|_| exporter.get("/-/healthy", "").0).collect();
    assert_eq!(codes, [200, 200, 200, 429, 429]);
}

#[test]
fn guesses_do_not_hold_up_who_is_known() {
    let host = Host::new();
    let hash = bcrypt::hash("secret", 8).unwrap();
    host.write("web.yml", format!("basic_auth_users:\n  a: {hash}\n"));
    let exporter = host.start();
    assert_eq!(exporter.get("/metrics", &basic("a", "secret")).0, 200);
    let guessers: Vec<_> = (0..60)
        .map(|number| {
            use std::io::Write as _;
            let mut stream = exporter.connect();
            let headers = basic("a", &number.to_string());
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(exporter.get("/metrics", &basic("a", "secret")).0, 200);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    drop(guessers);
}
