//! The exporter: waits for kernel events, answers scrapes.

mod crashes;
mod event_loop;
mod host;
pub mod journal;
mod log_lines;
mod sandbox;
mod startup;
mod status;
pub mod status_page;
mod systemd;
mod textfile;
pub mod web;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use livepatch_monitor_ebpf::EventKind;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};
use tracing::{info, warn};

use self::{crashes::Crashes, host::Host, journal::writer::Journal};
use crate::{
    crash::gather::Sources,
    kernel::{clock, kmsg::KmsgReader, probes::ProbeStatus, sysfs, tasks::TaskScanner},
    metrics::{self, CollectorRun, CrashView, Durations, TransitionView, View},
    sandbox::Sandbox,
};
use livepatch_core::transition_state::TransitionState;
use livepatch_core::{
    degradation::Degradation,
    journal::entry::Entry,
    patch::PatchSet,
    transition::{BootTime, Effect},
};

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
    /// Show the kernel side's own log.
    pub kernel_log: bool,
    /// How long after a transition a crash counts as in its wake.
    pub soak: Duration,
    /// Where crashes leave something.
    pub sources: Sources,
    /// Root of the host's file system.
    pub rootfs: PathBuf,
    /// Further directories of livepatches that should be in force.
    pub expected_directories: Vec<PathBuf>,
    /// Names of livepatches that should be in force.
    pub expected_patches: Vec<String>,
    /// Where the exposition is kept as a file.
    pub textfile: Option<PathBuf>,
}

