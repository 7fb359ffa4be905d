//! Hostile clients: the memory and descriptors that they use are limited, and scrapes are still
//! answered. On loopback, some thousand connections, half a minute.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    mem::MaybeUninit,
    net::TcpStream,
    os::fd::OwnedFd,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use livepatch_monitor_test_support::http;
use rustix::fs::inotify;

use crate::{
    exporter::{Host, Process, start},
    pki::{self, TLS},
    tls::{Client, runtime},
};

/// One storm at a time: they share the machine's processors and this process's
/// descriptors.
static ONE: Mutex<()> = Mutex::new(());

/// A connection that is open for longer than this is never closed.
const HANGS: Duration = Duration::from_secs(60);
const MEBIBYTE: u64 = 1024 * 1024;

/// A scrape is answered, whatever the other clients do.
#[track_caller]
fn scrape(exporter: &Process) {
    let metrics = exporter.metrics();
    assert!(metrics.contains("livepatch_supported 0"), "{metrics}");
}

/// Raises the limit of open files, for the clients of this test.
fn many_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(8192).min(8192);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        },
    )
    .unwrap();
    assert!(
        wanted >= 4096,
        "this test needs 4,096 open files, {wanted} are allowed"
    );
}

#[test]
fn two_thousand_idle_connections() {
    let _one = ONE.lock();
    many_descriptors();
    let host = Host::default();
    let exporter = start(&host);
    scrape(&exporter);
    let before = exporter.resident();
    let idle: Vec<TcpStream> = (0..2000)
        .map(|number| {
            let mut stream = exporter.connect();
            // Some have started a request, and never finish it.
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ");
            }
            if number % 250 == 0 {
                scrape(&exporter);
            }
            stream
        })
        .collect();
    scrape(&exporter);
    let (grown, descriptors) = (
        exporter.resident().saturating_sub(before),
        exporter.descriptors(),
    );
    eprintln!("2,000 idle connections: {grown} bytes more, {descriptors} descriptors");
    assert!(grown < 16 * MEBIBYTE, "{grown} bytes");
    assert!(descriptors < 320, "{descriptors}");
    drop(idle);
    scrape(&exporter);
}

#[test]
fn a_thousand_idle_connections_of_tls() {
    let _one = ONE.lock();
    many_descriptors();
    let (host, authority) = pki::host();
    host.write("web.yml", TLS);
    let exporter = start(&host);
    let client = Client::trusting(&authority.pem());
    let scrape = || {
        let (status, _) = client.get(&exporter.address(), "/metrics").unwrap();
        assert_eq!(status, 200);
    };
    scrape();
    let before = exporter.resident();
    // Clients that never send a hello, that send half of it, and that complete the handshake.
    let silent: Vec<_> = (0..400).map(|_| exporter.connect()).collect();
    let half: Vec<_> = (0..400)
        .map(|_| {
            let mut stream = exporter.connect();
            let _ = stream.write_all(&[22, 3, 1, 64, 0, 1, 0, 63, 252]);
            stream
        })
        .collect();
    scrape();
    let through: Vec<_> = (0..200)
        .map(|_| {
            let (mut stream, mut session) = (exporter.connect(), client.connection());
            let _ = session.complete_io(&mut stream);
            (stream, session)
        })
        .collect();
    scrape();
    let grown = exporter.resident().saturating_sub(before);
    eprintln!("1,000 idle connections of TLS: {grown} bytes more");
    assert!(grown < 32 * MEBIBYTE, "{grown} bytes");
    drop((silent, half, through));
}

#[test]
fn readers_that_do_not_read() {
    let _one = ONE.lock();
    let host = Host::default();
    let exporter = start(&host);
    scrape(&exporter);
    let before = exporter.resident();
    let slow: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut stream = exporter.connect();
            // Far more answers than the sockets can hold between them.
            stream
                .set_write_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            for _ in 0..200 {
                if stream
                    .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    .is_err()
                {
                    break;
                }
            }
            stream
        })
        .collect();
    scrape(&exporter);
    let grown = exporter.resident().saturating_sub(before);
    scrape(&exporter);
    eprintln!("400 readers that do not read: {grown} bytes more");
    assert!(grown < 32 * MEBIBYTE, "{grown} bytes");
    drop(slow);
}

