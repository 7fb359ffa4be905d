//! Crash signals of the running boot, and the crashes of the boots before it.

use std::{collections::BTreeMap, time::Duration};

use livepatch_monitor_ebpf::EventKind;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::{Exporter, lock, log_lines, readable};
use crate::{
    crash::store::Store,
    kernel::{
        clock, counts,
        events::CrashHook,
        kmsg::{KmsgError, KmsgReader},
    },
    metrics::{CrashView, LastCrash},
};
use livepatch_core::{
    crash::{
        CrashRecord, Implicated, NonFatalSignal, Phase, Precision, Signal, When,
        boots::{self, HostCrash},
        capture::Source,
        counts::{Counts, Grouping, Sighting},
        parser::{self, Reading},
    },
    journal::entry::Entry,
    lifecycle::SignalSeen,
    transition::BootTime,
};

/// Bytes of the log that are read, from its end.
const MAX_LOG: usize = 16 << 20;
/// A report goes on while the log's last line is younger than this.
const QUIET: Duration = Duration::from_millis(200);
/// How often a log that does not come to rest is waited for.
const PATIENCE: u32 = 5;
/// A hook and the line it announced are no further apart.
const SAME_MOMENT: Duration = Duration::from_secs(1);

/// Ends a headline that is not the kernel's.
const WORDLESS: &str = "; the kernel's own words are lost";

/// What is known of crashes.
#[derive(Debug)]
pub(super) struct Crashes {
    counts: Counts,
    /// Hooks hit since the start, by the signal that the kernel counts too.
    hits: BTreeMap<Signal, u64>,
    /// The kernel's counts at the start.
    base: BTreeMap<Signal, u64>,
    grouping: Grouping,
    /// None where it cannot be read.
    store: Option<Store>,
    boot_unclean: Option<bool>,
    /// Signals before it are another monitor's to count.
    since: BootTime,
    waited: u32,
    /// The log was read when it was read last.
    log_readable: bool,
}

impl Crashes {
    pub(super) fn new(
        store: Option<Store>,
        boot_unclean: Option<bool>,
        base: BTreeMap<Signal, u64>,
        log_readable: bool,
    ) -> Self {
        Self {
            counts: Counts::default(),
            hits: BTreeMap::new(),
            base,
            grouping: Grouping::default(),
            store,
            boot_unclean,
            since: clock::boot_time(),
            waited: 0,
            log_readable,
        }
    }

    /// How many signals of a kind were seen: by its hook, or else by the log.
    fn seen(&self, signal: Signal, attached: impl Fn(EventKind) -> bool) -> u64 {
        if signal.counted_at().is_some_and(attached) {
            return self.hits.get(&signal).copied().unwrap_or(0);
        }
        let counted = self.counts.signals.iter();
        let of_kind = counted.filter(|((of, _), _)| *of == signal);
        of_kind.map(|(_, count)| count).sum()
    }
}

/// The signal that a hook stands for.
fn signal_of(hook: &CrashHook) -> Option<Signal> {
    match &hook.text {
        Some(line) => parser::signal(line),
        None => Signal::of_hook(hook.kind, hook.flag),
    }
}

impl Exporter {
    /// Takes a hook in; true if the log will tell more.
    pub(super) fn crash_hook(&self, hook: &CrashHook) -> bool {
        let Some(signal) = signal_of(hook) else {
            return false;
        };
        let line = hook.text.clone();
        self.note_signal(hook.time, signal, line.as_deref(), hook.kind.name());
        let mut crashes = lock(&self.crashes);
        if signal.counted_at() == Some(hook.kind) {
            *crashes.hits.entry(signal).or_default() += 1;
        }
        if !crashes.log_readable {
            let over = crashes.grouping.hit(hook.time, signal);
            drop(crashes);
            self.count_group(over);
        }
        true
    }

    /// Notes a signal, in the kernel's own words where they are known; a storm of the
    /// same one is noted once a second.
    fn note_signal(&self, time: BootTime, signal: Signal, line: Option<&str>, hook: &str) {
        let mut journal = lock(&self.journal);
        let near = |seen: &&SignalSeen| {
            let since = time.since(seen.time);
            seen.signal == signal && since.is_some_and(|since| since < SAME_MOMENT)
        };
        let mut noted = journal.history.signals.iter().filter(near);
        let known = match line {
            Some(_) => noted.any(|seen| !seen.headline.ends_with(WORDLESS)),
            None => noted.next().is_some(),
        };
        if !known {
            let headline =
                line.map_or_else(|| format!("{hook}() was reached{WORDLESS}"), str::to_owned);
            journal.note(time, Entry::Signal { signal, headline });
        }
    }

    /// Counts what the hooks alone told.
    fn count_group(&self, over: Option<(BootTime, Signal)>) {
        let Some((time, signal)) = over else { return };
        let when = When {
            uptime_seconds: Some(time.as_duration().as_secs_f64()),
            unix_seconds: clock::unix_seconds(time),
            precision: Precision::Line,
        };
        let phase = self.phase_at(time);
        let told = (Implicated::Unknown, [].as_slice());
        let headline = "the kernel log cannot be read";
        self.sighted(&Sighting::new(signal, phase, told, when, headline));
    }

