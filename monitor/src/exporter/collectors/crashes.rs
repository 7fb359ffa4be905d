//! Crash signals of the running boot, and the crashes of this host over all its boots.
//!
//! A hook announces a signal; the kernel log then says what it was and which patch it implicates.
//! If the log cannot be read, only the hooks are counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use livepatch_core::crash::parser;
use livepatch_core::{
    crash::{
        EvidenceKind, HostCrash, Implicated, Kind, Phase, Precision, Signal, When,
        counts::{Counts, Grouping, Sighting},
    },
    degradation::Degradation,
    journal::entry::Entry,
    journal::history::{History, SignalSeen},
    transition::BootTime,
    updates::run::UpdateRun,
};
use livepatch_monitor_ebpf::EventKind;

use super::Values as All;
use crate::{
    crash::store::Store,
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        kernel_log::{KernelLog, SignalLine},
        lock,
    },
    kernel::{
        clock, counts,
        events::{CrashHook, KernelEvent},
        probes::ProbeStatus,
    },
    metrics::{Exposition, ExpositionError, Metric, bit, metrics},
};

mod log;

pub(in crate::exporter) use log::LogReading;

metrics! {
    CRASH_SIGNALS = "livepatch_crash_signals_total" Counter ["signal"] "Crash signals, such as an oops, a WARN or a stall, since the monitor started; several of one event count once, as the most severe.";
    SIGNALS_IMPLICATING = "livepatch_crash_signals_implicating_total" Counter ["signal", "patch"] "Crash signals since the monitor started whose fault or stack lies in the patch, in what it replaces, or in the livepatch core at work for it.";
    SIGNAL_LAST = "livepatch_crash_signal_last_timestamp_seconds" Gauge ["signal", "phase"] "When the last crash signal of this kind was seen in this phase of a livepatch, in seconds since 1970; only what was seen has a series.";
    SIGNALS_MISSED = "livepatch_crash_signals_missed" Gauge [] "Crash signals that the kernel has counted itself since the monitor started, and that the monitor did not see; absent where the kernel counts none, or where one of its counters cannot be read.";
    CRASHES = "livepatch_crashes_total" Counter [] "Crashes of this host since the state directory was created, over all its boots.";
    PATCH_CRASHES = "livepatch_patch_crashes_total" Counter ["patch"] "Crashes of this host during the load, transition or soak of the patch, or that implicate it, over all its boots.";
    PATCH_LAST_CRASH = "livepatch_patch_last_crash_timestamp_seconds" Gauge ["patch"] "When the last crash counted for the patch happened, in seconds since 1970; absent where unknown.";
    LAST_CRASH_INFO = "livepatch_last_crash_info" Gauge ["kind", "phase", "patch", "implicated", "evidence"] "The last crash of this host; always 1.";
    LAST_CRASH = "livepatch_last_crash_timestamp_seconds" Gauge [] "When the last crash of this host happened, in seconds since 1970; absent where unknown.";
    BOOT_UNCLEAN = "livepatch_boot_unclean" Gauge [] "Whether the boot before this one ended badly; absent where unknown.";
}

/// The longest time between a hook and the log line it announced.
const SAME_MOMENT: Duration = Duration::from_secs(1);

/// The end of a headline that the monitor wrote because it does not have the kernel's.
const WITHOUT_LINE: &str = "; the kernel's own words are lost";

/// A crash in the middle of an update.
#[derive(Clone, Debug)]
pub struct InUpdate {
    /// The run of the package manager that had not ended.
    pub run: UpdateRun,
    /// When the crash happened, in seconds since 1970; of a reset the last moment before it.
    pub at_unix_seconds: Option<i64>,
    /// The patch that the crash befell or implicates.
    pub patch: Option<String>,
    /// How far the patch is implicated.
    pub implicated: Implicated,
}