#[test]
fn an_endless_request_is_closed() {
    let _one = ONE.lock();
    let host = Host::default();
    let exporter = start(&host);
    let mut stream = exporter.connect();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let start = Instant::now();
    write!(stream, "GET /metrics HTTP/1.1\r\n").unwrap();
    let mut buffer = [0; 64];
    loop {
        // A header now and then does not extend the time limit.
        let _ = stream.write_all(b"X: y\r\n");
        match stream.read(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        assert!(start.elapsed() < HANGS, "still open");
    }
    // Not at once: a slow client has time to send its request.
    let open = start.elapsed();
    assert!(open > Duration::from_secs(8), "closed after {open:?}");
}

/// The response to these bytes, until the other side closes.
fn raw(exporter: &Process, bytes: &[u8]) -> String {
    let mut stream = exporter.connect();
    // The other side may close before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn malformed_requests() {
    let _one = ONE.lock();
    let host = Host::default();
    let exporter = start(&host);
    let long = "a".repeat(100_000);
    for (bytes, expected) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n".to_owned(), "400"),
        (
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            "400",
        ),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".to_owned(), "400"),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"), "431"),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200)),
            "431",
        ),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "405",
        ),
        ("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405"),
    ] {
        let answer = raw(&exporter, bytes.as_bytes());
        let shown = &bytes[..bytes.len().min(60)];
        // The response may be lost if the other side is still sending.
        assert!(
            answer.is_empty() && bytes.len() > 16_384
                || answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{shown:?}: {answer}"
        );
    }
    assert_eq!(exporter.get("/metrics", &[]).status, 200);
}

#[test]
fn endless_headers_and_bodies_take_no_memory() {
    let _one = ONE.lock();
    let host = Host::default();
    let exporter = start(&host);
    scrape(&exporter);
    let before = exporter.resident();
    let block = vec![b'a'; 64 * 1024];
    for beginning in [
        "GET /metrics HTTP/1.1\r\nX: ",
        "GET /",
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    ] {
        let mut stream = exporter.connect();
        stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let _ = stream.write_all(beginning.as_bytes());
        for _ in 0..256 {
            if stream.write_all(&block).is_err() {
                break;
            }
        }
    }
    let grown = exporter.resident().saturating_sub(before);
    assert!(grown < 8 * MEBIBYTE, "{grown} bytes");
    scrape(&exporter);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let _one = ONE.lock();
    let host = Host::default();
    let exporter = start(&host);
    let mut requests = String::new();
    for path in ["/-/healthy", "/none", "/", "/-/healthy"] {
        requests.push_str(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    requests.push_str("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut stream = exporter.connect();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let codes: Vec<_> = answer.matches("HTTP/1.1 ").map(|_| ()).collect();
    assert_eq!(codes.len(), 5, "{answer}");
    let order: Vec<_> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|part| part.split(' ').next().unwrap())
        .collect();
    assert_eq!(order, ["200", "404", "200", "200", "200"]);
    assert!(answer.ends_with('\n'));
}

/// Opens of a file, counted by inotify.
struct Opens(OwnedFd);

impl Opens {
    fn of(path: &Path) -> Self {
        let notify = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&notify, path, inotify::WatchFlags::OPEN).unwrap();
        Self(notify)
    }

    /// The opens since the last count.
    fn count(&self) -> usize {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        std::iter::from_fn(|| events.next().ok().map(drop)).count()
    }
}

#[test]
fn scrapes_at_once_share_the_work() {
    const SCRAPES: usize = 200;
    let _one = ONE.lock();
    let host = Host::held();
    let exporter = start(&host);
    let opens = Opens::of(&host.path("sys/kernel/livepatch/fix/enabled"));
    let enabled = "livepatch_patch_enabled{patch=\"fix\"} 1\n";
    assert!(exporter.metrics().contains(enabled));
    let of_one = opens.count();
    assert!(of_one > 0, "a scrape does not read the patch");
    let address = exporter.address();
    thread::scope(|scope| {
        for _ in 0..SCRAPES {
            scope.spawn(|| {
                let metrics = http::body(&address, "/metrics").unwrap();
                assert!(metrics.contains(enabled), "{metrics}");
            });
        }
    });
    let of_all = opens.count();
    eprintln!("{SCRAPES} scrapes at once read the patch {of_all} times, one {of_one} times");
    assert!(of_all < SCRAPES * of_one / 2, "{of_all} reads");
}

#[test]
fn streams_of_http2_that_are_not_read() {
    let _one = ONE.lock();
    let (host, authority) = pki::host();
    host.write("web.yml", TLS);
    let exporter = start(&host);
    let client = Client::trusting(&authority.pem());
    let scrape = || client.get(&exporter.address(), "/metrics").unwrap().0;
    assert_eq!(scrape(), 200);
    let before = exporter.resident();
    let runtime = runtime();
    let held = runtime.block_on(async {
        let mut held = Vec::new();
        for _ in 0..50 {
            // No window: no part of a response may be sent.
            let mut sender = client.http2(&exporter.address(), 0).await;
            // The first brings the server to its limits; the others wait for it.
            for _ in 0..20 {
                let request = hyper::Request::get("https://localhost/metrics");
                let request = request.body(http_body_util::Empty::new()).unwrap();
                held.push(tokio::spawn(sender.send_request(request)));
            }
        }
        // Time for everything that will be answered.
        tokio::time::sleep(Duration::from_secs(2)).await;
        held
    });
    assert_eq!(scrape(), 200);
    let grown = exporter.resident().saturating_sub(before);
    eprintln!("50 connections of HTTP/2 that read nothing: {grown} bytes more");
    assert!(grown < 32 * MEBIBYTE, "{grown} bytes");
    drop(held);
}
