//! Owns the collectors: passes events to them, runs them at a scrape, and carries out their
//! effects.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use livepatch_core::{
    degradation::Degradation,
    journal::entry::{Entry, Saved},
    transition::{self, BootTime},
};
use tokio::sync::Notify;

use super::{
    collector::{self, Collected, Collector, Effect, Listener, Moment, Outcome, Step},
    collectors::{Collectors, Values, crashes::LogReading},
    complaints::Complaints,
    journal::writer::Journal,
    kernel_log::SignalLine,
    lock, log_lines,
    status_page::{BLOCKERS_SHOWN, Page},
};
use crate::kernel::{clock, events::KernelEvent, kmsg::KmsgError, sysfs, tasks};

/// The running exporter. Its locks are each held for one step and, except for `saving`, never
/// two at a time.
#[derive(Debug)]
pub struct Exporter {
    pub(super) options: super::Options,
    pub(super) collectors: Collectors,
    pub(super) journal: Mutex<Journal>,
    /// Held while the state is read and sent, so that an older one is never sent last.
    pub(super) saving: Mutex<()>,
    pub(super) complaints: Complaints,
    /// What the monitor cannot do on this host, as found out at startup.
    pub(super) degradations: Vec<Degradation>,
    /// Signalled when something has changed that the text file should show.
    pub(super) changed: Notify,
    /// The loaded livepatches have changed and have not been read since.
    pub(super) patches_due: AtomicBool,
}

/// What the event loop must do next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    /// Save the state that must survive a restart.
    pub(super) save: bool,
    /// Scan the tasks: the kernel has tried to complete a transition.
    pub(super) scan: bool,
    /// Check whether a livepatch's module is still being loaded.
    pub(super) loading: bool,
    /// Read the kernel log.
    pub(super) log: bool,
}

impl Exporter {
    /// Passes an event to the collectors.
    pub(super) fn event(&self, event: &KernelEvent, next: &mut Next) {
        for collector in self.collectors.all() {
            // Not kept: with a second reference, a journal entry would have to copy the history.
            let history = lock(&self.journal).history.clone();
            let effects = self.guarded(collector, || collector.event(event, &history));
            drop(history);
            self.carry_out(effects, next);
        }
    }

    /// Carries out what collectors ask for: log lines, journal entries, a new text file. What the
    /// event loop has to do is recorded in `next`.
    pub(super) fn carry_out(&self, effects: Vec<Effect>, next: &mut Next) {
        for effect in effects {
            match effect {
                Effect::Transition(time, step) => self.step(time, &step),
                Effect::StartFromLog(patch, said) => log_lines::start_from_log(&patch, &said),
                Effect::Save => next.save = true,
                Effect::Attempt => next.scan = true,
                Effect::Loading => next.loading = true,
                Effect::ReadLog => next.log = true,
                Effect::Record(time, entry) => lock(&self.journal).record_news(time, entry),
                Effect::Signal(sighting) => {
                    log_lines::signal(&sighting);
                    self.changed.notify_one();
                }
                Effect::Stuck(running, found) => {
                    // The scan took a while; the transition may have ended meanwhile.
                    let now = self.collectors.transitions.running();
                    if now.is_some_and(|now| now.segment == running.segment) {
                        log_lines::stuck(&running, &found.blockers);
                    }
                }
                Effect::UpdateInterrupted(found) => log_lines::update_interrupted(&found),
                Effect::UpdateRepaired(manager) => log_lines::update_repaired(manager),
                Effect::PatchMissing(expected) => log_lines::patch_missing(&expected),
                Effect::ModuleRefused { patch, module } => {
                    log_lines::module_refused(&patch, &module);
                }
            }
        }
    }

    fn step(&self, time: BootTime, step: &transition::Effect) {
        log_lines::transition(step);
        if let Ok(entry) = Entry::try_from(step) {
            self.record(time, entry);
            // A crash is attributed by the functions that are patched now.
            self.patches_due.store(true, Ordering::Relaxed);
        }
        self.changed.notify_one();
    }

    /// Carries out effects outside the event loop.
    fn finish(&self, effects: Vec<Effect>) {
        let mut next = Next::default();
        self.carry_out(effects, &mut next);
        if next.save {
            self.save();
        }
    }

    /// Calls into a collector and catches its panic, which gives the default value.
    fn guarded<T: Default>(
        &self,
        collector: &dyn Collector<Values>,
        call: impl FnOnce() -> T,
    ) -> T {
        collector::guarded(collector.name(), call).unwrap_or_else(|panicked| {
            let subject = (collector.name(), Step::Event);
            self.complaints.about(subject, &panicked);
            T::default()
        })
    }

    fn complain(&self, collector: &dyn Collector<Values>, problems: &[String]) {
        let subject = (collector.name(), Step::Collect);
        self.complaints.about(subject, &problems.join("; "));
    }

    /// Writes a journal entry.
    pub(super) fn record(&self, time: BootTime, entry: Entry) {
        lock(&self.journal).record(time, entry);
    }

    /// Sends the state that must survive a restart to the journal, if it has changed.
    pub(super) fn save(&self) {
        let _saving = lock(&self.saving);
        let (transitions, start_unix_seconds) = self.collectors.transitions.saved();
        let saved = Saved {
            start_unix_seconds,
            transitions,
        };
        lock(&self.journal).record_news(clock::boot_time(), Entry::State(saved));
    }

    /// Reads sysfs, and lets the state machine compare it with its state. Returns what could not be
    /// read.
    ///
    /// # Errors
    /// Nothing could be read.
    pub(super) fn read_patches(&self) -> Result<Vec<String>, Vec<String>> {
        let (read, problems) = self.collectors.patches.read();
        let Some(set) = read.set else {
            return Err(problems);
        };
        let transitions = &self.collectors.transitions;
        self.finish(self.guarded(transitions, || transitions.snapshot(read.read_at, &set)));
        Ok(problems)
    }

