//! The metric contract as one table, and the exposition made from a [`View`].
//! `docs/metrics.md` documents the same table; a test compares the two.

use std::{collections::BTreeMap, time::Duration};

use livepatch_monitor_ebpf::EventKind;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};

use crate::{kernel::probes::ProbeStatus, sandbox};
use livepatch_core::{
    blockers::{Counts, Reason},
    lifecycle::InForce,
    patch::{Patch, PatchSet},
    transition::{Direction, Outcome, Totals},
};

mod crash;

pub use crash::{CrashView, LastCrash};

/// A metric's kind as Prometheus knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    Counter,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// As docs/metrics.md writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric of the contract.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// Its `# HELP` line.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(const $id: Metric = Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// Every metric but the `process_*` ones, in the order of docs/metrics.md.
        pub const CONTRACT: &[Metric] = &[$($id),*];
    };
}

metrics! {
    SUPPORTED = "livepatch_supported" Gauge [] "Whether this kernel has /sys/kernel/livepatch.";
    KERNEL_INFO = "livepatch_kernel_info" Gauge ["release"] "The running kernel's release; always 1.";
    PATCH_INFO = "livepatch_patch_info" Gauge ["patch", "replace", "srcversion"] "A loaded livepatch; always 1.";
    PATCH_ENABLED = "livepatch_patch_enabled" Gauge ["patch"] "Whether the patch is enabled, as sysfs says.";
    PATCH_FORCED = "livepatch_patch_forced" Gauge ["patch"] "Whether a transition of the patch was forced; only a reboot cleans that up.";
    PATCH_FUNCTIONS = "livepatch_patch_functions" Gauge ["patch", "object"] "Functions the patch replaces in the object.";
    OBJECT_PATCHED = "livepatch_patch_object_patched" Gauge ["patch", "object"] "Whether the object is patched at present, as sysfs says (kernel 6.1 and later).";
    PATCHING_COMPLETE = "livepatch_patching_complete_timestamp_seconds" Gauge ["patch"] "When the transition to the patch ended or, where that was not seen, since when it is known to be in force; only while it is enabled and in no transition.";
    PATCHING_DURATION = "livepatch_patching_duration_seconds" Gauge ["patch"] "How long the transition to the patch took; absent where its start or its end was not seen.";
    TRANSITION_ACTIVE = "livepatch_transition_active" Gauge ["patch", "direction"] "Whether a transition of the patch runs in this direction.";
    TRANSITION_START = "livepatch_transition_start_timestamp_seconds" Gauge ["patch"] "When the running transition, or its leg since the last reversal, began; absent where unknown.";
    PENDING_TASKS = "livepatch_pending_tasks" Gauge ["patch", "reason"] "Tasks that have not reached the target state of the running transition, by reason.";
    STUCK_TASKS = "livepatch_stuck_tasks" Gauge ["patch", "reason"] "Pending tasks of a transition that is older than --stuck-after.";
    BLOCKING_TASKS = "livepatch_blocking_tasks" Gauge ["patch", "object", "function"] "Pending tasks asleep in a function that the transition replaces.";
    TRANSITION_DURATION = "livepatch_transition_duration_seconds" Histogram ["direction", "outcome"] "How long transitions took whose start and end were seen.";
    ATTEMPTS = "livepatch_transition_attempts_total" Counter [] "Attempts of the kernel to complete a transition.";
    SIGNALS = "livepatch_transition_signals_total" Counter [] "Rounds of signals the kernel sent to tasks that hold a transition up.";
    REVERSALS = "livepatch_transition_reversals_total" Counter [] "Transitions reversed before their end.";
    FORCES = "livepatch_transition_forces_total" Counter [] "Transitions forced.";
    LOAD_FAILURES = "livepatch_patch_load_failures_total" Counter [] "Livepatches whose enabling was refused, failed or was cancelled.";
    CRASH_SIGNALS = "livepatch_crash_signals_total" Counter ["signal", "phase"] "Signs that the kernel is unwell, since the monitor began; several of one event count once, as the most severe.";
    SIGNALS_IMPLICATING = "livepatch_crash_signals_implicating_total" Counter ["signal", "patch"] "Those of them whose fault or stack lies in the patch, in what it replaces, or in the livepatch core at work for it.";
    SIGNAL_LAST = "livepatch_crash_signal_last_timestamp_seconds" Gauge ["signal"] "When the last of them was.";
    SIGNALS_MISSED = "livepatch_crash_signals_missed" Gauge ["signal"] "The kernel's own count since the monitor began, less what the monitor saw.";
    CRASHES = "livepatch_crashes_total" Counter ["kind", "phase"] "Crashes of this host since the state directory was made, over all its boots.";
    PATCH_CRASHES = "livepatch_patch_crashes_total" Counter ["patch"] "Those of them in the load, transition or soak of the patch, or that implicate it.";
    PATCH_LAST_CRASH = "livepatch_patch_last_crash_timestamp_seconds" Gauge ["patch"] "When the last of the patch's was; absent where unknown.";
    LAST_CRASH_INFO = "livepatch_last_crash_info" Gauge ["kind", "phase", "patch", "implicated", "evidence"] "The last crash of this host; always 1.";
    LAST_CRASH = "livepatch_last_crash_timestamp_seconds" Gauge [] "When it was; absent where unknown.";
    BOOT_UNCLEAN = "livepatch_boot_unclean" Gauge [] "Whether the boot before this one ended badly; absent where unknown.";
    UPDATE_INTERRUPTED = "livepatch_update_interrupted" Gauge ["manager"] "Packages that an update left half done; absent where unknown.";
    PATCH_MISSING = "livepatch_patch_missing" Gauge ["patch"] "Whether a livepatch that is expected on this kernel is not loaded and enabled, or loaded from another build.";
    RECORDER_ERRORS = "livepatch_recorder_errors_total" Counter [] "Notes of the flight recorder that did not reach the disk.";
    EVIDENCE_READY = "livepatch_crash_evidence_ready" Gauge ["source"] "Whether this source would tell of the next crash; absent where unknown.";
    BUILD_INFO = "livepatch_monitor_build_info" Gauge ["version", "revision"] "The monitor's build; always 1.";
    SANDBOXED = "livepatch_monitor_sandboxed" Gauge ["from"] "Whether the monitor has given this up for good since its start.";
    PROBE_ATTACHED = "livepatch_monitor_probe_attached" Gauge ["probe", "method"] "Whether the monitor gets this signal, and how; 0 with method none where it does not.";
    EVENTS = "livepatch_monitor_events_total" Counter ["event"] "Kernel events received.";
    EVENTS_LOST = "livepatch_monitor_events_lost_total" Counter [] "Kernel events lost because the ring buffer was full; the log says which.";
    COLLECTOR_SUCCESS = "livepatch_monitor_collector_success" Gauge ["collector"] "Whether the collector could read all it needs at the last scrape.";
    COLLECTOR_DURATION = "livepatch_monitor_collector_duration_seconds" Gauge ["collector"] "How long the collector took at the last scrape.";
}

