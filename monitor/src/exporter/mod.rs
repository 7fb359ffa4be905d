//! The exporter: waits for kernel events, answers scrapes.

pub mod collector;
pub mod collectors;
mod complaints;
mod event_loop;
pub mod journal;
mod kernel_log;
mod log_lines;
mod memory;
mod once;
pub(crate) mod resources;
mod runtime;
mod sandbox;
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

use self::{event_loop::EventLoop, startup::Started, systemd::Manager, textfile::Textfile};
pub use self::{once::run_once, runtime::Exporter};
use crate::{crash::sources::Sources, kernel::clock};

/// Paths that the exporter reads, and how it serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Use the sockets that systemd passes instead.
    pub systemd_socket: bool,
    /// The file with TLS settings and users (`--web.config.file`); `None` for plain HTTP.
    pub web_config: Option<PathBuf>,
    /// Path of the exposition.
    pub telemetry_path: String,
    /// Age of a transition from which it counts as stuck.
    pub stuck_after: Duration,
    /// Where state is kept across restarts.
    pub state_dir: PathBuf,
    /// Where procfs is mounted (`--path.procfs`).
    pub procfs: PathBuf,
    /// Where sysfs is mounted (`--path.sysfs`).
    pub sysfs: PathBuf,
    /// The kernel log's device.
    pub kmsg: PathBuf,
    /// Show the log of the BPF programs.
    pub kernel_log: bool,
    /// How long after a transition a crash still counts as one during its soak.
    pub soak: Duration,
    /// Where crashes leave evidence.
    pub sources: Sources,
    /// Where the host's root file system is mounted.
    pub rootfs: PathBuf,
    /// Further directories of livepatches that should be in force.
    pub expected_directories: Vec<PathBuf>,
    /// Names of livepatches that should be in force.
    pub expected_patches: Vec<String>,
    /// The directory of the text file with the metrics.
    pub textfile: Option<PathBuf>,
    /// Write the text file once and exit: nothing is watched, nothing recorded.
    pub once: bool,
    /// Severities of the alert that a drill makes fire.
    pub drill: std::collections::BTreeSet<&'static str>,
}

/// Locks even after a panic, which must not silence the exporter. The values are still consistent,
/// because each is replaced in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Like [`lock`], but `None` if the lock is held.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Attaches the probes, restores what an earlier process of this boot saved, and serves until a
/// signal stops it.
///
/// # Errors
/// The exporter cannot listen on an address, or the web configuration is invalid. Everything else
/// degrades.
pub async fn run(options: Options) -> anyhow::Result<()> {
    memory::keep_small();
    let source = web::Source::open(options.web_config.as_deref()).context("--web.config.file")?;
    let listeners = web::bind(&options.listen, options.systemd_socket)?;
    let manager = Manager::connect();
    let Started {
        mut exporter,
        ring,
        log,
        watching,
    } = startup::start(options)?;
    // Everything is open: the rights that were needed for it are dropped before the first request
    // is answered. No other thread runs yet that could keep them.
    sandbox::enter(&mut exporter, &source.files());
    let exporter = Arc::new(exporter);
    let addresses: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    // Before it logs that it listens, because a caller that reads that may stop it at once.
    let stop = stop()?;
    let server = async {
        resources::check()?;
        resources::start_threads(resources::MAIN_THREADS).await?;
        web::Server::start(listeners, source, exporter.clone())
    };
    let mut server = match server.await {
        Ok(server) => server,
        Err(error) => {
            end_journal(&exporter);
            return Err(error);
        }
    };
    for address in &addresses {
        info!(%address, path = exporter.telemetry_path(), "listening");
    }
    manager.ready(&format!("listening on {addresses:?}"));
    let file = exporter.options.textfile.as_deref();
    let file = file.map(|directory| Arc::new(Textfile::new(directory)));
    let pulse = server.pulse();
    let events = EventLoop::new(exporter.clone(), ring, log, watching)?;
    tokio::select! {
        result = server.ended() => result,
        result = events.run() => result,
        result = textfile::keep(exporter.clone(), file.clone()) => result,
        () = manager.feed_watchdog(|| pulse.felt()) => Ok(()),
        () = stop => {
            manager.stopping();
            // On disk before any client is waited for: without it the next boot would count this
            // one's end as a crash.
            end_journal(&exporter);
            let ended = server.stop().await;
            textfile::remove(file).await;
            ended
        }
    }
}

/// Records in the journal that the monitor stops, and waits for the disk.
fn end_journal(exporter: &Exporter) {
    exporter.record(clock::boot_time(), Entry::Stopped);
    // Not waited for under the lock, which every scrape takes.
    let closing = lock(&exporter.journal).close();
    closing.wait();
}

/// Waits for SIGTERM or SIGINT. The handlers are installed now, before the future is polled.
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

/// Registers a kernel descriptor that becomes readable when there is something to read.
fn readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both sources (a ring buffer, and the log's) own one descriptor that
    // they neither close nor replace while they live, and the AsyncFd owns them.
    unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }.map_err(Into::into)
}
