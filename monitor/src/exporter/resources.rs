//! Checks whether the process can have the threads and the memory that answers need. Without them
//! it would run, feed its watchdog, and fail every scrape, so it exits instead.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::runtime::{Builder, Runtime};

use super::lock;

/// Threads of the web server's runtime that wait for the kernel: one each for a scrape,
/// the two forms of the status page, and a password.
pub(super) const WEB_THREADS: usize = 4;
/// Threads of the main runtime: a scan of the tasks, the text file and its removal.
pub(super) const MAIN_THREADS: usize = 3;
/// The same, plus the web server's own thread.
const THREADS: usize = WEB_THREADS + MAIN_THREADS + 1;

/// Memory for a scrape of a host with many patches, and for the connections.
const MEMORY: usize = 16 << 20;

/// Threads are kept once they have been started, so that they need not be started again when there
/// is no room for one.
const KEEP_ALIVE: Duration = Duration::from_secs(u32::MAX as u64);

/// How long the exit of the process waits for waiting threads.
pub(crate) const LAST_WORK: Duration = Duration::from_secs(1);

/// How long the start of all threads may take.
const PATIENCE: Duration = Duration::from_secs(5);

const REMEDY: &str =
    "raise the limit (TasksMax=, LimitNPROC=, ulimit -u; ulimit -v bounds their stacks)";

/// A runtime on this thread, with this many further threads that may wait.
///
/// # Errors
/// The system does not provide an event mechanism.
pub(crate) fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(threads)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .context("cannot start the async runtime")
}

/// The main runtime.
///
/// # Errors
/// As [`runtime`].
pub(crate) fn main_runtime() -> anyhow::Result<Runtime> {
    runtime(MAIN_THREADS)
}

/// Starts all threads that may wait in the calling runtime. From then on their number does not
/// change.
///
/// # Errors
/// They cannot be started.
pub(super) async fn start_threads(count: usize) -> anyhow::Result<()> {
    let arrived = Arc::new((Mutex::new(0), Condvar::new()));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let arrived = arrived.clone();
            // Busy until all are there, so that each task occupies a thread.
            tokio::task::spawn_blocking(move || {
                let (number, changed) = &*arrived;
                let mut number = lock(number);
                *number += 1;
                changed.notify_all();
                let all = changed
                    .wait_timeout_while(number, PATIENCE, |number| *number < count)
                    .unwrap_or_else(PoisonError::into_inner);
                *all.0 >= count
            })
        })
        .collect();
    let mut all = true;
    for thread in threads {
        all &= thread.await?;
    }
    anyhow::ensure!(all, "cannot start {count} threads; {REMEDY}");
    Ok(())
}

/// Starts as many threads as will ever run at once, ends them, and allocates the memory.
///
/// # Errors
/// There is not enough of one of them.
pub(super) fn check() -> anyhow::Result<()> {
    let mut memory: Vec<u8> = Vec::new();
    if memory.try_reserve_exact(MEMORY).is_err() {
        bail!(
            "cannot allocate {} MiB of memory; raise the limit (MemoryMax=, LimitAS=, ulimit -v) or free some",
            MEMORY >> 20
        );
    }
    drop(memory);
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let mut started = Vec::new();
    let mut problem = None;
    while started.len() < THREADS && problem.is_none() {
        let wait = wait.clone();
        // Returns as soon as the channel is closed.
        let waiting = move || {
            let _ = lock(&wait).recv();
        };
        match thread::Builder::new().spawn(waiting) {
            Ok(thread) => started.push(thread),
            Err(error) => problem = Some(error),
        }
    }
    drop(go);
    let count = started.len();
    for thread in started {
        // None of them can panic.
        let _ = thread.join();
    }
    match problem {
        None => Ok(()),
        Some(error) => bail!(
            "{THREADS} threads are needed, but only {count} could be started: {error}; {REMEDY}"
        ),
    }
}