/// From 0.1 s to 2 h. The kernel tries about every second and signals after 15.
const DURATION_BUCKETS: [f64; 16] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
    7200.0,
];

/// Durations of ended transitions; lives as long as the process.
#[derive(Clone, Debug)]
pub struct Durations(HistogramVec);

impl Durations {
    /// An empty histogram with every series that can occur at zero.
    ///
    /// # Errors
    /// The metric's definition is refused by the metrics library.
    pub fn new() -> prometheus::Result<Self> {
        let options = HistogramOpts::new(TRANSITION_DURATION.name, TRANSITION_DURATION.help)
            .buckets(DURATION_BUCKETS.to_vec());
        let durations = HistogramVec::new(options, TRANSITION_DURATION.labels)?;
        for direction in Direction::ALL {
            for outcome in Outcome::ALL {
                // Only enabling can be cancelled (klp_cancel_transition,
                // kernel/livepatch/transition.c).
                if (direction, outcome) != (Direction::Unpatch, Outcome::Cancelled) {
                    durations.get_metric_with_label_values(&[direction.name(), outcome.name()])?;
                }
            }
        }
        Ok(Self(durations))
    }

    /// Adds an ended transition.
    pub fn observe(&self, direction: Direction, outcome: Outcome, duration: Duration) {
        self.0
            .with_label_values(&[direction.name(), outcome.name()])
            .observe(duration.as_secs_f64());
    }
}

/// The running transition as the metrics show it.
#[derive(Clone, Debug)]
pub struct TransitionView {
    /// The patch; `None` until sysfs has told its name.
    pub patch: Option<String>,
    /// Where it leads.
    pub direction: Direction,
    /// When it began, in seconds since the Unix epoch.
    pub start_unix_seconds: Option<f64>,
    /// Older than `--stuck-after`.
    pub stuck: bool,
    /// Its pending tasks; `None` where they cannot be told.
    pub pending: Option<Counts>,
}

/// How a collector fared at this scrape.
#[derive(Clone, Debug)]
pub struct CollectorRun {
    /// Its name.
    pub collector: &'static str,
    /// It read all it needs.
    pub success: bool,
    /// How long it took.
    pub duration: Duration,
}

