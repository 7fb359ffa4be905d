//! The gate as a rollout script meets it: the built binary against a Prometheus of our
//! own making (a mock: it proves what the gate makes of answers; that the queries mean
//! what they should is proved on a real one).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod bad_input;
mod fake;
mod tls;
mod verdicts;
mod wait;

use std::{
    io::Read as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");
/// No run may take longer, whatever the server does.
const LONGEST: Duration = Duration::from_secs(60);

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    /// The exit code is this, and all of these words are printed.
    #[track_caller]
    fn says(&self, code: i32, words: &[&str]) -> &Self {
        let all = format!("{}\n{}", self.out, self.err);
        assert_eq!(self.code, Some(code), "{all}");
        for word in words {
            assert!(all.contains(word), "no {word:?} in: {all}");
        }
        assert!(!all.contains("panicked"), "{all}");
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

/// Runs the gate for the patch `fix`.
fn gate(url: &str, arguments: &[&str]) -> Answer {
    let mut all = vec!["--prometheus", url, "--patch", "fix"];
    all.extend_from_slice(arguments);
    run(&all)
}

fn run(arguments: &[&str]) -> Answer {
    let mut command = Command::new(BINARY);
    command.arg("gate").args(arguments);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let read = |mut stream: Box<dyn std::io::Read + Send>| {
        thread::spawn(move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    };
    let out = read(Box::new(child.stdout.take().unwrap()));
    let err = read(Box::new(child.stderr.take().unwrap()));
    let began = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if began.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("the gate did not end: {arguments:?}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    Answer {
        code,
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}
