//! The monitor itself: its build, its probes, and the success of the other collectors.

use std::{collections::BTreeSet, path::PathBuf, sync::Mutex};

use livepatch_core::{degradation::Degradation, journal::history::History};
use livepatch_monitor_ebpf::EventKind;
use prometheus::{core::Collector as _, process_collector::ProcessCollector};
use tracing::warn;

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        lock,
    },
    kernel::{
        clock,
        events::KernelEvent,
        modules,
        probes::{Method, ProbeStatus},
    },
    logging,
    metrics::{Exposition, ExpositionError, Metric, bit, count, metrics},
    sandbox,
};

metrics! {
    BUILD_INFO = "livepatch_monitor_build_info" Gauge ["version", "revision"] "The monitor's build; always 1.";
    SANDBOXED = "livepatch_monitor_sandboxed" Gauge [] "Of the eight abilities that the monitor can give up after its start, how many it has given up; the status page names them.";
    HOST_TIME = "livepatch_host_time_seconds" Gauge [] "The host's clock at the time of the scrape, in seconds since 1970; not in the file of --textfile.";
    DRILL = "livepatch_drill" Gauge ["level"] "A drill of the alerting, started with --drill; always 1, and absent without one. Nothing has happened.";
    PROBES_ATTACHED = "livepatch_monitor_probes_attached" Gauge [] "Kernel signals that the monitor gets, by a probe or by what replaces one; the status page names them.";
    PROBE_ATTACHED = "livepatch_monitor_probe_attached" Gauge ["probe", "method"] "Always 0: the monitor does not get this kernel signal; signals that it gets have no series.";
    EVENTS = "livepatch_monitor_events_total" Counter [] "Kernel events that the monitor received from its probes; the status page has them by event.";
    EVENTS_LOST = "livepatch_monitor_events_lost_total" Counter [] "Kernel events that the monitor lost because its ring buffer was full; its log says which.";
    LOG_LINES_LOST = "livepatch_monitor_log_lines_lost_total" Counter [] "Log lines of the monitor that could not be written.";
    TEXTFILE_TIMESTAMP = "livepatch_monitor_textfile_timestamp_seconds" Gauge [] "When the monitor wrote this file of --textfile, in seconds since 1970; not served on /metrics.";
    COLLECTOR_SUCCESS = "livepatch_monitor_collector_success" Gauge ["collector"] "Whether this collector of the monitor could read everything it needs at the last scrape.";
}

/// What is known about the monitor.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// How the probes are attached.
    pub probes: Vec<ProbeStatus>,
    /// Severities of the alert that a drill makes fire.
    pub drill: BTreeSet<&'static str>,
    /// Events received since the start, by name.
    pub events: Vec<(&'static str, u64)>,
    /// The rights that were dropped after the start.
    pub sandbox: Vec<sandbox::Part>,
}

impl Values {
    /// How many events of this name were received; `None` if no event has it.
    #[must_use]
    pub fn received(&self, event: &str) -> Option<u64> {
        let events = self.events.iter();
        let mut of_name = events.filter(|(name, _)| *name == event);
        of_name.next().map(|(_, count)| *count)
    }

    /// The probes that are not attached, with the reason if it is known.
    pub fn missing(&self) -> impl Iterator<Item = &ProbeStatus> {
        let missing = |probe: &&ProbeStatus| probe.method == Method::None;
        self.probes.iter().filter(missing)
    }
}

/// Counts events, and reports on the collectors before it.
#[derive(Debug)]
pub(in crate::exporter) struct Monitor {
    procfs: PathBuf,
    probes: Vec<ProbeStatus>,
    process: ProcessCollector,
    drill: BTreeSet<&'static str>,
    /// The rights that were dropped after the start.
    pub(in crate::exporter) sandbox: Vec<sandbox::Part>,
    events: Mutex<[u64; EventKind::ALL.len()]>,
}

impl Monitor {
    pub(in crate::exporter) fn new(
        procfs: PathBuf,
        probes: Vec<ProbeStatus>,
        drill: BTreeSet<&'static str>,
    ) -> Self {
        if !drill.is_empty() {
            warn!("a drill runs: it makes the alert LivepatchDrill fire (--drill)");
        }
        Self {
            drill,
            procfs,
            probes,
            process: ProcessCollector::for_self(),
            sandbox: Vec::new(),
            events: Mutex::new([0; EventKind::ALL.len()]),
        }
    }
}

