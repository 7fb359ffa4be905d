//! Controls a headless Chromium with the DevTools protocol over a pipe: JSON messages, each ended
//! by a NUL.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::host::process;

/// The time limit for one answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the process may take to end once asked to.
const FAREWELL: Duration = Duration::from_secs(10);

/// Chromium reads messages from descriptor 3 and writes them to 4; the shell connects these to
/// standard input and output.
const REDIRECT: &str = r#"exec 3<&0 4>&1 </dev/null >&2; exec "$@""#;

/// Chromium's flags; nothing here may use the network.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A running browser with one tab. It ends when this is dropped.
pub(super) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    log: PathBuf,
    session: Option<String>,
    last_id: u64,
    /// The events since the last [`Self::take_events`].
    events: Vec<Value>,
}

impl Browser {
    /// Starts the browser with its profile and log in this folder.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let profile = folder.join("profile");
        if profile.exists() {
            fs::remove_dir_all(&profile)
                .with_context(|| format!("cannot remove {}", profile.display()))?;
        }
        let program = process::find_program("chromium").context("chromium is not on PATH")?;
        let log = folder.join("chromium.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new("sh")
            .args(["-c", REDIRECT, "sh"])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .context("cannot start chromium")?;
        let (Some(commands), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("chromium has no pipes");
        };
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let Ok(text) = message else { return };
                let Ok(message) = serde_json::from_slice(&text) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            log,
            session: None,
            last_id: 0,
            events: Vec::new(),
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", &attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method and waits for the answer.
    pub(super) fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).context("writing a command")?;
        bytes.push(0);
        self.commands
            .write_all(&bytes)
            .with_context(|| format!("chromium is gone; see {}", self.log.display()))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next(deadline, method)?;
            if message["id"] != json!(id) {
                self.events.push(message);
            } else if message["error"].is_null() {
                return Ok(message["result"].clone());
            } else {
                bail!("{method}: {}", message["error"]);
            }
        }
    }

    /// Waits for an event; earlier events are kept.
    pub(super) fn wait_for(&mut self, method: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut known = 0;
        loop {
            let fresh = self.events.get(known..).unwrap_or_default();
            if fresh.iter().any(|event| event["method"] == method) {
                return Ok(());
            }
            known = self.events.len();
            let message = self.next(deadline, method)?;
            self.events.push(message);
        }
    }

    /// Takes the events since the last call.
    pub(super) fn take_events(&mut self) -> Vec<Value> {
        self.events.extend(self.messages.try_iter());
        std::mem::take(&mut self.events)
    }

    fn next(&self, deadline: Instant, waiting_for: &str) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.messages.recv_timeout(left).with_context(|| {
            format!(
                "chromium does not answer {waiting_for}; see {}",
                self.log.display()
            )
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let _ = self.call("Browser.close", &json!({}));
        let deadline = Instant::now() + FAREWELL;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
