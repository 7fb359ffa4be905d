//! A Prometheus of our own making.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What `time()` answers.
pub(crate) const NOW: f64 = 1_795_435_857.0;

/// A request, as far as the tests look at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) form: HashMap<String, String>,
}

/// How the server answers.
pub(crate) enum Reply {
    /// Status, further header lines, body.
    Full(&'static str, String, String),
    /// These bytes, whatever they are, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, then nothing for a long time.
    Stall(Vec<u8>),
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let requests = Arc::clone(&seen);
        // The threads end with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                thread::spawn(move || serve(stream, &*answer, &requests));
            }
        });
        Self { url, seen }
    }

    /// One that answers everything alike.
    pub(crate) fn always(status: &'static str, headers: &str, body: &str) -> Self {
        let (headers, body) = (headers.to_owned(), body.to_owned());
        Self::start(move |_| Reply::Full(status, headers.clone(), body.clone()))
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
    requests: &Mutex<Vec<Request>>,
) {
    if let Some(request) = read(&mut stream) {
        requests.lock().unwrap().push(request.clone());
        write(&mut stream, answer(&request));
    }
}

pub(crate) fn read(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut request = Request::default();
    reader.read_line(&mut request.line).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        let name = name.to_lowercase();
        request.headers.insert(name, value.to_owned());
    }
    let length = request.headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    for pair in String::from_utf8(body).ok()?.split('&') {
        let (name, value) = pair.split_once('=')?;
        request.form.insert(unescaped(name), unescaped(value));
    }
    Some(request)
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn write(stream: &mut impl Write, reply: Reply) {
    match reply {
        Reply::Full(status, headers, body) => {
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\
                 {headers}\r\n{body}"
            );
        }
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Reply::Stall(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.flush();
            thread::sleep(Duration::from_secs(30));
        }
    }
}

/// What a Prometheus knows: series by the question that gets them.
#[derive(Clone, Default)]
pub(crate) struct Fleet {
    series: HashMap<String, BTreeMap<String, String>>,
    warnings: Vec<String>,
}

impl Fleet {
    /// A series of this host, instead of one with the same labels. The question is a
    /// metric, `last` and a metric for one of a host that is down, `scraped`, `gone` or
    /// `known` (patches).
    pub(crate) fn with(mut self, question: &str, host: &str, labels: &str, value: &str) -> Self {
        let metric = format!(r#"{{"job":"livepatch-monitor","instance":"{host}:9969"{labels}}}"#);
        let all = self.series.entry(question.to_owned()).or_default();
        all.insert(metric, value.to_owned());
        self
    }

    pub(crate) fn without(mut self, question: &str) -> Self {
        self.series.remove(question);
        self
    }

    pub(crate) fn up(self, host: &str) -> Self {
        self.with("up", host, "", "1")
            .with("scraped", host, "", &(NOW - 5.0).to_string())
    }

    pub(crate) fn down(self, host: &str) -> Self {
        self.up(host).with("up", host, "", "0")
    }

    /// Up, with the patch enabled and no crash.
    fn patched(self, host: &str) -> Self {
        self.up(host)
            .with("livepatch_patch_enabled", host, "", "1")
            .with("livepatch_patch_crashes_total", host, "", "0")
    }

    /// Up, with the patch in force since so many seconds.
    pub(crate) fn landed(self, host: &str, ago: f64) -> Self {
        let landed = (NOW - ago).to_string();
        self.patched(host).with(
            "livepatch_patching_complete_timestamp_seconds",
            host,
            "",
            &landed,
        )
    }

    /// Up, in a transition of the patch.
    pub(crate) fn moving(self, host: &str) -> Self {
        let patch = r#","direction":"patch""#;
        self.patched(host)
            .with("livepatch_transition_active", host, patch, "1")
    }

    pub(crate) fn warned(mut self, warning: &str) -> Self {
        self.warnings.push(warning.to_owned());
        self
    }

    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let query = &request.form["query"];
        let body = if query == "time()" {
            format!(
                r#"{{"status":"success","data":{{"resultType":"scalar","result":[{NOW},"{NOW}"]}}}}"#
            )
        } else {
            assert_eq!(request.form["time"], format!("{NOW:.3}"));
            let series = self.series.get(&question(query));
            let series: Vec<String> = series
                .into_iter()
                .flatten()
                .map(|(metric, value)| {
                    format!(r#"{{"metric":{metric},"value":[{NOW},"{value}"]}}"#)
                })
                .collect();
            let series = series.join(",");
            let mut body = format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}"#
            );
            if !self.warnings.is_empty() {
                let warnings = serde_json::to_string(&self.warnings).unwrap();
                let _ = write!(body, r#","warnings":{warnings}"#);
            }
            body + "}"
        };
        let json = "Content-Type: application/json\r\n".to_owned();
        Reply::Full("200 OK", json, body)
    }

    pub(crate) fn serve(self) -> Server {
        Server::start(move |request| self.answer(request))
    }
}

/// Which of the gate's questions a query is.
fn question(query: &str) -> String {
    let (metric, _) = query.split_once('{').unwrap();
    let metric = metric.rsplit(['(', ' ']).next().unwrap();
    let last = query.contains("last_over_time(");
    match metric {
        "up" if last => "gone".to_owned(),
        "up" if query.starts_with("timestamp(") => "scraped".to_owned(),
        "livepatch_patch_info" => "known".to_owned(),
        metric if last => format!("last {metric}"),
        metric => metric.to_owned(),
    }
}
