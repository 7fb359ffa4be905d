//! A fake Prometheus: it answers queries from a table, or with anything that a test needs. It tests
//! how a client handles the answers; that the queries have the right meaning is tested with a real
//! one (`cargo xtask fleet`).
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails at once"
)]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request as HttpRequest, Response as HttpResponse, request::Parts},
    serve::Listener,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

/// The server's response to `time()`, in seconds since 1970.
pub const NOW: f64 = 1_795_435_857.0;

/// The parts of a request that tests look at.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method of the request: `GET` or `POST`.
    pub method: String,
    /// Path of the request, without the query string.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The form of the body, decoded.
    pub form: HashMap<String, String>,
}

impl Request {
    fn new(head: &Parts, body: &[u8]) -> Self {
        let headers = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        Self {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            headers: headers.collect(),
            form: form_urlencoded::parse(body).into_owned().collect(),
        }
    }
}

/// A response with status, headers and body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status code.
    pub status: u16,
    /// Names and values of the headers, in the order they are sent.
    pub headers: Vec<(&'static str, String)>,
    /// The body as it is sent.
    pub body: String,
}

impl Reply {
    /// A status and a body.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// The same response with this header in addition.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A server on loopback. Its threads end with the test's process.
#[derive(Clone, Debug)]
pub struct Server {
    /// The URL that the server answers at.
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request with the result of `answer`.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer)
    }

    /// The same over TLS.
    pub fn start_tls(
        config: Arc<ServerConfig>,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(config), answer)
    }

    /// Gives every request the same answer.
    pub fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = seen.clone();
        let answer = Arc::new(answer);
        let router = Router::new().fallback(move |request: HttpRequest<Body>| {
            let (answer, requests) = (answer.clone(), requests.clone());
            async move {
                let (head, body) = request.into_parts();
                let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let request = Request::new(&head, &body);
                requests.lock().unwrap().push(request.clone());
                let reply = answer(&request);
                let mut builder = HttpResponse::builder().status(reply.status);
                for (name, value) in reply.headers {
                    builder = builder.header(name, value);
                }
                builder.body(Body::from(reply.body)).unwrap()
            }
        });
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                match tls {
                    None => axum::serve(listener, router).await.unwrap(),
                    Some(config) => {
                        let acceptor = TlsAcceptor::from(config);
                        let listener = Tls { listener, acceptor };
                        axum::serve(listener, router).await.unwrap();
                    }
                }
            });
        });
        Self { url, seen }
    }
}

struct Tls {
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // A client that does not trust the certificate ends the handshake.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// What a server that is not a Prometheus does after it has written its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It closes the connection.
    Close,
    /// It keeps the connection open and writes nothing more.
    Hang,
}

/// A server that sends wrong bytes: it reads the start of a request, writes these bytes and no
/// more. Returns its URL.
#[must_use]
pub fn broken(bytes: &'static [u8], then: Then) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || write_broken(stream, bytes, then));
        }
    });
    url
}

