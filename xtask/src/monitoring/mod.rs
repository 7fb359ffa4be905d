//! A real monitoring stack: Debian's Prometheus and Alertmanager on loopback, with the rules of
//! `dashboards/`, and a receiver for Alertmanager's notifications.

pub(crate) mod alertmanager;
pub(crate) mod notifications;
pub(crate) mod prometheus;
pub(crate) mod webhook;

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::host::{http, process};

/// How long a server may take to start, which is slow beside running VMs.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A server on this machine, stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts a program that listens on `port`, and waits until `/-/ready` answers.
    fn start(program: &Path, arguments: &[String], port: u16, log: PathBuf) -> Result<Self> {
        Self::start_until(program, arguments, port, log, "/-/ready")
    }

    /// The same for a program that has another page which answers when it is ready.
    pub(crate) fn start_until(
        program: &Path,
        arguments: &[String],
        port: u16,
        log: PathBuf,
        ready: &str,
    ) -> Result<Self> {
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output
            .try_clone()
            .with_context(|| format!("cannot share {}", log.display()))?;
        // util-linux's setpriv ensures that the server ends with this program.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Self { process, port, log };
        server.wait_until(ready)?;
        Ok(server)
    }

    fn wait_until(&mut self, ready: &str) -> Result<()> {
        let begin = Instant::now();
        loop {
            let Err(error) = http::get(self.port, ready) else {
                return Ok(());
            };
            let ended = self.process.try_wait().context("cannot wait")?;
            if ended.is_some() || begin.elapsed() > START {
                let log = process::last_lines(&self.log, 20)?;
                bail!("it is not ready: {error:#}; the end of its log:\n{log}");
            }
            thread::sleep(POLL);
        }
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address for a browser.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A free port of 127.0.0.1: the preferred one, if it is free.
pub(crate) fn free_port(preferred: u16) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, preferred))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("the port's number")?.port())
}

/// Calls `look` repeatedly until it finds something; after the time limit, its last error is
/// returned.
pub(crate) fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if begin.elapsed() > timeout => {
                return Err(error).with_context(|| {
                    format!("waited {} s in vain for {what}", begin.elapsed().as_secs())
                });
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}
