//! Compares the measurements with the aims.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::gate;

/// The longest evaluation of a rule group, in seconds.
const RULES_AIM: f64 = 1.0;
/// The longest time from a crash to its alert, in scrape intervals.
const ALERT_AIM: f64 = 2.0;
/// The longest time for the gate to answer, in seconds.
const GATE_AIM: f64 = 2.0;

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// In the order in which they were measured.
    pub(super) sizes: Vec<Figures>,
    /// Sizes that could not be measured, and why.
    pub(super) not_measured: BTreeMap<usize, String>,
}

/// What was measured with one number of hosts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    pub(super) hosts: usize,
    pub(super) scrape_interval_seconds: u32,
    pub(super) evaluation_interval_seconds: u32,
    /// Including the series that Prometheus and the rules add.
    pub(super) series_per_host: f64,
    pub(super) samples_per_scrape: f64,
    pub(super) active_series: f64,
    /// From the start of Prometheus until it had scraped every host once.
    pub(super) first_scrapes_seconds: f64,
    pub(super) samples_per_second: f64,
    pub(super) scrape_seconds_median: f64,
    pub(super) scrape_seconds_p99: f64,
    /// Prometheus's memory at the end.
    pub(super) resident_bytes: f64,
    pub(super) peak_bytes: f64,
    /// Cores that Prometheus used on average.
    pub(super) cores: f64,
    pub(super) simulator_cores: f64,
    /// Seconds that its threads waited for a core per second of CPU time.
    pub(super) waited_per_cpu_second: f64,
    pub(super) rule_groups: BTreeMap<String, GroupTime>,
    pub(super) slowest_rules: Vec<RuleTime>,
    pub(super) rule_failures: f64,
    pub(super) rules_missed: f64,
    pub(super) rule_errors: Vec<String>,
    pub(super) alerts: Vec<AlertTime>,
    pub(super) gate: Vec<gate::Answer>,
    /// The machine's load average: other work makes everything slower.
    pub(super) machine_load: f64,
}

/// How long a rule group's evaluations took.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct GroupTime {
    pub(super) median_seconds: f64,
    pub(super) longest_seconds: f64,
}

impl GroupTime {
    /// From at least one evaluation.
    pub(super) fn of(seconds: &[f64]) -> Self {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median_seconds: at(sorted.len() / 2),
            longest_seconds: at(sorted.len().saturating_sub(1)),
        }
    }
}

/// How long the last evaluation of a rule took.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RuleTime {
    pub(super) name: String,
    pub(super) query: String,
    pub(super) seconds: f64,
}

/// The time from an event to its alert.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AlertTime {
    pub(super) name: String,
    /// The host or the patch.
    pub(super) of: String,
    /// `None` if it did not fire.
    pub(super) seconds: Option<f64>,
    pub(super) intervals: Option<f64>,
}

impl Figures {
    /// The group that usually takes longest.
    fn slowest_group(&self) -> Option<(&str, GroupTime)> {
        self.rule_groups
            .iter()
            .max_by(|a, b| a.1.median_seconds.total_cmp(&b.1.median_seconds))
            .map(|(name, time)| (name.as_str(), *time))
    }

    fn slowest_answer(&self) -> Option<f64> {
        self.gate
            .iter()
            .map(|answer| answer.seconds)
            .max_by(f64::total_cmp)
    }

    fn rules_hold(&self) -> bool {
        self.slowest_group()
            .is_some_and(|(_, time)| time.median_seconds < RULES_AIM)
            && self.rule_errors.is_empty()
    }

    fn alerts_hold(&self) -> bool {
        !self.alerts.is_empty()
            && self
                .alerts
                .iter()
                .all(|alert| alert.intervals.is_some_and(|passed| passed <= ALERT_AIM))
    }

    fn gate_holds(&self) -> bool {
        self.slowest_answer()
            .is_some_and(|seconds| seconds < GATE_AIM)
    }
}

impl Report {
    /// Whether every size was measured and met every aim.
    pub(super) fn holds(&self) -> bool {
        !self.sizes.is_empty()
            && self.not_measured.is_empty()
            && self
                .sizes
                .iter()
                .all(|size| size.rules_hold() && size.alerts_hold() && size.gate_holds())
    }

