//! The exporter: waits for kernel events, answers scrapes.

mod begin;
mod report;
pub mod watch;
pub mod web;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use livepatch_monitor_ebpf::EventKind;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};
use tracing::{debug, info, warn};

use self::watch::Watch;
use crate::{
    kernel::{
        clock,
        events::{self, KernelEvent},
        probes::{Degradation, Method, ProbeStatus},
        sysfs,
        tasks::TaskScanner,
    },
    livepatch::{
        patch::PatchSet,
        transition::{BootTime, Effect},
    },
    metrics::{self, CollectorRun, Durations, TransitionView, View},
};

/// Where the exporter looks and how it answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
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
    /// Show the kernel side's own log.
    pub kernel_log: bool,
}

/// How long after an attempt begins its outcome is looked at: the attempt walks
/// all tasks first.
const AFTER_ATTEMPT: Duration = Duration::from_millis(100);
/// How often sysfs is read where no probe tells of transitions.
const POLL: Duration = Duration::from_secs(1);

/// The exporter's parts. Locks are taken in the order of the fields.
#[derive(Debug)]
pub struct Exporter {
    options: Options,
    boot_id: Option<String>,
    scanner: Mutex<TaskScanner>,
    watch: Mutex<Watch>,
    /// The running transition's start on both clocks: dated once, so that a wall
    /// clock that is set later does not move it.
    start: Mutex<Option<(BootTime, Option<f64>)>>,
    durations: Durations,
    status: Vec<ProbeStatus>,
    /// What this host does not let the monitor do.
    pub degradations: Vec<Degradation>,
    /// A state file that was not understood is not overwritten.
    keep_state: bool,
    /// What was complained of last, so that each trouble is logged once.
    complaints: Mutex<BTreeMap<&'static str, String>>,
    /// Events lost, as read last.
    lost: Mutex<Option<Vec<(EventKind, u64)>>>,
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
/// listens until told to stop.
///
/// # Errors
/// An address cannot be listened on; everything else degrades.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let listeners = web::bind(&options.listen)?;
    let (exporter, ring) = Exporter::new(options)?;
    let exporter = Arc::new(exporter);
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            info!(%address, path = exporter.options.telemetry_path, "listening");
        }
    }
    let server = web::serve(listeners, exporter.clone());
    tokio::select! {
        result = server => result,
        result = exporter.clone().follow(ring) => result,
        result = stop() => result,
    }
}

/// Waits for SIGTERM or SIGINT.
async fn stop() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    Ok(())
}