/// The exporter's parts. Locks are taken in the order of the fields.
#[derive(Debug)]
pub struct Exporter {
    options: Options,
    boot_id: Option<String>,
    /// The running kernel's.
    release: String,
    scanner: Mutex<TaskScanner>,
    transition_state: Mutex<TransitionState>,
    /// The running transition's start on both clocks: dated once, so that a wall
    /// clock that is set later does not move it.
    start: Mutex<Option<(BootTime, Option<f64>)>>,
    journal: Mutex<Journal>,
    crashes: Mutex<Crashes>,
    host: Mutex<Host>,
    /// The kernel's log, opened when that was still allowed; none where it is not.
    log: Mutex<Option<KmsgReader>>,
    /// What was given up after the start.
    sandbox: Sandbox,
    /// Something has changed that the file of the exposition should show.
    changed: Notify,
    /// What is loaded has changed and was not read since.
    patches_due: AtomicBool,
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

/// What was read for one answer.
#[derive(Debug)]
struct Anew {
    patches: Option<PatchSet>,
    crashes: CrashView,
    collectors: Vec<CollectorRun>,
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
/// An address cannot be listened on, the web configuration is wrong; everything
/// else degrades.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let source = web::Source::open(options.web_config.as_deref()).context("--web.config.file")?;
    let listeners = web::bind(&options.listen, options.systemd_socket)?;
    let (mut exporter, ring) = Exporter::new(options)?;
    let log_lines = exporter.log_to_wait_for();
    // All is open: what that took is given up before anybody is answered. No other
    // thread runs yet, so that none keeps what this one gives up.
    exporter.enter_sandbox(&source.files());
    let exporter = Arc::new(exporter);
    let addresses: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    // Whoever is told that it listens may stop it at once.
    let told_to_stop = stop()?;
    let mut server = web::Server::start(listeners, source, exporter.clone())?;
    for address in &addresses {
        info!(%address, path = exporter.options.telemetry_path, "listening");
    }
    systemd::ready(&format!("listening on {addresses:?}"));
    let pulse = server.pulse();
    tokio::select! {
        result = server.ended() => result,
        result = exporter.clone().follow(ring, log_lines) => result,
        result = exporter.clone().keep_textfile() => result,
        () = systemd::feed_watchdog(|| pulse.felt()) => Ok(()),
        () = told_to_stop => {
            systemd::stopping();
            let ended = server.stop().await;
            exporter.note(clock::boot_time(), Entry::Stopped);
            lock(&exporter.journal).close();
            exporter.remove_textfile();
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

impl Exporter {
    /// Logs, counts and notes. True if what a restart must know has changed, and is still
    /// to be saved.
    fn carry_out(&self, time: BootTime, effects: &[Effect]) -> bool {
        for effect in effects {
            log_lines::log(effect);
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
        let notes: Vec<Entry> = effects
            .iter()
            .filter_map(|effect| effect.try_into().ok())
            .collect();
        if !notes.is_empty() {
            for note in notes {
                self.note(time, note);
            }
            // What a crash must be judged by: the functions that are replaced now.
            self.patches_due.store(true, Ordering::Relaxed);
        }
        // An event dates a start better than the log did, and is no effect.
        let dated = self.date_start();
        if !effects.is_empty() {
            self.changed.notify_one();
        }
        dated || !effects.is_empty()
    }

    /// Notes something, here and on disk.
    fn note(&self, time: BootTime, note: Entry) {
        lock(&self.journal).note(time, note);
    }

    /// The patch's module is loaded, or gone.
    fn loaded(&self, time: BootTime, patch: String) {
        let mut journal = lock(&self.journal);
        if journal.history.loads.iter().any(|(name, _)| *name == patch) {
            journal.note(time, Entry::Loaded { patch });
        }
    }

    /// Notes what is loaded, if that is news.
    fn note_patches(&self, now: BootTime, patches: &PatchSet) {
        let note = Entry::from(patches);
        let mut journal = lock(&self.journal);
        if let Entry::Patches { patches } = &note
            && journal.history.patches.as_ref() != Some(patches)
        {
            journal.note(now, note);
        }
    }

    /// Dates the running transition's start if it is another than before; true if so.
    fn date_start(&self) -> bool {
        let watch = lock(&self.transition_state);
        let start = watch.transitions.active().and_then(|active| active.start);
        let mut dated = lock(&self.start);
        let is_new = dated.map(|(start, _)| start) != start;
        if is_new {
            *dated = start.map(|start| (start, clock::unix_seconds(start)));
        }
        is_new
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
                let effects = lock(&self.transition_state).snapshot(now, &patches);
                if self.carry_out(now, &effects) {
                    self.save();
                }
                self.note_patches(now, &patches);
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
        let nameless = lock(&self.transition_state)
            .transitions
            .active()
            .is_some_and(|active| active.patch.is_none());
        // Without BTF an event has no name; sysfs has.
        if nameless || self.patches_due.swap(false, Ordering::Relaxed) {
            self.read_patches();
        }
        let now = clock::boot_time();
        let Some(mut scanner) = try_lock(&self.scanner) else {
            // A look goes on; what the one before it saw is not yet old.
            return lock(&self.transition_state)
                .counts(clock::boot_time())
                .is_some();
        };
        let Some((patch, direction)) = lock(&self.transition_state)
            .transitions
            .active()
            .map(|active| (active.patch.clone(), active.direction))
        else {
            scanner.forget();
            return true;
        };
        if !lock(&self.transition_state).scan_due(now) {
            return lock(&self.transition_state)
                .counts(clock::boot_time())
                .is_some();
        }
        let before = clock::thread_cpu_time();
        let result = scanner.scan(patch.as_deref(), direction, &self.options.sysfs);
        let cost = clock::thread_cpu_time().saturating_sub(before);
        let mut watch = lock(&self.transition_state);
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
            log_lines::log_stuck(name.as_ref(), age.as_secs(), blockers);
        }
        true
    }

    /// Reads what a scrape and the status page show.
    fn read_anew(&self) -> Anew {
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
        if let Some(text) = self.lost_events() {
            self.complain("lost", &text);
        }
        let began = Instant::now();
        let mut crashes = self.crash_view();
        for patch in patches.iter().flat_map(|set| &set.patches) {
            crashes.of_patch.entry(patch.name.clone()).or_default();
        }
        let success = self.host_view(&mut crashes, patches.as_ref());
        collectors.push(CollectorRun {
            collector: "host",
            success,
            duration: began.elapsed(),
        });
        Anew {
            patches,
            crashes,
            collectors,
        }
    }

    /// The exposition.
    ///
    /// # Errors
    /// The metrics library refuses what it is given.
    pub fn scrape(&self) -> anyhow::Result<String> {
        let Anew {
            patches,
            crashes,
            collectors,
        } = self.read_anew();
        let lost = lock(&self.lost).clone();
        let in_force = lock(&self.journal).history.in_force.clone();
        let watch = lock(&self.transition_state);
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
            release: &self.release,
            in_force: &in_force,
            forced: &|patch| watch.transitions.forced(patch),
            transition,
            totals: watch.transitions.totals(),
            durations: &self.durations,
            probes: &self.status,
            events: &events,
            lost: lost.map(|lost| lost.iter().map(|(_, count)| count).sum()),
            collectors: &collectors,
            crashes: &crashes,
            sandbox: &self.sandbox.holds,
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
