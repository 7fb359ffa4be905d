//! The exporter: waits for kernel events, answers scrapes.

pub mod collector;
pub mod collectors;
mod complaints;
mod event_loop;
pub mod journal;
mod kernel_log;
mod log_lines;
mod runtime;
mod sandbox;
mod saved_state;
mod startup;
pub mod status_page;
mod systemd;
mod textfile;
pub mod web;

use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use anyhow::Context as _;
use livepatch_core::journal::entry::Entry;
use tokio::io::{Interest, unix::AsyncFd};
use tracing::info;

pub use self::runtime::Exporter;
use self::{event_loop::EventLoop, startup::Started};
use crate::{crash::gather::Sources, kernel::clock};

/// Where the exporter looks and how it answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Listen on what systemd hands over instead.
    pub systemd_socket: bool,
    /// TLS and users.
    pub web_config: Option<PathBuf>,
    /// Path of the exposition.
    pub telemetry_path: String,
    /// Age from which pending tasks count as stuck.
    pub stuck_after: Duration,
    /// Where state is kept over a restart.
    pub state_dir: PathBuf,
    /// Root of procfs.
    pub procfs: PathBuf,
    /// Root of sysfs.
    pub sysfs: PathBuf,
    /// The kernel log's device.
    pub kmsg: PathBuf,
    /// Show the log of the BPF programs.
    pub kernel_log: bool,
    /// How long after a transition a crash is still counted as of its soak.
    pub soak: Duration,
    /// Where crashes leave evidence.
    pub sources: Sources,
    /// Root of the host's file system.
    pub rootfs: PathBuf,
    /// Further directories of livepatches that should be in force.
    pub expected_directories: Vec<PathBuf>,
    /// Names of livepatches that should be in force.
    pub expected_patches: Vec<String>,
    /// The directory of the text file with the metrics.
    pub textfile: Option<PathBuf>,
    /// Severities of the alert that a drill makes fire.
    pub drill: std::collections::BTreeSet<&'static str>,
}

/// A panic elsewhere must not silence the exporter: the values are still whole,
/// since each is replaced in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], but `None` where somebody else holds it.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Attaches the probes, takes up what an earlier process of this boot knew, and
/// listens until a signal stops it.
///
/// # Errors
/// The exporter cannot listen on an address, or the web configuration is wrong;
/// everything else degrades.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let source = web::Source::open(options.web_config.as_deref()).context("--web.config.file")?;
    let listeners = web::bind(&options.listen, options.systemd_socket)?;
    let Started {
        mut exporter,
        ring,
        log,
        watching,
    } = startup::start(options)?;
    // Everything is open: what that took is given up before anybody is answered. No other
    // thread runs yet, so that none keeps what this one gives up.
    sandbox::enter(&mut exporter, &source.files());
    let exporter = Arc::new(exporter);
    let addresses: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    // Whoever learns that it listens may stop it at once.
    let stop = stop()?;
    let mut server = web::Server::start(listeners, source, exporter.clone())?;
    for address in &addresses {
        info!(%address, path = exporter.telemetry_path(), "listening");
    }
    systemd::ready(&format!("listening on {addresses:?}"));
    let pulse = server.pulse();
    let events = EventLoop::new(exporter.clone(), ring, log, watching)?;
    tokio::select! {
        result = server.ended() => result,
        result = events.run() => result,
        result = textfile::keep(exporter.clone()) => result,
        () = systemd::feed_watchdog(|| pulse.felt()) => Ok(()),
        () = stop => {
            systemd::stopping();
            let ended = server.stop().await;
            exporter.note(clock::boot_time(), Entry::Stopped);
            lock(&exporter.journal).close();
            textfile::remove(exporter.options.textfile.as_deref());
            ended
        }
    }
}

/// From now on waits for SIGTERM or SIGINT, also before it is polled.
fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
    })
}

/// A kernel descriptor that becomes readable when there is something to read.
fn readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both sources (a ring buffer, and the log's) own one descriptor that
    // they neither close nor replace while they live, and the AsyncFd owns them.
    unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }.map_err(Into::into)
}