/// What is known about crashes.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Crash signals since the monitor started.
    pub signals: Option<Counts>,
    /// Signals that the kernel's own counters have and that the monitor missed; `None` where the
    /// kernel counts none, or where one of the counters cannot be read.
    pub missed: Option<u64>,
    /// Crashes over all boots, by kind and phase; `None` if the records cannot be read.
    pub totals: Option<BTreeMap<(Kind, Phase), u64>>,
    /// For each patch the number of crashes and the time of the last one (seconds since 1970).
    /// Includes every loaded patch; empty if the records cannot be read.
    pub of_patch: BTreeMap<String, (u64, Option<f64>)>,
    /// The crash that happened last; `None` if there is none on record.
    pub last: Option<HostCrash>,
    /// The crashes in the middle of an update, the last one first.
    pub in_updates: Vec<InUpdate>,
    /// The last crash was in this boot: the kernel survived it.
    pub last_in_this_boot: bool,
    /// Whether the boot before this one ended badly.
    pub boot_unclean: Option<bool>,
}

/// What the startup found out about earlier boots, and what it opened.
#[derive(Debug)]
pub(in crate::exporter) struct Start {
    /// `None` where it cannot be read.
    pub(in crate::exporter) store: Option<Store>,
    pub(in crate::exporter) boot_id: Option<String>,
    pub(in crate::exporter) boot_unclean: Option<bool>,
    pub(in crate::exporter) log: KernelLog,
    pub(in crate::exporter) procfs: PathBuf,
    pub(in crate::exporter) sysfs: PathBuf,
    pub(in crate::exporter) soak: Duration,
}

#[derive(Debug)]
struct State {
    counts: Counts,
    /// Hooks hit since the start, by signal, for signals that the kernel counts as well.
    hits: BTreeMap<Signal, u64>,
    grouping: Grouping,
    store: Option<Store>,
    waited: u32,
    /// Whether the last reading of the log succeeded.
    log_readable: bool,
    log_problem: Option<String>,
    /// What of the log was not understood.
    unclear: Vec<String>,
    /// By how much the boot's clock is ahead of the log's.
    drift_seconds: f64,
    /// Why the last crash record could not be stored.
    store_problem: Option<String>,
}

/// Counts crash signals, and keeps the records of crashes.
#[derive(Debug)]
pub(in crate::exporter) struct Crashes {
    state: Mutex<State>,
    log: KernelLog,
    boot_id: Option<String>,
    boot_unclean: Option<bool>,
    /// The kernel's counts at the start.
    base: BTreeMap<Signal, Option<u64>>,
    /// Signals before the start were counted by the monitor that ran before.
    since: BootTime,
    /// Hooks that are attached.
    attached: BTreeSet<EventKind>,
    procfs: PathBuf,
    sysfs: PathBuf,
    soak: Duration,
}

impl Crashes {
    /// `probes` must already be attached, so that no signal is missed; one that comes before this
    /// reads the kernel's counters is in both counts.
    pub(in crate::exporter) fn new(start: Start, probes: &[ProbeStatus]) -> Self {
        let attached = |kind: &EventKind| {
            let of_kind = |probe: &&ProbeStatus| probe.probe == kind.name();
            let probe = probes.iter().find(of_kind);
            probe.is_some_and(|probe| probe.method.is_probe())
        };
        let state = State {
            counts: Counts::default(),
            hits: BTreeMap::new(),
            grouping: Grouping::default(),
            store: start.store,
            waited: 0,
            log_readable: start.log.is_open(),
            log_problem: None,
            unclear: Vec::new(),
            drift_seconds: 0.0,
            store_problem: None,
        };
        Self {
            state: Mutex::new(state),
            log: start.log,
            boot_id: start.boot_id,
            boot_unclean: start.boot_unclean,
            base: counts::read(&start.procfs, &start.sysfs),
            since: clock::boot_time(),
            attached: EventKind::ALL.into_iter().filter(attached).collect(),
            procfs: start.procfs,
            sysfs: start.sysfs,
            soak: start.soak,
        }
    }