/// Everything a scrape shows.
#[expect(missing_debug_implementations, reason = "holds a closure")]
pub struct View<'a> {
    /// What is loaded; `None` where sysfs cannot be read.
    pub patches: Option<&'a PatchSet>,
    /// The running kernel's release.
    pub release: &'a str,
    /// Patches in force, as the boot's notes have them.
    pub in_force: &'a BTreeMap<String, InForce>,
    /// Whether each patch is known to have been forced.
    pub forced: &'a dyn Fn(&str) -> Option<bool>,
    /// The running transition.
    pub transition: Option<TransitionView>,
    /// Counters of transitions.
    pub totals: Totals,
    /// Durations of ended transitions.
    pub durations: &'a Durations,
    /// How the probes fared.
    pub probes: &'a [ProbeStatus],
    /// Events received, by kind.
    pub events: &'a [(EventKind, u64)],
    /// Events lost; `None` where the kernel's count cannot be read.
    pub lost: Option<u64>,
    /// How the collectors fared.
    pub collectors: &'a [CollectorRun],
    /// What is known of crashes.
    pub crashes: &'a CrashView,
    /// What the monitor has given up.
    pub sandbox: &'a [sandbox::Part],
}

/// The families of a scrape, sorted by name.
///
/// # Errors
/// The metrics library refuses a label or a value.
pub fn families(view: &View<'_>) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    let mut add = |family: Vec<MetricFamily>| families.extend(family);

    if let Some(patches) = view.patches {
        add(gauge(&SUPPORTED, [(vec![], bit(patches.supported))])?);
        for family in patch_families(view, patches)? {
            add(family);
        }
    }
    add(gauge(&KERNEL_INFO, [(vec![view.release], 1.0)])?);
    add(counter(&ATTEMPTS, [(vec![], view.totals.attempts)])?);
    add(counter(&SIGNALS, [(vec![], view.totals.signals)])?);
    add(counter(&REVERSALS, [(vec![], view.totals.reversals)])?);
    add(counter(&FORCES, [(vec![], view.totals.forces)])?);
    add(counter(
        &LOAD_FAILURES,
        [(vec![], view.totals.load_failures)],
    )?);
    add(view.durations.0.collect());

    for family in crash::families(view.crashes)? {
        add(family);
    }

    let build = vec![
        env!("CARGO_PKG_VERSION"),
        env!("LIVEPATCH_MONITOR_REVISION"),
    ];
    add(gauge(&BUILD_INFO, [(build, 1.0)])?);
    add(gauge(
        &SANDBOXED,
        sandbox::Part::ALL.map(|part| (vec![part.name()], bit(view.sandbox.contains(&part)))),
    )?);
    add(gauge(
        &PROBE_ATTACHED,
        view.probes.iter().map(|status| {
            let attached = status.method != crate::kernel::probes::Method::None;
            (vec![status.probe, status.method.name()], bit(attached))
        }),
    )?);
    let events = view.events.iter();
    add(counter(
        &EVENTS,
        events.map(|&(kind, count)| (vec![kind.name()], count)),
    )?);
    if let Some(lost) = view.lost {
        add(counter(&EVENTS_LOST, [(vec![], lost)])?);
    }
    let runs = view.collectors;
    add(gauge(
        &COLLECTOR_SUCCESS,
        runs.iter()
            .map(|run| (vec![run.collector], bit(run.success))),
    )?);
    add(gauge(
        &COLLECTOR_DURATION,
        runs.iter()
            .map(|run| (vec![run.collector], run.duration.as_secs_f64())),
    )?);

    families.extend(ProcessCollector::for_self().collect());
    // The registry drops families without series and puts the rest in order.
    let registry = Registry::new();
    registry.register(Box::new(Ready(families)))?;
    Ok(registry.gather())
}

/// Families that are made already.
struct Ready(Vec<MetricFamily>);

impl Collector for Ready {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.clone()
    }
}