impl Collector<All> for Monitor {
    fn name(&self) -> &'static str {
        "monitor"
    }

    fn label(&self) -> Option<&'static str> {
        None
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn event(&self, event: &KernelEvent, _: &History) -> Vec<Effect> {
        let kind = match event {
            KernelEvent::Livepatch(event) => event.kind,
            KernelEvent::Crash(hook) => hook.kind,
        };
        if let Some(count) = lock(&self.events).get_mut(kind as usize) {
            *count += 1;
        }
        Vec::new()
    }

    fn collect(&self, _: &Moment, values: &mut All) -> Outcome {
        let mut degradations = Vec::new();
        let mut probes = self.probes.clone();
        if modules::ftrace_enabled(&self.procfs) == Some(false) {
            degradations.extend(blind(&mut probes));
        }
        let drill = self.drill.clone();
        let counts = EventKind::ALL.into_iter().zip(*lock(&self.events));
        values.monitor = Values {
            probes,
            drill,
            events: counts.map(|(kind, count)| (kind.name(), count)).collect(),
            sandbox: self.sandbox.clone(),
        };
        if let Some(what) = values.tasks.lost.as_deref().and_then(losses) {
            let remedy = "give the monitor more CPU time".to_owned();
            degradations.push(Degradation { what, remedy });
        }
        Outcome {
            problems: degradations.iter().map(|it| it.what.clone()).collect(),
            degradations,
            ..Outcome::default()
        }
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let build = [
            env!("CARGO_PKG_VERSION"),
            env!("LIVEPATCH_MONITOR_REVISION"),
        ];
        out.gauge(&BUILD_INFO, [(build, 1.0)])?;
        let time = clock::unix_seconds(collected.moment.now);
        out.gauge(&HOST_TIME, time.map(|time| ([], time)))?;
        let values = &collected.values.monitor;
        let sandboxed = values.sandbox.len() as u64;
        out.gauge(&SANDBOXED, [([], count(sandboxed))])?;
        let attached = values.probes.len() - values.missing().count();
        out.gauge(&PROBES_ATTACHED, [([], count(attached as u64))])?;
        out.gauge(
            &PROBE_ATTACHED,
            values
                .missing()
                .map(|status| ([status.probe, status.method.name()], 0.0)),
        )?;
        out.gauge(&DRILL, self.drill.iter().map(|severity| ([*severity], 1.0)))?;
        let events = values.events.iter().map(|(_, count)| count).sum();
        out.counter(&EVENTS, [([], events)])?;
        if let Some(lost) = &collected.values.tasks.lost {
            let lost = lost.iter().map(|(_, count)| count).sum();
            out.counter(&EVENTS_LOST, [([], lost)])?;
        }
        out.counter(&LOG_LINES_LOST, [([], logging::lost())])?;
        let runs = collected.runs.iter();
        out.gauge(
            &COLLECTOR_SUCCESS,
            runs.map(|run| ([run.label], bit(run.success))),
        )?;
        out.library(self.process.collect())
    }
}

/// Marks the probes that receive nothing while `kernel.ftrace_enabled` is 0: those at
/// functions, which ftrace calls (ftrace_enable_sysctl, kernel/trace/ftrace.c, 5.10 to 7.2).
/// Tracepoints do not depend on it.
fn blind(probes: &mut [ProbeStatus]) -> Option<Degradation> {
    let at_functions = |probe: &&mut ProbeStatus| {
        // A probe of the name of its function needs ftrace; the task iterator does not.
        matches!(probe.method, Method::Fentry | Method::Kprobe)
    };
    let mut count = 0;
    for probe in probes.iter_mut().filter(at_functions) {
        probe.method = Method::None;
        probe.problem = Some("kernel.ftrace_enabled is 0: it receives nothing".to_owned());
        count += 1;
    }
    (count > 0).then(|| Degradation {
        what: format!(
            "kernel.ftrace_enabled is 0: {count} probes receive nothing; what can be seen of \
             transitions is read from sysfs at each scrape, and no livepatch can be loaded (EBUSY)"
        ),
        remedy: "sysctl kernel.ftrace_enabled=1".to_owned(),
    })
}

/// The metric with the host's clock, which would describe the past in a text file.
pub(in crate::exporter) const OF_SCRAPE: &str = HOST_TIME.name;

/// The line of the text file that says when it was written.
pub(in crate::exporter) fn heartbeat(unix_seconds: f64) -> String {
    let Metric { name, help, .. } = TEXTFILE_TIMESTAMP;
    format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {unix_seconds:.3}\n")
}

/// Describes which events were lost; `None` if none was.
fn losses(lost: &[(EventKind, u64)]) -> Option<String> {
    let kinds = lost.iter().filter(|(_, count)| *count > 0);
    let kinds: Vec<String> = kinds
        .map(|(kind, count)| format!("{count} {}", kind.name()))
        .collect();
    (!kinds.is_empty()).then(|| {
        format!(
            "kernel events lost because the ring buffer was full: {}",
            kinds.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ftrace_probes_at_functions_receive_nothing() {
        let status = |probe, method| ProbeStatus {
            probe,
            method,
            problem: None,
        };
        let mut probes = [
            status("klp_init_transition", Method::Fentry),
            status("panic", Method::Kprobe),
            status("module_free", Method::Tracepoint),
        ];
        let degradation = blind(&mut probes).unwrap();
        assert!(
            degradation.what.contains("2 probes receive nothing"),
            "{degradation:?}"
        );
        let methods = probes.each_ref().map(|probe| probe.method);
        assert_eq!(methods, [Method::None, Method::None, Method::Tracepoint]);
        assert!(blind(&mut [status("module_free", Method::Tracepoint)]).is_none());
    }

    #[test]
    fn only_what_was_lost_is_named() {
        let kinds = [(EventKind::Panic, 0), (EventKind::PatchObject, 7)];
        let text = losses(&kinds).unwrap();
        assert!(text.ends_with(": 7 klp_patch_object"), "{text}");
        assert_eq!(losses(&kinds[..1]), None);
    }
}