    /// Whether the event loop must wait for lines of the kernel log, because no hook announces
    /// them.
    pub(in crate::exporter) fn waits_for_log(&self) -> bool {
        !self.attached.contains(&EventKind::Printk)
    }

    fn hook(&self, hook: &CrashHook, history: &History) -> Vec<Effect> {
        let signal = match &hook.text {
            Some(line) => parser::signal(line),
            None => Signal::of_hook(hook.kind, hook.flag),
        };
        let Some(signal) = signal else {
            return Vec::new();
        };
        let line = hook.text.as_deref();
        let recorded = recorded(history, hook.time, signal, line, hook.kind.name());
        let mut effects = vec![Effect::ReadLog];
        effects.extend(recorded.map(|entry| Effect::Record(hook.time, entry)));
        let mut state = lock(&self.state);
        if signal.counted_at() == Some(hook.kind) {
            *state.hits.entry(signal).or_default() += 1;
        }
        if !state.log_readable {
            let over = state.grouping.hit(hook.time, signal);
            effects.extend(self.count_group(&mut state, over, history));
        }
        effects
    }

    /// Handles a line of the kernel log that starts a report.
    pub(in crate::exporter) fn line(&self, line: &SignalLine, history: &History) -> Vec<Effect> {
        let entry = recorded(history, line.time, line.signal, Some(&line.text), "");
        let entry = entry.map(|entry| Effect::Record(line.time, entry));
        entry.into_iter().collect()
    }

    /// Counts an event that only hooks reported.
    fn count_group(
        &self,
        state: &mut State,
        over: Option<(BootTime, Signal)>,
        history: &History,
    ) -> Option<Effect> {
        let (time, signal) = over?;
        let when = When {
            uptime_seconds: Some(time.as_duration().as_secs_f64()),
            unix_seconds: clock::unix_seconds(time),
            precision: Precision::Line,
        };
        let phase = self.phase_at(time, history);
        let attribution = (Implicated::Unknown, [].as_slice());
        let headline = "the kernel log cannot be read";
        let sighting = Sighting::new(signal, phase, attribution, when, headline);
        counted(state, sighting)
    }

    /// The phase of a signal: the one when its hook was hit, if it was hit.
    fn phase_at(&self, time: BootTime, history: &History) -> Phase {
        let near = |seen: BootTime| {
            let apart = time.since(seen).or_else(|| seen.since(time));
            apart.is_some_and(|apart| apart <= SAME_MOMENT)
        };
        let seen = history.signals.iter().rev().find(|seen| near(seen.time));
        seen.map_or_else(|| history.phase(time, self.soak), |seen| seen.phase)
    }

    /// How many signals of a kind were seen: by its hook if that is attached, otherwise in the log.
    fn seen(&self, state: &State, signal: Signal) -> u64 {
        if signal
            .counted_at()
            .is_some_and(|hook| self.attached.contains(&hook))
        {
            return state.hits.get(&signal).copied().unwrap_or(0);
        }
        let counted = state.counts.signals.iter();
        let of_kind = counted.filter(|((of, _), _)| *of == signal);
        of_kind.map(|(_, count)| count).sum()
    }

    /// By how much each of the kernel's counters has grown since the start; `None` for one that
    /// could not be read then or cannot be read now.
    fn counted_by_kernel(&self) -> BTreeMap<Signal, Option<u64>> {
        let now = counts::read(&self.procfs, &self.sysfs);
        let grown = |signal: &Signal, base: Option<u64>| {
            let now = now.get(signal).copied().flatten()?;
            Some(now.saturating_sub(base?))
        };
        let base = self.base.iter();
        base.map(|(signal, base)| (*signal, grown(signal, *base)))
            .collect()
    }