fn patch_families(
    view: &View<'_>,
    patches: &PatchSet,
) -> prometheus::Result<Vec<Vec<MetricFamily>>> {
    let loaded = || patches.patches.iter();
    let objects = || {
        loaded().flat_map(|patch| {
            patch
                .objects
                .iter()
                .map(move |object| (patch.name.as_str(), object))
        })
    };
    let mut families = vec![
        gauge(
            &PATCH_INFO,
            loaded().map(|patch| {
                let replace = patch
                    .replace
                    .map_or("unknown", |replace| if replace { "true" } else { "false" });
                let srcversion = patch.srcversion.as_deref().unwrap_or("unknown");
                (vec![patch.name.as_str(), replace, srcversion], 1.0)
            }),
        )?,
        gauge(
            &PATCH_ENABLED,
            loaded().filter_map(|patch| Some((vec![patch.name.as_str()], bit(patch.enabled?)))),
        )?,
        gauge(
            &PATCH_FORCED,
            loaded().filter_map(|patch| {
                Some((vec![patch.name.as_str()], bit((view.forced)(&patch.name)?)))
            }),
        )?,
        gauge(
            &PATCH_FUNCTIONS,
            objects().map(|(patch, object)| {
                (
                    vec![patch, object.name.as_str()],
                    count(object.functions.len() as u64),
                )
            }),
        )?,
        gauge(
            &OBJECT_PATCHED,
            objects().filter_map(|(patch, object)| {
                Some((vec![patch, object.name.as_str()], bit(object.patched?)))
            }),
        )?,
    ];

    // A patch in transition may be new to sysfs or, disabled, already gone from it.
    let active = view.transition.as_ref();
    let in_transition = active.and_then(|active| active.patch.as_deref());
    let mut names: Vec<&str> = loaded().map(|patch| patch.name.as_str()).collect();
    if let Some(name) = in_transition.filter(|name| !names.contains(name)) {
        names.push(name);
    }
    let running = |name: &str| active.filter(|_| in_transition == Some(name));
    families.push(gauge(
        &TRANSITION_ACTIVE,
        names.iter().flat_map(|name| {
            Direction::ALL.map(|direction| {
                let runs = running(name).is_some_and(|active| active.direction == direction);
                (vec![*name, direction.name()], bit(runs))
            })
        }),
    )?);
    families.push(gauge(
        &TRANSITION_START,
        names
            .iter()
            .filter_map(|name| Some((vec![*name], running(name)?.start_unix_seconds?))),
    )?);

    // What is noted of a patch counts while sysfs agrees.
    let in_force = || {
        let rests = |patch: &&Patch| patch.enabled == Some(true) && running(&patch.name).is_none();
        let of_patch = |patch: &Patch| view.in_force.get(&patch.name).cloned();
        loaded()
            .filter(rests)
            .filter_map(move |patch| Some((patch.name.as_str(), of_patch(patch)?)))
    };
    families.push(gauge(
        &PATCHING_COMPLETE,
        in_force().filter_map(|(name, known)| Some((vec![name], known.since_unix_seconds?))),
    )?);
    families.push(gauge(
        &PATCHING_DURATION,
        in_force().filter_map(|(name, known)| Some((vec![name], known.took?.as_secs_f64()))),
    )?);

    // Zero is said of a patch that rests; of one in transition only what a scan saw.
    let none = Counts::default();
    let (mut pending, mut stuck, mut blocking) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let active = running(name);
        let Some(counts) = active.map_or(Some(&none), |active| active.pending.as_ref()) else {
            continue;
        };
        for reason in Reason::ALL {
            let tasks = count(counts.reason(reason));
            let is_stuck = active.is_some_and(|active| active.stuck);
            pending.push((vec![*name, reason.name()], tasks));
            stuck.push((
                vec![*name, reason.name()],
                if is_stuck { tasks } else { 0.0 },
            ));
        }
        for ((object, function), tasks) in counts.functions() {
            blocking.push((vec![*name, object, function], count(*tasks)));
        }
    }
    families.push(gauge(&PENDING_TASKS, pending)?);
    families.push(gauge(&STUCK_TASKS, stuck)?);
    families.push(gauge(&BLOCKING_TASKS, blocking)?);
    Ok(families)
}

/// The text exposition (format 0.0.4).
///
/// # Errors
/// The metrics library cannot encode a family.
pub fn encode(families: &[MetricFamily]) -> prometheus::Result<String> {
    let mut buffer = Vec::new();
    TextEncoder::new().encode(families, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// The exposition's content type.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

fn gauge<'a>(
    metric: &Metric,
    rows: impl IntoIterator<Item = (Vec<&'a str>, f64)>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let family = GaugeVec::new(Opts::new(metric.name, metric.help), metric.labels)?;
    for (labels, value) in rows {
        family.get_metric_with_label_values(&labels)?.set(value);
    }
    Ok(family.collect())
}

fn counter<'a>(
    metric: &Metric,
    rows: impl IntoIterator<Item = (Vec<&'a str>, u64)>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let family = IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels)?;
    for (labels, value) in rows {
        family.get_metric_with_label_values(&labels)?.inc_by(value);
    }
    Ok(family.collect())
}

fn bit(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of tasks and functions are far below 2^52"
)]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/metrics.md and the contract are the same.
    #[test]
    fn reference_is_true() {
        let text = include_str!("../../docs/metrics.md");
        let rows: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("| `livepatch_"))
            .map(str::to_owned)
            .collect();
        let contract: Vec<String> = CONTRACT
            .iter()
            .map(|metric| {
                let labels = metric.labels.join(", ");
                let gap = if labels.is_empty() { "" } else { " " };
                format!(
                    "| `{}` | {} | {labels}{gap}| {} |",
                    metric.name,
                    metric.kind.name(),
                    metric.help
                )
            })
            .collect();
        assert_eq!(rows, contract);
    }
}