    /// Like [`Self::read_patches`], and logs what could not be read.
    pub(super) fn poll_patches(&self) {
        let (Ok(problems) | Err(problems)) = self.read_patches();
        self.complain(&self.collectors.patches, &problems);
    }

    /// Scans the tasks if a transition runs and the last scan is no longer fresh.
    pub(super) fn look(&self) {
        let running = self.collectors.transitions.running();
        // Without BTF an event has no name, but sysfs does.
        let nameless = running.is_some_and(|running| running.patch.is_none());
        if self.patches_due.swap(false, Ordering::Relaxed) || nameless {
            self.poll_patches();
        }
        let running = self.collectors.transitions.running();
        let tasks = &self.collectors.tasks;
        let Outcome {
            effects, problems, ..
        } = self.guarded(tasks, || tasks.look(running.as_ref()));
        self.complain(&self.collectors.tasks, &problems);
        self.finish(effects);
    }

    /// Reads the kernel log for what crash hooks announced.
    pub(super) fn read_log(&self) -> LogReading {
        let history = lock(&self.journal).history.clone();
        let crashes = &self.collectors.crashes;
        let (reading, effects) = self.guarded(crashes, || crashes.read_log(&history));
        drop(history);
        self.finish(effects);
        reading
    }

    /// Processes a line of the kernel log that starts a report.
    pub(super) fn log_line(&self, line: &SignalLine) {
        let history = lock(&self.journal).history.clone();
        let crashes = &self.collectors.crashes;
        let effects = self.guarded(crashes, || crashes.line(line, &history));
        drop(history);
        self.finish(effects);
    }

    /// Reports that new lines of the kernel log could not be read.
    pub(super) fn log_lines_unreadable(&self, error: &KmsgError) {
        let subject = (self.collectors.crashes.name(), Step::Event);
        self.complaints.about(subject, &error.to_string());
    }

    /// Whether a livepatch's module is still being loaded. If its init has returned or it has been
    /// removed, the journal gets an entry that it is loaded.
    pub(super) fn still_loading(&self) -> bool {
        let now = clock::boot_time();
        loop {
            let Some(patch) = lock(&self.journal).history.loading(now).map(str::to_owned) else {
                return false;
            };
            if sysfs::is_loading(&self.options.sysfs, &patch) {
                return true;
            }
            lock(&self.journal).record_news(now, Entry::Loaded { patch });
        }
    }

    fn collect(&self) -> Collected<Values> {
        // The reading that was due happens now.
        self.patches_due.store(false, Ordering::Relaxed);
        let mut collected = collector::collect(&self.collectors.all(), &mut AtScrape(self));
        collected
            .degradations
            .splice(0..0, self.degradations.iter().cloned());
        collected
    }

    /// The exposition, for `/metrics` and the text file.
    #[must_use]
    pub fn scrape(&self) -> String {
        let mut collected = self.collect();
        let exposition =
            collector::export(&self.collectors.all(), &mut collected, &mut AtScrape(self));
        exposition.into_text()
    }

    /// What the status page shows: the values that a scrape would show now. With `stay` the page
    /// does not reload itself.
    #[must_use]
    pub fn status(&self, stay: bool) -> Page {
        let collected = self.collect();
        let found = collected.values.tasks.found.clone();
        let mut blockers: Vec<_> = found.iter().flat_map(|found| &found.blockers).collect();
        // First the tasks that will not switch by themselves.
        blockers.sort_by_key(|blocker| (!blocker.reason.holds(), blocker.reason));
        let blockers = blockers.into_iter().take(BLOCKERS_SHOWN);
        Page {
            host: host_name(),
            now_unix_seconds: clock::unix_seconds(clock::boot_time()),
            telemetry_path: self.options.telemetry_path.clone(),
            stay,
            // Each report reads /proc.
            blockers: blockers
                .map(|blocker| tasks::report(&self.options.procfs, blocker))
                .collect(),
            collected,
        }
    }

    /// Whether the loaded livepatches can be read.
    ///
    /// # Errors
    /// The reason for which they cannot.
    pub fn ready(&self) -> Result<(), String> {
        let (read, problems) = self.collectors.patches.read();
        match read.set {
            Some(_) => Ok(()),
            None => Err(problems.join("; ")),
        }
    }

    /// Path that the exposition is served under (`--web.telemetry-path`).
    #[must_use]
    pub fn telemetry_path(&self) -> &str {
        &self.options.telemetry_path
    }

    /// Whether a transition is running.
    pub(super) fn transition_runs(&self) -> bool {
        self.collectors.transitions.running().is_some()
    }
}

/// The kernel's name for the host, which is `(none)` until someone sets one
/// (UTS_NODENAME, include/linux/uts.h).
fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    match name.as_str() {
        "" | "(none)" => "a host without a name".to_owned(),
        _ => name,
    }
}

/// The exporter as the caller of [`collector::collect`](super::collector::collect).
struct AtScrape<'a>(&'a Exporter);

impl Listener for AtScrape<'_> {
    fn moment(&self) -> Moment {
        let journal = lock(&self.0.journal);
        Moment {
            now: clock::boot_time(),
            history: journal.history.clone(),
            recorder_errors: journal.errors(),
            recording: journal.records(),
        }
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        self.0.finish(effects);
    }

    fn problems(&mut self, collector: &'static str, step: Step, problems: &[String]) {
        self.0
            .complaints
            .about((collector, step), &problems.join("; "));
    }
}