    /// Those of them that were not seen. A kind of which more were seen than the kernel counted does
    /// not make up for one that was missed.
    fn missed(&self, state: &State, kernel: &BTreeMap<Signal, Option<u64>>) -> Option<u64> {
        if kernel.is_empty() {
            return None;
        }
        let missed = kernel
            .iter()
            .map(|(signal, count)| Some((*count)?.saturating_sub(self.seen(state, *signal))));
        missed.sum()
    }

    fn degradations(&self, state: &State) -> Vec<Degradation> {
        let unstored = state.store_problem.iter().map(|problem| Degradation {
            what: problem.clone(),
            remedy: String::new(),
        });
        let unread = (!state.log_readable).then(|| {
            let reason = state.log_problem.as_ref();
            let reason = reason.map_or_else(String::new, |text| format!(" ({text})"));
            let device = self.log.device().display();
            Degradation {
                what: format!(
                    "the kernel log {device} cannot be read{reason}: crash signals are not attributed"
                ),
                remedy: "run as root or with CAP_SYSLOG, or name its place with --path.kmsg"
                    .to_owned(),
            }
        });
        unstored.chain(unread).collect()
    }
}

impl Collector<All> for Crashes {
    fn name(&self) -> &'static str {
        "crashes"
    }

    fn label(&self) -> Option<&'static str> {
        Some(super::HOST)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn event(&self, event: &KernelEvent, history: &History) -> Vec<Effect> {
        match event {
            KernelEvent::Crash(hook) => self.hook(hook, history),
            KernelEvent::Livepatch(_) => Vec::new(),
        }
    }

    fn collect(&self, _: &Moment, values: &mut All) -> Outcome {
        let kernel = self.counted_by_kernel();
        let state = lock(&self.state);
        let crashes = state.store.as_ref().map(Store::crashes);
        let last = crashes.and_then(<[_]>::last);
        let loaded = values.patches.set.iter().flat_map(|set| &set.patches);
        values.crashes = Values {
            signals: Some(state.counts.clone()),
            missed: self.missed(&state, &kernel),
            totals: state.store.as_ref().map(Store::totals),
            of_patch: crashes
                .map(|crashes| by_patch(crashes, loaded.map(|patch| patch.name.as_str())))
                .unwrap_or_default(),
            last: last.cloned(),
            in_updates: crashes.map(in_updates).unwrap_or_default(),
            last_in_this_boot: last
                .is_some_and(|last| last.boot_id.is_some() && last.boot_id == self.boot_id),
            boot_unclean: self.boot_unclean,
        };
        Outcome {
            problems: [&state.log_problem, &state.store_problem]
                .into_iter()
                .flatten()
                .cloned()
                .chain(
                    state
                        .unclear
                        .iter()
                        .map(|unclear| format!("kernel log: {unclear}")),
                )
                .chain(
                    kernel
                        .iter()
                        .filter(|(_, count)| count.is_none())
                        .map(|(signal, _)| {
                            format!("cannot read the kernel's counter of {}", signal.name())
                        }),
                )
                .collect(),
            degradations: self.degradations(&state),
            ..Outcome::default()
        }
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let values = &collected.values.crashes;
        out.gauge(
            &BOOT_UNCLEAN,
            values.boot_unclean.map(|unclean| ([], bit(unclean))),
        )?;
        if let Some(counts) = &values.signals {
            export_signals(counts, out)?;
        }
        out.gauge(
            &SIGNALS_MISSED,
            values.missed.map(|missed| ([], value(missed))),
        )?;
        if let Some(totals) = &values.totals {
            out.counter(&CRASHES, [([], totals.values().sum())])?;
            let of_patch = || values.of_patch.iter();
            out.counter(
                &PATCH_CRASHES,
                of_patch().map(|(patch, (crashes, _))| ([patch.as_str()], *crashes)),
            )?;
            out.gauge(
                &PATCH_LAST_CRASH,
                of_patch().filter_map(|(patch, (_, last))| Some(([patch.as_str()], (*last)?))),
            )?;
        }
        if let Some(last) = &values.last {
            let record = &last.record;
            let evidence = record.evidence.first().map(|found| found.kind);
            let labels = [
                record.kind.name(),
                record.phase.name(),
                record.of_patches().first().copied().unwrap_or_default(),
                record.implicated.name(),
                evidence.map_or("none", EvidenceKind::name),
            ];
            out.gauge(&LAST_CRASH_INFO, [(labels, 1.0)])?;
            let when = record.when.unix_seconds;
            out.gauge(&LAST_CRASH, when.map(|when| ([], when)))?;
        }
        Ok(())
    }
}

