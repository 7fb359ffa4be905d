//! An exporter on a host without livepatches.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// A directory that is a host's root, and holds the configuration too.
pub(crate) struct Host {
    pub(crate) root: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let host = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(host.path("sys/kernel")).unwrap();
        host.write(
            "proc/sys/kernel/random/boot_id",
            "3f1c4a52-0000-4000-8000-000000000001\n",
        );
        host.write("kmsg", "");
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a file as if a while ago, so that it is not taken for half written.
    pub(crate) fn write_settled(&self, name: &str, text: impl AsRef<[u8]>) {
        self.write(name, text);
        settle(&self.path(name));
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["serve", "--log.format", "json"])
            .arg("--path.sysfs")
            .arg(self.path("sys"))
            .arg("--path.procfs")
            .arg(self.path("proc"))
            .arg("--path.kmsg")
            .arg(self.path("kmsg"))
            .arg("--state-dir")
            .arg(self.path("state"));
        command
    }

    /// An exporter on loopback with `web.yml` as its web configuration, if there is one.
    pub(crate) fn start(&self) -> Exporter {
        let mut command = self.command();
        command.args(["--web.listen-address", "127.0.0.1:0"]);
        if self.path("web.yml").exists() {
            command.arg("--web.config.file").arg(self.path("web.yml"));
        }
        Exporter::of(command)
    }
}

/// Dates a file a minute back.
pub(crate) fn settle(path: &Path) {
    let file = fs::File::open(path).unwrap();
    let then = std::time::SystemTime::now() - Duration::from_secs(60);
    file.set_modified(then).unwrap();
}

/// An exporter, killed when dropped.
pub(crate) struct Exporter {
    pub(crate) process: Child,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Exporter {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let shared = log.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = shared.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut exporter = Self {
            process,
            address: String::new(),
            log,
        };
        let listening = exporter.wait_for_line("\"listening\"");
        let entry: serde_json::Value = serde_json::from_str(&listening).unwrap();
        exporter.address = entry["address"].as_str().unwrap().to_owned();
        exporter
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The first line of the log that has these words.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, words: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            let ended = self.process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no {words:?} ({ended:?}) in:\n{log}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Status and the whole answer, headers included.
    pub(crate) fn get(&self, path: &str, headers: &str) -> (u16, String) {
        ask(self.connect(), path, headers)
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kilobytes * 1024
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id()))
            .unwrap()
            .count()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(mut stream: impl Read + Write, path: &str, headers: &str) -> (u16, String) {
    try_ask(&mut stream, path, headers).unwrap()
}

pub(crate) fn try_ask(
    stream: &mut (impl Read + Write),
    path: &str,
    headers: &str,
) -> std::io::Result<(u16, String)> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
    )?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).unwrap();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
    Ok((code, answer))
}
