//! The exporter's loop: events of the kernel, its log after a crash hook, sysfs where
//! there are no events. Everything here waits; nothing runs while nothing happens.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use livepatch_monitor_ebpf::EventKind;
use tokio::{
    io::unix::AsyncFd,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{Exporter, lock, readable};
use crate::kernel::{
    clock,
    events::{self, KernelEvent},
    kmsg::KmsgReader,
    probes::Method,
    sysfs,
};
use livepatch_core::journal::entry::Entry;

/// How long after an attempt begins its outcome is looked at: the attempt walks
/// all tasks first.
const AFTER_ATTEMPT: Duration = Duration::from_millis(100);
/// How often sysfs is read where no probe tells of transitions.
const POLL: Duration = Duration::from_secs(1);
/// While a livepatch's module loads nothing wakes the monitor before the kernel's
/// first attempt is over, so it looks by itself, first after this and then ever later.
const LOADING: Duration = Duration::from_millis(250);
const LOADING_MOST: Duration = Duration::from_secs(1);
/// From a crash hook to the reading of the log: a report takes a moment to print.
const AFTER_CRASH: Duration = Duration::from_millis(100);
/// Reading the log may cost this share of one CPU: in a storm of reports the next
/// reading waits.
const LOG_SHARE: u32 = 20;
/// A report of which no more comes for this long is taken as it is.
const LOG_QUIET: Duration = Duration::from_millis(300);

/// Events that are taken out of the ring buffer at once: more than it holds.
const BATCH: usize = 1024;

/// What a pass over the ring buffer found.
#[derive(Debug, Default)]
struct Drained {
    /// There may be more to take at once.
    more: bool,
    /// The kernel tried to complete a transition.
    attempted: bool,
    /// A transition began or ended, or its start is known better.
    changed: bool,
    /// A crash hook was hit.
    crashed: bool,
    /// A livepatch's module is being loaded.
    loading: bool,
}

/// What is to be done when.
#[derive(Debug, Default)]
struct Due {
    /// The ring buffer, which was not emptied.
    events: bool,
    look: Option<Instant>,
    loading: Option<(Instant, Duration)>,
    log: Option<Instant>,
    /// Not before.
    log_rests: Option<Instant>,
}

impl Due {
    fn take(&mut self, drained: &Drained) {
        let now = Instant::now();
        self.events = drained.more;
        if drained.attempted || drained.changed {
            self.look.get_or_insert(now + AFTER_ATTEMPT);
        }
        if drained.loading {
            self.loading.get_or_insert((now + LOADING, LOADING));
        }
        if drained.crashed {
            self.read_log_after(AFTER_CRASH);
        }
    }

    fn read_log_after(&mut self, span: Duration) {
        let when = Instant::now() + span;
        let when = self.log_rests.map_or(when, |rests| rests.max(when));
        self.log.get_or_insert(when);
    }
}

impl Exporter {
    /// Follows the kernel's events, or sysfs where there are none.
    pub(super) async fn follow(
        self: Arc<Self>,
        ring: Option<RingBuf<MapData>>,
        mut log_lines: Option<AsyncFd<KmsgReader>>,
    ) -> anyhow::Result<()> {
        let mut ring = ring
            .map(readable)
            .transpose()
            .context("waiting for kernel events")?;
        let supported = self.options.sysfs.join("kernel/livepatch").is_dir();
        let poll = supported
            && self
                .status
                .iter()
                .any(|probe| probe.method == Method::Sysfs);
        let mut due = Due {
            // A module was being loaded when the monitor before this one ended.
            loading: self
                .still_loading()
                .then(|| (Instant::now() + LOADING, LOADING)),
            ..Due::default()
        };
        let mut looking: Option<JoinHandle<bool>> = None;
        loop {
            tokio::select! {
                ready = events_ready(ring.as_mut()) => {
                    ready?;
                    due.take(&self.drain(ring.as_mut()));
                }
                // In a storm that does not end the others have their turn too.
                () = tokio::task::yield_now(), if due.events => {
                    due.take(&self.drain(ring.as_mut()));
                }
                () = until(due.look) => {
                    due.look = None;
                    self.look_aside(&mut looking);
                }
                () = until(due.loading.map(|(when, _)| when)) => {
                    let drained = self.drain(ring.as_mut());
                    due.take(&drained);
                    let step = due.loading.map_or(LOADING, |(_, step)| (step * 2).min(LOADING_MOST));
                    due.loading = self.still_loading().then(|| (Instant::now() + step, step));
                }
                () = until(due.log) => {
                    let before = clock::thread_cpu_time();
                    let more = self.read_log();
                    let cost = clock::thread_cpu_time().saturating_sub(before);
                    due.log = None;
                    due.log_rests = Some(Instant::now() + cost * LOG_SHARE);
                    if more {
                        due.read_log_after(LOG_QUIET);
                    }
                }
                ready = lines_ready(log_lines.as_mut()) => {
                    ready?;
                    if log_lines.as_mut().is_some_and(|log| self.log_lines(log.get_mut())) {
                        due.read_log_after(AFTER_CRASH);
                    }
                }
                () = tokio::time::sleep(POLL), if poll => {
                    self.read_patches();
                    if lock(&self.transition_state).transitions.active().is_some() {
                        self.look_aside(&mut looking);
                    }
                }
            }
        }
    }

    /// Looks on a thread of its own, for a read of a task's stack may block behind
    /// that task; not while an earlier look still goes on.
    fn look_aside(self: &Arc<Self>, looking: &mut Option<JoinHandle<bool>>) {
        if looking.as_ref().is_none_or(JoinHandle::is_finished) {
            let exporter = self.clone();
            *looking = Some(tokio::task::spawn_blocking(move || exporter.look()));
        }
    }

    /// Takes what the ring buffer holds: all of it first, so that there is room for what
    /// comes while it is worked on.
    fn drain(&self, ring: Option<&mut AsyncFd<RingBuf<MapData>>>) -> Drained {
        let mut drained = Drained::default();
        let Some(ring) = ring else {
            return drained;
        };
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(record) = ring.get_mut().next()
        {
            batch.push(events::decode(&record));
        }
        drained.more = batch.len() == BATCH;
        for event in batch {
            match event {
                Ok(event) => self.take_event(&event, &mut drained),
                Err(error) => warn!("{error}"),
            }
        }
        if drained.changed {
            self.save();
        }
        drained
    }

    fn take_event(&self, event: &KernelEvent, drained: &mut Drained) {
        match event {
            KernelEvent::Crash(hook) => {
                debug!(?hook, "crash hook");
                lock(&self.transition_state).count_event(hook.kind);
                drained.crashed |= self.crash_hook(hook);
            }
            KernelEvent::Livepatch(event) => {
                debug!(?event, "kernel event");
                drained.attempted |= event.kind == EventKind::TryCompleteTransition;
                drained.loading |= event.kind == EventKind::ModuleLoad;
                let loaded = event.kind == EventKind::TryCompleteTransition
                    && event.attempt.is_some_and(|attempt| attempt > 0);
                if let Some(patch) = event.patch.clone() {
                    if event.kind == EventKind::ModuleLoad {
                        self.note(event.time, Entry::Load { patch });
                    } else if loaded || event.kind == EventKind::ModuleFree {
                        self.loaded(event.time, patch);
                    }
                }
                let effects = lock(&self.transition_state).event(event);
                drained.changed |= self.carry_out(event.time, &effects);
            }
        }
    }

    /// Whether a livepatch's module is still being loaded. One whose init has come
    /// back, or that is gone, is noted as loaded.
    fn still_loading(&self) -> bool {
        let now = clock::boot_time();
        loop {
            let Some(patch) = lock(&self.journal).history.loading(now).map(str::to_owned) else {
                return false;
            };
            if sysfs::is_loading(&self.options.sysfs, &patch) {
                return true;
            }
            self.loaded(now, patch);
        }
    }
}

/// Waits for events, for ever where there is no ring buffer.
async fn events_ready(ring: Option<&mut AsyncFd<RingBuf<MapData>>>) -> anyhow::Result<()> {
    match ring {
        Some(ring) => {
            let mut guard = ring
                .readable_mut()
                .await
                .context("waiting for kernel events")?;
            // Cleared first: an event that comes while the buffer is drained
            // wakes us again rather than being left until the one after it.
            guard.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

/// Waits for lines of the kernel's log, for ever where its hook tells of them.
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