fn export_signals(counts: &Counts, out: &mut Exposition) -> Result<(), ExpositionError> {
    let signals = Signal::ALL.into_iter().flat_map(|signal| {
        Phase::ALL.map(|phase| {
            let seen = counts.signals.get(&(signal, phase)).copied();
            ([signal.name()], seen.unwrap_or(0))
        })
    });
    let implicating = counts.implicating.iter();
    out.counter(&CRASH_SIGNALS, signals)?;
    out.counter(
        &SIGNALS_IMPLICATING,
        implicating.map(|((signal, patch), seen)| ([signal.name(), patch.as_str()], *seen)),
    )?;
    let last = counts.last.iter();
    out.gauge(
        &SIGNAL_LAST,
        last.map(|((signal, phase), when)| ([signal.name(), phase.name()], *when)),
    )
}

/// The crashes in the middle of an update, the last one first.
fn in_updates(crashes: &[HostCrash]) -> Vec<InUpdate> {
    let of_crash = |crash: &HostCrash| {
        let record = &crash.record;
        let when = &record.when;
        let at = when.unix_seconds.filter(|_| when.is_utc());
        let at = at.and_then(|at| Duration::try_from_secs_f64(at).ok());
        Some(InUpdate {
            run: crash.update.clone()?,
            at_unix_seconds: at.and_then(|at| i64::try_from(at.as_secs()).ok()),
            patch: record.of_patches().first().map(|patch| (*patch).to_owned()),
            implicated: record.implicated,
        })
    };
    crashes.iter().rev().filter_map(of_crash).collect()
}

/// Counts an event, and logs it if it is new.
fn counted(state: &mut State, sighting: Sighting) -> Option<Effect> {
    let is_new = state.counts.count(&sighting);
    is_new.then_some(Effect::Signal(sighting))
}

/// The journal entry for a signal, with the kernel's own headline if it is known. A storm of the
/// same signal writes one entry per second.
fn recorded(
    history: &History,
    time: BootTime,
    signal: Signal,
    line: Option<&str>,
    hook: &str,
) -> Option<Entry> {
    let near = |seen: &&SignalSeen| {
        let since = time.since(seen.time);
        seen.signal == signal && since.is_some_and(|since| since < SAME_MOMENT)
    };
    let mut before = history.signals.iter().filter(near);
    let known = match line {
        Some(_) => before.any(|seen| !seen.headline.ends_with(WITHOUT_LINE)),
        None => before.next().is_some(),
    };
    let headline = line.map_or_else(
        || format!("{hook}() was reached{WITHOUT_LINE}"),
        str::to_owned,
    );
    (!known).then_some(Entry::Signal { signal, headline })
}

/// For each patch the number of crashes and the time of the last one; includes every loaded patch.
fn by_patch<'a>(
    crashes: &[HostCrash],
    loaded: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, (u64, Option<f64>)> {
    let none = loaded.map(|patch| (patch.to_owned(), (0, None)));
    let mut of_patch: BTreeMap<String, (u64, Option<f64>)> = none.collect();
    for record in crashes.iter().map(|crash| &crash.record) {
        for patch in record.of_patches() {
            let (count, last) = of_patch.entry(patch.to_owned()).or_default();
            *count += 1;
            // The store is ordered by time.
            *last = record.when.unix_seconds;
        }
    }
    of_patch
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of crashes are far below 2^52"
)]
fn value(count: u64) -> f64 {
    count as f64
}