    fn sighted(&self, sighting: &Sighting) {
        if lock(&self.crashes).counts.count(sighting) {
            log_lines::log_signal(sighting);
            self.changed.notify_one();
        }
    }

    /// In which phase a signal came: as it was when its hook was hit, if it was.
    fn phase_at(&self, time: BootTime) -> Phase {
        let journal = lock(&self.journal);
        let near = |seen: BootTime| {
            let apart = time.since(seen).or_else(|| seen.since(time));
            apart.is_some_and(|apart| apart <= SAME_MOMENT)
        };
        let signals = &journal.history.signals;
        let seen = signals.iter().rev().find(|seen| near(seen.time));
        seen.map_or_else(
            || journal.history.phase(time, self.options.soak),
            |seen| seen.phase,
        )
    }

    /// Hands the kernel's log to `read`, at its oldest record.
    pub(super) fn with_log<T>(
        &self,
        read: impl FnOnce(&mut KmsgReader) -> Result<T, KmsgError>,
    ) -> Result<T, KmsgError> {
        let mut open = lock(&self.log);
        let log = match open.take() {
            Some(log) => open.insert(log),
            None => open.insert(KmsgReader::open(&self.options.kmsg)?),
        };
        log.rewind()?;
        read(log)
    }

    /// Reads the log for what the hooks announced. True if it should be read again in
    /// a moment: a report is still being printed.
    pub(super) fn read_log(&self) -> bool {
        let now = clock::boot_time();
        let text = match self.with_log(console) {
            Ok(text) => text,
            Err(error) => {
                self.complain("kmsg", &error.to_string());
                let mut crashes = lock(&self.crashes);
                crashes.log_readable = false;
                let over = crashes.grouping.close(now);
                let open = crashes.grouping.is_open();
                drop(crashes);
                self.count_group(over);
                return open;
            }
        };
        {
            let mut crashes = lock(&self.crashes);
            crashes.log_readable = true;
            let last = parser::last_uptime(&text).map(boot_time);
            let restless = last
                .and_then(|last| now.since(last))
                .is_none_or(|quiet| quiet < QUIET);
            if restless && crashes.waited < PATIENCE {
                crashes.waited += 1;
                return true;
            }
            crashes.waited = 0;
        }
        let reading = Reading {
            replaced: lock(&self.journal).history.replaced(),
            ..Reading::new(self.options.soak.as_secs_f64())
        };
        let told = parser::read(&text, &reading);
        for record in told.records {
            self.crashed(record);
        }
        for lesser in told.lesser {
            self.unwell(lesser);
        }
        false
    }

    /// A crash that the machine has survived.
    fn crashed(&self, mut record: CrashRecord) {
        let Some(time) = self.place(&mut record.when, &mut record.phase) else {
            return;
        };
        let of_this_monitor = time >= lock(&self.crashes).since;
        if of_this_monitor {
            boots::supplement(&lock(&self.journal).history, &mut record, self.options.soak);
            self.sighted(&Sighting::from(&record));
        }
        let mut crashes = lock(&self.crashes);
        let Some(store) = &mut crashes.store else {
            return;
        };
        let result = store.put(record, self.boot_id.as_deref(), Some(false));
        drop(crashes);
        if let Err(error) = result {
            self.complain("crashes", &error.to_string());
        }
    }

    /// A signal that is no crash.
    fn unwell(&self, mut lesser: NonFatalSignal) {
        let Some(time) = self.place(&mut lesser.when, &mut lesser.phase) else {
            return;
        };
        if time >= lock(&self.crashes).since {
            self.sighted(&Sighting::new(
                lesser.signal,
                lesser.phase,
                (lesser.implicated, &lesser.evidence),
                lesser.when,
                &lesser.headline,
            ));
        }
    }

    /// Dates a line of the running boot's log, and says in which phase it came.
    fn place(&self, when: &mut When, phase: &mut Phase) -> Option<BootTime> {
        let time = boot_time(when.uptime_seconds?);
        when.unix_seconds = clock::unix_seconds(time);
        when.precision = Precision::Line;
        let known = self.phase_at(time);
        if known != Phase::Unknown {
            *phase = known;
        }
        Some(time)
    }

    /// Without the hook on the log's lines they are waited for: each one wakes us.
    pub(super) fn log_to_wait_for(&self) -> Option<AsyncFd<KmsgReader>> {
        let hooked = self
            .status
            .iter()
            .any(|probe| probe.probe == EventKind::Printk.name() && probe.method.is_probe());
        if hooked {
            return None;
        }
        let result = KmsgReader::open(&self.options.kmsg).and_then(|mut log| {
            log.read_new(|_| ())?;
            Ok(log)
        });
        match result.map(readable) {
            Ok(Ok(log)) => Some(log),
            Ok(Err(error)) => {
                warn!(
                    "the kernel's log {} cannot be waited for: {error}; is it the device (see \
                     --path.kmsg)?",
                    self.options.kmsg.display()
                );
                None
            }
            Err(error) => {
                warn!("{error}; crash signals are not seen");
                None
            }
        }
    }

