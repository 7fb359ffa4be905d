//! The monitor in failing surroundings: a log that nobody reads, limits on files, threads and
//! memory, a full disk, directories of other users.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod limits;
mod log;
mod packaging;
mod shutdown;
mod textfile;

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use livepatch_monitor_test_support::{host::FakeHost, http};
use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// A process that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A `serve` whose address is known without its log, because it is given its socket.
struct Monitor {
    child: Child,
    address: String,
}

impl Monitor {
    /// Starts it with this standard error, after the shell has run `limits`.
    fn start(host: &FakeHost, limits: &str, stderr: impl Into<Stdio>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inner = host.command(BINARY, &["serve", "--web.systemd-socket"]);
        let script =
            format!("{limits} LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null");
        let mut command = Command::new("sh");
        FakeHost::shield(&mut command);
        let child = command
            .args(["-c", &script])
            .arg(inner.get_program())
            .args(inner.get_args())
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, address }
    }

    #[track_caller]
    fn metrics(&self) -> String {
        http::body(&self.address, "/metrics").unwrap()
    }

    /// The value of a metric without labels.
    #[track_caller]
    fn value(&self, metric: &str) -> f64 {
        let metrics = self.metrics();
        let prefix = format!("{metric} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {metric}"))
            .parse()
            .unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code after SIGTERM.
    #[track_caller]
    fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.code()
    }

    /// Its exit code once it has exited; one that hangs fails the test.
    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(since.elapsed() < HANGS, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