impl Exporter {
    /// Follows the kernel's events, or sysfs where there are none.
    async fn follow(self: Arc<Self>, ring: Option<RingBuf<MapData>>) -> anyhow::Result<()> {
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
        let mut look_at: Option<tokio::time::Instant> = None;
        let mut looking: Option<JoinHandle<bool>> = None;
        loop {
            tokio::select! {
                attempted = next_events(&self, ring.as_mut()) => {
                    if attempted? {
                        look_at.get_or_insert_with(|| tokio::time::Instant::now() + AFTER_ATTEMPT);
                    }
                }
                () = sleep_until(look_at) => {
                    look_at = None;
                    self.look_aside(&mut looking);
                }
                () = tokio::time::sleep(POLL), if poll => {
                    self.read_patches();
                    if lock(&self.watch).transitions.active().is_some() {
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

    /// Takes what the ring buffer holds; true if the kernel tried to complete a
    /// transition.
    fn drain(&self, ring: &mut RingBuf<MapData>) -> bool {
        let mut attempted = false;
        while let Some(record) = ring.next() {
            match events::decode(&record) {
                Ok(KernelEvent::Crash(hook)) => debug!(?hook, "crash hook"),
                Ok(KernelEvent::Livepatch(event)) => {
                    debug!(?event, "kernel event");
                    attempted |= event.kind == EventKind::TryCompleteTransition;
                    let effects = lock(&self.watch).event(&event);
                    self.carry_out(&effects);
                }
                Err(error) => warn!("{error}"),
            }
        }
        attempted
    }

    /// Logs, counts and saves.
    fn carry_out(&self, effects: &[Effect]) {
        for effect in effects {
            report::log(effect);
            match effect {
                Effect::Started { start: None, .. } => self.start_from_kernel_log(),
                Effect::Ended {
                    direction,
                    outcome,
                    duration: Some(duration),
                    ..
                } => {
                    self.durations.observe(*direction, *outcome, *duration);
                }
                _ => {}
            }
        }
        self.date_start();
        if !effects.is_empty() {
            self.save();
        }
    }

    /// Dates the running transition's start if it is another than before.
    fn date_start(&self) {
        let watch = lock(&self.watch);
        let start = watch.transitions.active().and_then(|active| active.start);
        let mut dated = lock(&self.start);
        if dated.map(|(start, _)| start) != start {
            *dated = start.map(|start| (start, clock::unix_seconds(start)));
        }
    }

    /// When the running transition began, in seconds since 1970.
    fn start_unix_seconds(&self) -> Option<f64> {
        lock(&self.start).and_then(|(_, unix_seconds)| unix_seconds)
    }

    /// Reads sysfs and tells the state machine.
    fn read_patches(&self) -> (Option<PatchSet>, bool) {
        // From before the read: a snapshot is as old as its first file.
        let now = clock::boot_time();
        match sysfs::read_patches(&self.options.sysfs) {
            Ok((patches, problems)) => {
                let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
                self.complain("sysfs", &text.join("; "));
                let effects = lock(&self.watch).snapshot(now, &patches);
                self.carry_out(&effects);
                (Some(patches), problems.is_empty())
            }
            Err(error) => {
                self.complain("sysfs", &error.to_string());
                (None, false)
            }
        }
    }

    /// Logs a trouble when it is new; an empty text is none.
    fn complain(&self, subject: &'static str, text: &str) {
        let before = lock(&self.complaints).insert(subject, text.to_owned());
        if before.as_deref().unwrap_or_default() != text && !text.is_empty() {
            warn!("{text}");
        }
    }

    /// Scans the tasks if a transition runs and the last scan has aged. True if
    /// all that is to be known is known.
    fn look(&self) -> bool {
        let nameless = lock(&self.watch)
            .transitions
            .active()
            .is_some_and(|active| active.patch.is_none());
        if nameless {
            // Without BTF an event has no name; sysfs has.
            self.read_patches();
        }
        let now = clock::boot_time();
        let Some(mut scanner) = try_lock(&self.scanner) else {
            // A look goes on; what the one before it saw is not yet old.
            return lock(&self.watch).counts(clock::boot_time()).is_some();
        };
        let Some((patch, direction)) = lock(&self.watch)
            .transitions
            .active()
            .map(|active| (active.patch.clone(), active.direction))
        else {
            scanner.forget();
            return true;
        };
        if !lock(&self.watch).scan_due(now) {
            return lock(&self.watch).counts(clock::boot_time()).is_some();
        }
        let began = Instant::now();
        let result = scanner.scan(patch.as_deref(), direction, &self.options.sysfs);
        let cost = began.elapsed();
        let mut watch = lock(&self.watch);
        match result {
            Ok(Some(scan)) => watch.scanned(&scan, cost),
            Ok(None) => return true,
            Err(error) => {
                watch.scan_failed();
                drop(watch);
                self.complain("tasks", &format!("pending tasks cannot be told: {error}"));
                return false;
            }
        }
        self.complain("tasks", "");
        let name = watch
            .transitions
            .active()
            .and_then(|active| active.patch.clone());
        if let Some((age, blockers)) = watch.stuck_report(now, self.options.stuck_after) {
            report::log_stuck(name.as_ref(), age.as_secs(), blockers);
        }
        true
    }

    /// The exposition.
    ///
    /// # Errors
    /// The metrics library refuses what it is given.
    pub fn scrape(&self) -> anyhow::Result<String> {
        let mut collectors = Vec::new();
        let began = Instant::now();
        let (patches, success) = self.read_patches();
        collectors.push(CollectorRun {
            collector: "sysfs",
            success,
            duration: began.elapsed(),
        });
        let began = Instant::now();
        let success = self.look();
        collectors.push(CollectorRun {
            collector: "tasks",
            success,
            duration: began.elapsed(),
        });

        if let Some(scanner) = try_lock(&self.scanner) {
            *lock(&self.lost) = scanner.lost_events();
        }
        let lost = lock(&self.lost).clone();
        let watch = lock(&self.watch);
        let events: Vec<_> = watch.events().collect();
        let stuck = watch.stuck(clock::boot_time(), self.options.stuck_after);
        let transition = watch.transitions.active().map(|active| TransitionView {
            patch: active.patch.clone(),
            direction: active.direction,
            start_unix_seconds: self.start_unix_seconds(),
            stuck,
            pending: watch.counts(clock::boot_time()).cloned(),
        });
        let view = View {
            patches: patches.as_ref(),
            forced: &|patch| watch.transitions.forced(patch),
            transition,
            totals: watch.transitions.totals(),
            durations: &self.durations,
            probes: &self.status,
            events: &events,
            lost: lost.as_deref(),
            collectors: &collectors,
            crashes: &metrics::CrashView::default(),
        };
        let families = metrics::families(&view).context("building the exposition")?;
        metrics::encode(&families).context("encoding the exposition")
    }

    /// The exposition's path.
    #[must_use]
    pub fn telemetry_path(&self) -> &str {
        &self.options.telemetry_path
    }
}

/// A descriptor of the kernel's that tells when there is something to read.
fn readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both sources (a ring buffer, and the log's) own one descriptor that
    // they neither close nor replace while they live, and the AsyncFd owns them.
    unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }.map_err(Into::into)
}

/// Waits for events, for ever where there is no ring buffer.
async fn next_events(
    exporter: &Exporter,
    ring: Option<&mut AsyncFd<RingBuf<MapData>>>,
) -> anyhow::Result<bool> {
    match ring {
        Some(ring) => {
            let mut guard = ring
                .readable_mut()
                .await
                .context("waiting for kernel events")?;
            // Cleared first: an event that comes while the buffer is drained
            // wakes us again rather than being left until the one after it.
            guard.clear_ready();
            Ok(exporter.drain(guard.get_inner_mut()))
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