    /// Reads the lines that have come; true if one begins a report.
    pub(super) fn log_lines(&self, log: &mut KmsgReader) -> bool {
        let mut signals = Vec::new();
        let result = log.read_new(|record| {
            let signal = (record.facility == 0).then(|| parser::signal(&record.text));
            if let Some(signal) = signal.flatten() {
                signals.push((record.time, signal, record.text.clone()));
            }
        });
        if let Err(error) = result {
            self.complain("kmsg", &error.to_string());
        }
        for (time, signal, line) in &signals {
            let time = BootTime::from_duration(*time + clock::suspended());
            self.note_signal(time, *signal, Some(line), "");
        }
        !signals.is_empty()
    }

    /// The last crash, and whether the kernel that runs has had it.
    pub(super) fn last_crash(&self) -> (Option<HostCrash>, bool) {
        let crashes = lock(&self.crashes);
        let last = crashes
            .store
            .as_ref()
            .and_then(|store| store.crashes().last());
        let of_this_boot =
            last.is_some_and(|last| last.boot_id.is_some() && last.boot_id == self.boot_id);
        (last.cloned(), of_this_boot)
    }

    /// Whether the kernel's log could be read when it was read last.
    pub(super) fn log_readable(&self) -> bool {
        lock(&self.crashes).log_readable
    }

    /// What a scrape shows.
    pub(super) fn crash_view(&self) -> CrashView {
        let notes = {
            let journal = lock(&self.journal);
            (journal.errors(), journal.records())
        };
        let crashes = lock(&self.crashes);
        let attached = |kind: EventKind| {
            self.status
                .iter()
                .any(|probe| probe.probe == kind.name() && probe.method.is_probe())
        };
        let now = counts::read(&self.options.procfs, &self.options.sysfs);
        let missed = now
            .into_iter()
            .filter_map(|(signal, count)| {
                let base = *crashes.base.get(&signal)?;
                let seen = crashes.seen(signal, attached);
                Some((signal, difference(count.saturating_sub(base), seen)))
            })
            .collect();
        let store = crashes.store.as_ref();
        let last_crash = store.and_then(|store| store.crashes().last()).map(|last| {
            let record = &last.record;
            LastCrash {
                kind: record.kind,
                phase: record.phase,
                patch: record.of_patches().first().map(|patch| (*patch).to_owned()),
                implicated: record.implicated,
                evidence: record.evidence.first().map(|found| found.kind),
                unix_seconds: record.when.unix_seconds,
            }
        });
        CrashView {
            signals: crashes.counts.signals.clone(),
            implicating: crashes.counts.implicating.clone(),
            last_seen: crashes.counts.last.clone(),
            missed,
            crashes: store.map(Store::totals),
            of_patch: store
                .map(|store| by_patch(store.crashes()))
                .unwrap_or_default(),
            last_crash,
            boot_unclean: crashes.boot_unclean,
            interrupted: BTreeMap::new(),
            missing: BTreeMap::new(),
            recorder_errors: notes.0,
            evidence_ready: BTreeMap::from([(Source::Recorder, notes.1)]),
        }
    }
}

/// Crashes by patch, and when the last was.
fn by_patch(crashes: &[HostCrash]) -> BTreeMap<String, (u64, Option<f64>)> {
    let mut of_patch: BTreeMap<String, (u64, Option<f64>)> = BTreeMap::new();
    for record in crashes.iter().map(|crash| &crash.record) {
        for patch in record.of_patches() {
            let (count, last) = of_patch.entry(patch.to_owned()).or_default();
            *count += 1;
            // The store has them by time.
            *last = record.when.unix_seconds;
        }
    }
    of_patch
}

/// A moment of the log's clock, which stands still in suspend.
fn boot_time(uptime_seconds: f64) -> BootTime {
    let since = Duration::try_from_secs_f64(uptime_seconds).unwrap_or_default();
    BootTime::from_duration(since + clock::suspended())
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of crashes are far below 2^52"
)]
fn difference(kernel: u64, ours: u64) -> f64 {
    kernel as f64 - ours as f64
}

/// The kernel's own lines in its log, as a console shows them.
fn console(log: &mut KmsgReader) -> Result<Vec<u8>, KmsgError> {
    let mut text = String::new();
    log.read_new(|record| {
        if record.facility == 0 {
            text.push_str(&record.console_text());
        }
        if text.len() > 2 * MAX_LOG {
            let cut = text.len() - MAX_LOG;
            let cut = (cut..text.len()).find(|at| text.is_char_boundary(*at));
            text.drain(..cut.unwrap_or(0));
        }
    })?;
    Ok(text.into_bytes())
}