fn write_broken(mut stream: TcpStream, bytes: &[u8], then: Then) {
    // The whole request: bytes that are unread when a connection is closed make the other
    // side lose the answer.
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let _ = reader.read_exact(&mut vec![0; length]);
    let _ = stream.write_all(bytes);
    if then == Then::Hang {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// The series of a fleet, by the question of the gate that selects them.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    series: HashMap<String, BTreeMap<String, String>>,
    warnings: Vec<String>,
    partial: bool,
    shift: f64,
}

impl Fleet {
    /// Every answer is marked as partial the way VictoriaMetrics does it.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// A server that evaluates queries this many seconds before the requested time.
    #[must_use]
    pub fn shifted(mut self, seconds: f64) -> Self {
        self.shift = seconds;
        self
    }

    /// A host that is scraped every 15 s, the last time this many seconds ago.
    #[must_use]
    pub fn every_15_s(self, host: &str, ago: f64) -> Self {
        self.with("scraped", host, "", &(NOW - ago).to_string())
            .with("scrapes", host, "", "18")
            .with("scrapes before", host, "", "20")
    }

    /// A series of this host, in place of one with the same labels. The question is a
    /// metric; `last` and a metric for a host that is down; a metric and `before` for what was
    /// so at a time before; `scraped`, `scrapes`, `scrapes before`, `up recently`, `gone`, or
    /// `known` (patches). `labels` are further ones, as JSON members with a leading comma.
    #[must_use]
    pub fn with(mut self, question: &str, host: &str, labels: &str, value: &str) -> Self {
        let metric = format!(r#"{{"job":"livepatch-monitor","instance":"{host}:9969"{labels}}}"#);
        let all = self.series.entry(question.to_owned()).or_default();
        all.insert(metric, value.to_owned());
        self
    }

    /// Without any series for this question.
    #[must_use]
    pub fn without(mut self, question: &str) -> Self {
        self.series.remove(question);
        self
    }

    /// A host that was scraped 5 s ago, and could read its livepatches.
    #[must_use]
    pub fn up(self, host: &str) -> Self {
        self.with("up", host, "", "1")
            .with("scraped", host, "", &(NOW - 5.0).to_string())
            .with("livepatch_monitor_collector_success", host, "", "1")
    }

    /// A host whose last scrape failed.
    #[must_use]
    pub fn down(self, host: &str) -> Self {
        self.up(host).with("up", host, "", "0")
    }

    /// Up, with the patch enabled and no crash.
    fn patched(self, host: &str) -> Self {
        self.up(host)
            .with("livepatch_patch_enabled", host, "", "1")
            .with("livepatch_patch_crashes_total", host, "", "0")
    }

    /// Up, with the patch in force for this many seconds.
    #[must_use]
    pub fn in_force(self, host: &str, ago: f64) -> Self {
        let completed = (NOW - ago).to_string();
        self.patched(host).with(
            "livepatch_patching_complete_timestamp_seconds",
            host,
            "",
            &completed,
        )
    }

    /// Up, in a transition to the patch.
    #[must_use]
    pub fn moving(self, host: &str) -> Self {
        let patch = r#","direction":"patch""#;
        self.patched(host)
            .with("livepatch_transition_active", host, patch, "1")
    }

    /// Every response has this warning, so it is a partial one.
    #[must_use]
    pub fn warned(mut self, warning: &str) -> Self {
        self.warnings.push(warning.to_owned());
        self
    }

    /// The answer to a query.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Reply {
        let query = &request.form["query"];
        let body = if query == "time()" {
            format!(
                r#"{{"status":"success","data":{{"resultType":"scalar","result":[{NOW},"{NOW}"]}}}}"#
            )
        } else if query == "vector(time())" {
            let evaluated = NOW - self.shift;
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[{NOW},"{evaluated}"]}}]}}}}"#
            )
        } else {
            assert_eq!(request.form["time"], format!("{NOW:.3}"));
            self.vector(query)
        };
        Reply::new(200, body).with("content-type", "application/json")
    }

    fn vector(&self, query: &str) -> String {
        let series = self.series.get(&question(query));
        let series: Vec<String> = series
            .into_iter()
            .flatten()
            .map(|(metric, value)| format!(r#"{{"metric":{metric},"value":[{NOW},"{value}"]}}"#))
            .collect();
        let series = series.join(",");
        let warnings = match self.warnings.as_slice() {
            [] => String::new(),
            all => format!(r#","warnings":{}"#, serde_json::to_string(all).unwrap()),
        };
        let partial = if self.partial {
            r#","isPartial":true"#
        } else {
            ""
        };
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}{warnings}{partial}}}"#
        )
    }

    /// A Prometheus that scrapes this fleet.
    #[must_use]
    pub fn serve(self) -> Server {
        Server::start(move |request| self.answer(request))
    }
}

/// Determines which of the gate's questions a query is.
fn question(query: &str) -> String {
    let (metric, _) = query.split_once('{').unwrap();
    let metric = metric.rsplit(['(', ' ']).next().unwrap();
    let last = query.contains("last_over_time(");
    let before = query.contains(" offset ");
    match metric {
        "up" if query.contains("count_over_time(") && before => "scrapes before".to_owned(),
        "up" if query.contains("count_over_time(") => "scrapes".to_owned(),
        "up" if query.contains("max_over_time(") => "up recently".to_owned(),
        metric if before => format!("{metric} before"),
        "up" if last => "gone".to_owned(),
        "up" if query.starts_with("timestamp(") => "scraped".to_owned(),
        "livepatch_patch_info" => "known".to_owned(),
        metric if last => format!("last {metric}"),
        metric => metric.to_owned(),
    }
}
