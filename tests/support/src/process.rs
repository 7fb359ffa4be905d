//! The monitor's program as a process: its output, its exit, its responses.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up fails at once"
)]

use std::{
    fs,
    io::Read,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process},
};

use crate::http::{self, Response};

/// A process that runs longer hangs; it is killed, and the test fails.
const HANGS: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// How a run of the program ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Answer {
    /// Standard output followed by standard error.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }

    /// Expects this exit code, and all of these words on either output.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) -> &Self {
        let text = self.text();
        assert_eq!(self.code, Some(code), "{text}");
        expect_words(&text, words);
        self
    }

    /// Expects exit code 2, and all of these words on standard error.
    #[track_caller]
    pub fn refuses(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{}", self.text());
        expect_words(&self.err, words);
    }

    /// Standard output as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

#[track_caller]
fn expect_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// Prometheus's `promtool`, if it is on PATH. If not, reports which part of the test is left out.
#[must_use]
pub fn promtool(left_out: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("promtool"))
        .find(|path| path.is_file());
    if found.is_none() {
        crate::left_out(
            left_out,
            "no promtool on PATH; `cargo xtask test` brings it",
        );
    }
    found
}

/// A running process whose output is collected; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    out: Gathered,
    err: Gathered,
    started: Instant,
}

#[derive(Debug)]
struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Gathered {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = bytes.clone();
        let thread = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut piece) {
                shared.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        });
        Self {
            bytes,
            thread: Some(thread),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn finish(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.text()
    }
}

impl Process {
    /// Starts a command without standard input.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start_with_input(command)
    }

    /// Starts a command with the standard input that it names.
    pub fn start_with_input(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            out: Gathered::from(child.stdout.take().unwrap()),
            err: Gathered::from(child.stderr.take().unwrap()),
            child,
            started: Instant::now(),
        }
    }

    /// Starts a `serve` and waits until it listens.
    #[track_caller]
    pub fn serve(command: Command) -> Self {
        let mut process = Self::start(command);
        assert!(process.listens(), "it ended:\n{}", process.text());
        process
    }

    /// Runs a command to its end.
    pub fn run(command: Command) -> Answer {
        Self::start(command).finish()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.out.text(), self.err.text())
    }

    /// Whether it is still running; one that hangs is killed.
    pub fn runs(&mut self) -> bool {
        thread::sleep(POLL);
        let runs = self.child.try_wait().unwrap().is_none();
        if runs && self.started.elapsed() > HANGS {
            self.child.kill().unwrap();
            panic!("it does not end:\n{}", self.text());
        }
        runs
    }

    /// Waits until it listens, or writes its text file; false if it ended instead.
    pub fn listens(&mut self) -> bool {
        let up = |text: &str| text.contains("listening") || text.contains("writing the metrics");
        while !up(&self.text()) {
            if !self.runs() {
                return up(&self.text());
            }
        }
        true
    }

    /// Waits for a line of its log that has these words.
    #[track_caller]
    pub fn wait_for_line(&mut self, words: &str) -> String {
        loop {
            let text = self.text();
            // A line that is only partly printed does not count yet.
            let lines = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = lines.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(self.runs(), "it ended and did not say {words:?}:\n{text}");
        }
    }

    /// The first address that it listens on.
    #[must_use]
    #[track_caller]
    pub fn address(&self) -> String {
        let address = self.find_address();
        address.unwrap_or_else(|| panic!("it listens nowhere:\n{}", self.text()))
    }

    /// That address, from its log in either format; `None` if it does not listen.
    #[must_use]
    pub fn find_address(&self) -> Option<String> {
        let text = self.text();
        let rest = match text.split_once("\"address\":\"") {
            Some((_, rest)) => rest,
            None => text.split_once("address=")?.1,
        };
        let end = rest.find(|character: char| character == '"' || character.is_whitespace())?;
        Some(rest[..end].to_owned())
    }

    /// One request, over a separate connection.
    #[track_caller]
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        http::get(&self.address(), path, headers).unwrap()
    }

    /// The body of a scrape of `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> String {
        http::body(&self.address(), "/metrics").unwrap()
    }

    /// A connection for bytes that no HTTP client would write.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        stream
    }

    /// Id of the process, for signals and /proc.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap();
        kilobytes * 1024
    }

    /// Number of file descriptors that the process has open.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let listing = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        listing.count()
    }

    /// CPU time that it has used, including threads that have ended (proc_pid_stat(5)).
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|word| word.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it ends.
    pub fn finish(mut self) -> Answer {
        self.wait()
    }

    fn wait(&mut self) -> Answer {
        while self.runs() {}
        Answer {
            code: self.child.wait().unwrap().code(),
            out: self.out.finish(),
            err: self.err.finish(),
        }
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) -> Answer {
        // It may already have ended, which the response will show.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        self.started = Instant::now();
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
