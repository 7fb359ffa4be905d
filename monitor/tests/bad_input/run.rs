//! Runs the binary within bounds of time and memory.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::{Ends, Row, ground::Ground};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");
/// Nothing takes longer; pipes are given ten seconds.
const LONGEST: Duration = Duration::from_secs(60);
/// Address space: far less than the largest file.
const MEMORY: &str = "--as=2147483648";

/// What came of a run: all that was printed.
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

/// The binary, bounded, and without root's right to read what it may not.
pub(crate) fn binary() -> Command {
    let mut command = Command::new("prlimit");
    command.arg(MEMORY);
    if rustix::process::geteuid().is_root() {
        command.args(["setpriv", "--bounding-set=-dac_override,-dac_read_search"]);
    }
    command.arg(BINARY);
    command
}

/// The command of a row, on the ground's host where the row says nothing else.
pub(crate) fn command(ground: &Ground, line: &[&str]) -> Command {
    let mut command = binary();
    for word in line {
        command.arg(ground.argument(word));
    }
    let given = |flag: &str| line.iter().any(|word| word.starts_with(flag));
    let serves = line.first() == Some(&"serve");
    let listens = ["--web.listen-address", "--web.systemd-socket", "--textfile"];
    if serves && !listens.iter().any(|flag| given(flag)) {
        command.args(["--web.listen-address", "127.0.0.1:0"]);
    }
    for (flag, name) in [
        ("--path.sysfs", "sys"),
        ("--path.procfs", "proc"),
        ("--path.kmsg", "kmsg"),
        ("--path.rootfs", "rootfs"),
        ("--path.pstore", "dir"),
        ("--path.systemd-pstore", "dir"),
        ("--path.kdump", "dir"),
        ("--state-dir", "state"),
    ] {
        if !given(flag) {
            command.arg(flag).arg(ground.path(name));
        }
    }
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID");
    command
}

/// Runs these arguments and no others.
pub(crate) fn plainly(ground: &Ground, line: &[&str]) -> Answer {
    let mut command = binary();
    for word in line {
        command.arg(ground.argument(word));
    }
    Process::start(command).finish()
}

/// A process whose output is gathered.
pub(crate) struct Process {
    child: Child,
    text: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
    began: Instant,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start_with_input(command)
    }

    /// With the standard input that the command names.
    pub(crate) fn start_with_input(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = Arc::new(Mutex::new(Vec::new()));
        let gather = |mut stream: Box<dyn std::io::Read + Send>| {
            let text = text.clone();
            thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut piece) {
                    text.lock().unwrap().extend_from_slice(&piece[..read]);
                }
            })
        };
        let readers = vec![
            gather(Box::new(child.stdout.take().unwrap())),
            gather(Box::new(child.stderr.take().unwrap())),
        ];
        Self {
            child,
            text,
            readers,
            began: Instant::now(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// Whether the process goes on; once its time is over it is ended.
    fn runs(&mut self) -> bool {
        if self.began.elapsed() > LONGEST {
            self.child.kill().unwrap();
            self.text
                .lock()
                .unwrap()
                .extend_from_slice(b"killed: it did not end");
        }
        thread::sleep(Duration::from_millis(10));
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn finish(mut self) -> Answer {
        while self.runs() {}
        self.collect()
    }

    fn collect(&mut self) -> Answer {
        let code = self.child.wait().unwrap().code();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let text = self.text();
        Answer { code, text }
    }

    /// Waits until it listens; false if it ended instead.
    pub(crate) fn listens(&mut self) -> bool {
        while !is_up(&self.text()) {
            if !self.runs() {
                return is_up(&self.text());
            }
        }
        true
    }

    /// Its address on loopback.
    pub(crate) fn address(&self) -> String {
        let text = self.text();
        let (_, rest) = text.split_once("address=").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// What is wrong with its answer to a scrape, if it has an address.
    fn scraped(&self) -> Option<String> {
        if !self.text().contains("address=") {
            return None;
        }
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(LONGEST)).unwrap();
        let mut answer = String::new();
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_to_string(&mut answer))
            .unwrap();
        let whole =
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("livepatch_monitor_build_info");
        (!whole).then(|| format!("a scrape gets {answer}"))
    }

    pub(crate) fn stop(&mut self) -> Answer {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        while self.runs() {}
        self.collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_up(text: &str) -> bool {
    text.contains("listening") || text.contains("writing the metrics")
}

/// What is wrong with a row's outcome.
pub(crate) fn check(ground: &Ground, row: &Row) -> Result<(), String> {
    let began = Instant::now();
    let mut process = Process::start(command(ground, row.line));
    let fault = |problem: String, text: &str| {
        Err(format!(
            "{:?} ({}): {problem} in:\n{text}",
            row.line, row.about
        ))
    };
    let answer = match row.ends {
        Ends::With(_) => process.finish(),
        Ends::Serves => {
            if !process.listens() {
                return fault("it does not serve".into(), &process.text());
            }
            if let Some(problem) = process.scraped() {
                return fault(problem, &process.text());
            }
            let answer = process.stop();
            if answer.code != Some(0) {
                return fault(format!("it stops with {:?}", answer.code), &answer.text);
            }
            answer
        }
    };
    if let Ends::With(code) = row.ends
        && answer.code != Some(code)
    {
        return fault(format!("exit code {:?}", answer.code), &answer.text);
    }
    for word in row.says {
        if !answer.text.contains(word) {
            return fault(format!("no {word:?}"), &answer.text);
        }
    }
    if answer.text.contains("panicked") {
        return fault("a panic".into(), &answer.text);
    }
    if std::env::var_os("SHOW").is_some() {
        println!("ROW {:?} {:?}\n{}", began.elapsed(), row.line, answer.text);
    }
    Ok(())
}
