//! The exporter's loop. It waits for kernel events, reads the kernel log after a crash hook, and
//! polls sysfs if there are no events. Nothing runs while nothing happens.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use tokio::{
    io::unix::AsyncFd,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{Exporter, collectors::crashes::LogReading, kernel_log, readable, runtime::Next};
use crate::kernel::{clock, events, kmsg::KmsgReader};
use livepatch_core::transition::Watching;

/// From the start of an attempt to the scan of the tasks it left pending: the attempt first walks
/// all tasks.
const AFTER_ATTEMPT: Duration = Duration::from_millis(100);
/// How often sysfs is read if no probe reports transitions.
const POLL: Duration = Duration::from_secs(1);
/// While a livepatch's module loads, nothing wakes the monitor before the kernel's first attempt is
/// over. So the monitor checks by itself, first after this time, then after twice as long each
/// time, up to [`LOADING_MOST`].
const LOADING: Duration = Duration::from_millis(250);
const LOADING_MOST: Duration = Duration::from_secs(1);
/// From a crash hook to reading the log: the kernel takes a moment to print a report.
const AFTER_CRASH: Duration = Duration::from_millis(100);
/// Reading the log may use one part in this many of a CPU: during a storm of reports the next
/// reading is delayed, but not so long that the cause of the storm remains unknown.
const LOG_SHARE: u32 = 20;
const LOG_MOST_REST: Duration = Duration::from_secs(5);
/// A report that is still being printed is read again after this.
const LOG_QUIET: Duration = Duration::from_millis(300);

/// Events taken out of the ring buffer at once: more than it can hold.
const BATCH: usize = 1024;

/// What the loop must do, and when.
#[derive(Debug, Default)]
struct Due {
    /// The ring buffer was not emptied.
    events: bool,
    look: Option<Instant>,
    loading: Option<(Instant, Duration)>,
    log: Option<Instant>,
    /// When the log may be read next.
    log_rests: Option<Instant>,
}

impl Due {
    fn take(&mut self, next: Next) {
        let now = Instant::now();
        if next.scan || next.save {
            self.look.get_or_insert(now + AFTER_ATTEMPT);
        }
        if next.loading {
            self.loading.get_or_insert((now + LOADING, LOADING));
        }
        if next.log {
            self.read_log_after(AFTER_CRASH);
        }
    }

    fn read_log_after(&mut self, span: Duration) {
        let when = Instant::now() + span;
        let when = self.log_rests.map_or(when, |rests| rests.max(when));
        self.log.get_or_insert(when);
    }
}

/// What the loop waits for.
pub(super) struct EventLoop {
    exporter: Arc<Exporter>,
    /// The ring buffer of the probes; `None` without probes.
    ring: Option<AsyncFd<RingBuf<MapData>>>,
    /// `None` if a hook announces the log's lines.
    log: Option<AsyncFd<KmsgReader>>,
    /// Transitions are seen by reading sysfs only.
    polls: bool,
    due: Due,
    looking: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// # Errors
    /// The ring buffer cannot be waited for.
    pub(super) fn new(
        exporter: Arc<Exporter>,
        ring: Option<RingBuf<MapData>>,
        log: Option<AsyncFd<KmsgReader>>,
        watching: Watching,
    ) -> anyhow::Result<Self> {
        let ring = ring
            .map(readable)
            .transpose()
            .context("waiting for kernel events")?;
        let supported = exporter.options.sysfs.join("kernel/livepatch").is_dir();
        Ok(Self {
            exporter,
            ring,
            log,
            polls: supported && watching == Watching::Snapshots,
            due: Due::default(),
            looking: None,
        })
    }