    /// Writes all of it as JSON.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("the report")?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// A Markdown table with one column per size.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, cell: &dyn Fn(&Figures) -> String| {
            if self.sizes.is_empty() {
                return;
            }
            let cells: Vec<String> = self.sizes.iter().map(cell).collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        };
        row("hosts", &|size| size.hosts.to_string());
        row("---", &|_| "---:".to_owned());
        row("scrape interval", &|size| {
            format!("{} s", size.scrape_interval_seconds)
        });
        row("series a host", &|size| {
            format!("{:.0}", size.series_per_host)
        });
        row("active series", &|size| {
            format!("{:.0}", size.active_series)
        });
        row("all hosts scraped after", &|size| {
            format!("{:.0} s", size.first_scrapes_seconds)
        });
        row("samples a second", &|size| {
            format!("{:.0}", size.samples_per_second)
        });
        row("scrape, median / 99 %", &|size| {
            format!(
                "{:.0} / {:.0} ms",
                size.scrape_seconds_median * 1e3,
                size.scrape_seconds_p99 * 1e3
            )
        });
        row("Prometheus, resident / at most", &|size| {
            format!(
                "{:.0} / {:.0} MiB",
                size.resident_bytes / MIB,
                size.peak_bytes / MIB
            )
        });
        row("Prometheus, cores", &|size| format!("{:.2}", size.cores));
        row("simulated hosts, cores", &|size| {
            format!("{:.2}", size.simulator_cores)
        });
        row("waiting for a core, a second of CPU", &|size| {
            format!("{:.1} s", size.waited_per_cpu_second)
        });
        row("slowest rule group, median (aim: under 1 s)", &|size| {
            let group = size.slowest_group();
            let group = group.map_or("none".to_owned(), |(name, time)| {
                format!(
                    "{:.2} s ({name}; at most {:.2} s; {:.2} s without waiting)",
                    time.median_seconds,
                    time.longest_seconds,
                    time.median_seconds / (1.0 + size.waited_per_cpu_second)
                )
            });
            verdict(group, size.rules_hold())
        });
        for index in 0..self.alerts_each() {
            let name = self.sizes.iter().find_map(|size| size.alerts.get(index));
            let name = name.map_or("", |alert| alert.name.as_str());
            row(&format!("{name} (aim: within 2 intervals)"), &|size| {
                size.alerts.get(index).map_or(String::new(), cell_of_alert)
            });
        }
        row("gate, slowest answer (aim: under 2 s)", &|size| {
            let seconds = size.slowest_answer();
            let text = seconds.map_or("none".to_owned(), |seconds| format!("{seconds:.2} s"));
            verdict(text, size.gate_holds())
        });
        row("load of the machine", &|size| {
            format!("{:.1}", size.machine_load)
        });
        for (hosts, why) in &self.not_measured {
            let _ = writeln!(text, "\n{hosts} hosts were not measured: {why}");
        }
        if let Some(costs) = self.cost_of_a_host() {
            let _ = writeln!(text, "\n{costs}");
        }
        text
    }

    fn alerts_each(&self) -> usize {
        let each = self.sizes.iter().map(|size| size.alerts.len());
        each.max().unwrap_or(0)
    }

    /// The cost of one more host, from the difference between the smallest and the largest size.
    fn cost_of_a_host(&self) -> Option<String> {
        let smallest = self.sizes.iter().min_by_key(|size| size.hosts)?;
        let largest = self.sizes.iter().max_by_key(|size| size.hosts)?;
        let float = |hosts: usize| u32::try_from(hosts).map_or(f64::INFINITY, f64::from);
        let more = float(largest.hosts) - float(smallest.hosts);
        if more < 1.0 {
            return None;
        }
        let memory = (largest.peak_bytes - smallest.peak_bytes) / more;
        // The CPU time per scrape does not depend on the interval.
        let scrapes = float(largest.hosts) / f64::from(largest.scrape_interval_seconds);
        Some(format!(
            "One more host costs Prometheus {:.2} MiB of memory and {:.1} ms of CPU time a \
             scrape; 14,000 hosts take {:.1} GiB, and {:.2} cores when scraped once a minute.",
            memory / MIB,
            largest.cores / scrapes * 1e3,
            (smallest.peak_bytes + memory * (14_000.0 - float(smallest.hosts))) / (MIB * 1024.0),
            largest.cores / scrapes * 14_000.0 / 60.0,
        ))
    }
}

fn cell_of_alert(alert: &AlertTime) -> String {
    match (alert.seconds, alert.intervals) {
        (Some(seconds), Some(intervals)) => verdict(
            format!("{seconds:.0} s = {intervals:.1}"),
            intervals <= ALERT_AIM,
        ),
        _ => verdict("did not fire".to_owned(), false),
    }
}

fn verdict(text: String, holds: bool) -> String {
    if holds { text } else { text + " MISSED" }
}

#[cfg(test)]
mod tests;