    /// Handles the kernel's events, or polls sysfs if there are none.
    ///
    /// # Errors
    /// Waiting for events failed.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        // A module was being loaded when the monitor before this one ended.
        self.see_loading(LOADING);
        loop {
            tokio::select! {
                ready = events_ready(self.ring.as_mut()) => {
                    ready?;
                    self.drain();
                }
                // The other branches get their turn even in an endless storm of events.
                () = tokio::task::yield_now(), if self.due.events => self.drain(),
                () = until(self.due.look) => {
                    self.due.look = None;
                    self.look_aside();
                }
                () = until(self.due.loading.map(|(when, _)| when)) => {
                    self.drain();
                    let step = self.due.loading.map_or(LOADING, |(_, step)| step * 2);
                    self.see_loading(step.min(LOADING_MOST));
                }
                () = until(self.due.log) => self.read_log(),
                ready = lines_ready(self.log.as_mut()) => {
                    ready?;
                    self.read_lines();
                }
                () = tokio::time::sleep(POLL), if self.polls => {
                    self.exporter.poll_patches();
                    if self.exporter.transition_runs() {
                        self.look_aside();
                    }
                }
            }
        }
    }

    /// Checks again after `step` while a livepatch's module is being loaded.
    fn see_loading(&mut self, step: Duration) {
        let loading = self.exporter.still_loading();
        self.due.loading = loading.then(|| (Instant::now() + step, step));
    }

    /// Scans on another thread, because reading a task's stack may block behind that task. Does
    /// nothing while an earlier scan still runs.
    fn look_aside(&mut self) {
        if self.looking.as_ref().is_none_or(JoinHandle::is_finished) {
            let exporter = self.exporter.clone();
            self.looking = Some(tokio::task::spawn_blocking(move || exporter.look()));
        }
    }

    /// Empties the ring buffer and handles its events. It is emptied first, so that there is room
    /// for the events that arrive meanwhile.
    fn drain(&mut self) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(record) = ring.get_mut().next()
        {
            batch.push(events::decode(&record));
        }
        self.due.events = batch.len() == BATCH;
        let mut next = Next::default();
        for event in batch {
            match event {
                Ok(event) => {
                    debug!(?event, "kernel event");
                    self.exporter.event(&event, &mut next);
                }
                Err(error) => warn!("{error}"),
            }
        }
        if next.save {
            self.exporter.save();
        }
        self.due.take(next);
    }

    /// Reads the kernel log for what crash hooks announced.
    fn read_log(&mut self) {
        let before = clock::thread_cpu_time();
        let reading = self.exporter.read_log();
        let cost = clock::thread_cpu_time().saturating_sub(before);
        self.due.log = None;
        let rest = (cost * LOG_SHARE).min(LOG_MOST_REST);
        self.due.log_rests = Some(Instant::now() + rest);
        if reading == LogReading::Unfinished {
            self.due.read_log_after(LOG_QUIET);
        }
    }

    /// Reads the new lines of the kernel log.
    fn read_lines(&mut self) {
        let Some(log) = &mut self.log else {
            return;
        };
        let (signals, error) = kernel_log::new_signals(log.get_mut());
        if let Some(error) = error {
            self.exporter.log_lines_unreadable(&error);
        }
        for line in &signals {
            self.exporter.log_line(line);
        }
        if !signals.is_empty() {
            self.due.read_log_after(AFTER_CRASH);
        }
    }
}

/// Waits for events; without a ring buffer it never returns.
async fn events_ready(ring: Option<&mut AsyncFd<RingBuf<MapData>>>) -> anyhow::Result<()> {
    match ring {
        Some(ring) => {
            let mut guard = ring
                .readable_mut()
                .await
                .context("waiting for kernel events")?;
            // Cleared first, so that an event that arrives while the buffer is drained wakes the
            // loop again.
            guard.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

/// Waits for lines of the kernel log; if a hook announces them it never returns.
async fn lines_ready(log: Option<&mut AsyncFd<KmsgReader>>) -> anyhow::Result<()> {
    match log {
        Some(log) => {
            let mut guard = log
                .readable_mut()
                .await
                .context("waiting for the kernel log")?;
            guard.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
