//! The metrics that a query may use, and their labels: the exporter's, those of the
//! shipped rules, and the few that every Prometheus has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, bail};

use crate::{host::paths, monitoring::prometheus::rule_files};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    Counter,
}

/// A metric in Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) kind: Kind,
    /// All its labels, including the target's.
    pub(crate) labels: BTreeSet<String>,
    /// Whether other exporters have it too.
    pub(crate) shared: bool,
}

impl Metric {
    fn new(kind: Kind, labels: &[&str]) -> Self {
        Self {
            kind,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            shared: false,
        }
    }

    /// A metric of a host, with the labels of the scrape.
    fn of_host(kind: Kind, labels: &[&str]) -> Self {
        let mut metric = Self::new(kind, labels);
        metric.labels.extend(TARGET.map(str::to_owned));
        metric
    }
}

const TARGET: [&str; 2] = ["job", "instance"];

/// What [`prometheus`'s process collector](https://docs.rs/prometheus/0.14) exports.
const PROCESS: [(&str, Kind); 7] = [
    ("process_cpu_seconds_total", Kind::Counter),
    ("process_max_fds", Kind::Gauge),
    ("process_open_fds", Kind::Gauge),
    ("process_resident_memory_bytes", Kind::Gauge),
    ("process_start_time_seconds", Kind::Gauge),
    ("process_threads", Kind::Gauge),
    ("process_virtual_memory_bytes", Kind::Gauge),
];

/// The labels of a recording rule: those that the first part of its name means, and the extra
/// labels of a few.
fn recorded_labels(name: &str) -> Option<&'static [&'static str]> {
    let level = name.split(':').next().unwrap_or_default();
    Some(match (level, name) {
        // `livepatch:` rules are the thresholds.
        ("livepatch" | "fleet", _) => &[],
        ("release", "release:livepatch_hosts:count") => &["release"],
        ("release", _) => &["release", "patch"],
        ("patch", "patch:livepatch_patching_duration_seconds:quantile") => &["patch", "quantile"],
        ("patch", _) => &["patch"],
        ("function", _) => &["patch", "object", "function"],
        (
            "instance",
            "instance:livepatch_unanswered:since"
            | "instance:livepatch_down:info"
            | "instance:livepatch_lost:since"
            | "instance:livepatch_outages:count"
            | "instance:livepatch_scrapes_failed:ratio",
        ) => &["job", "instance"],
        ("instance", "instance:livepatch_trouble:count") => &["job", "instance", "counter"],
        ("instance", "instance:livepatch_signals_implicating:count") => {
            &["job", "instance", "patch", "signal"]
        }
        ("instance", "instance:livepatch_hurt:info") => &["job", "instance", "patch", "cause"],
        ("instance", "instance:livepatch_silent:info") => &["job", "instance", "patch", "phase"],
        ("instance", _) => &["job", "instance", "patch"],
        _ => return None,
    })
}

/// All metrics that a query may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) metrics: BTreeMap<String, Metric>,
    pub(crate) alerts: BTreeSet<String>,
}

impl Known {
    /// Reads docs/metrics.md and the rules of the repository.
    pub(crate) fn of_repository() -> Result<Self> {
        let path = paths::root()?.join("docs/metrics.md");
        let contract =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut rules = String::new();
        for path in rule_files()? {
            rules += &fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
        Self::parse(&contract, &rules)
    }

    /// Parses the table of docs/metrics.md (`contract`) and the text of rule files (`rules`).
    pub(crate) fn parse(contract: &str, rules: &str) -> Result<Self> {
        let mut known = Self::default();
        let mut add = |name: &str, metric: Metric| known.metrics.insert(name.to_owned(), metric);
        for (name, kind) in PROCESS {
            let shared = true;
            add(
                name,
                Metric {
                    shared,
                    ..Metric::of_host(kind, &[])
                },
            );
        }
        let up = Metric::of_host(Kind::Gauge, &[]);
        add("up", Metric { shared: true, ..up });
        add(
            "ALERTS",
            Metric::new(
                Kind::Gauge,
                &["alertname", "alertstate", "severity", "patch"],
            ),
        );
        for row in contract.lines().filter_map(|line| line.strip_prefix("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [name, kind, labels, ..] = cells.as_slice() else {
                bail!("docs/metrics.md: the row `{row}` has no four cells");
            };
            let name = name.trim_end_matches('`');
            let labels: Vec<&str> = labels
                .split(',')
                .map(str::trim)
                .filter(|label| !label.is_empty())
                .collect();
            match *kind {
                "gauge" => drop(add(name, Metric::of_host(Kind::Gauge, &labels))),
                "counter" => drop(add(name, Metric::of_host(Kind::Counter, &labels))),
                other => bail!("docs/metrics.md: {name} has the unknown type `{other}`"),
            }
        }
        for line in rules.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("- ").unwrap_or(line);
            let value = |key| {
                line.strip_prefix(key)
                    .map(|name: &str| name.trim().trim_matches('"'))
            };
            if let Some(name) = value("record:") {
                let labels = recorded_labels(name).with_context(|| {
                    format!("recording rule {name}: nothing is known of the labels of its level")
                })?;
                add(name, Metric::new(Kind::Gauge, labels));
            } else if let Some(name) = value("alert:") {
                known.alerts.insert(name.to_owned());
            }
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_come_from_the_contract_and_the_rules() {
        let contract = "| metric | type | labels | meaning |\n|---|---|---|---|\n\
            | `a_total` | counter | | A. |\n| `b` | gauge | patch, object | B. |\n\
            - `reason`: not a row\n";
        let rules = "groups:\n- name: x\n  rules:\n    - record: patch:b:count\n      expr: b\n    - alert: LivepatchX\n";
        let known = Known::parse(contract, rules).unwrap();
        assert_eq!(known.metrics["a_total"].kind, Kind::Counter);
        assert!(known.metrics["b"].labels.contains("object"));
        assert!(known.metrics["b"].labels.contains("instance"));
        assert!(!known.metrics["patch:b:count"].labels.contains("instance"));
        assert!(known.alerts.contains("LivepatchX"));
    }

    #[test]
    fn a_level_without_meaning_is_an_error() {
        let error = Known::parse("", "- record: moon:b:count\n").unwrap_err();
        assert!(error.to_string().contains("moon:b:count"), "{error}");
        assert!(Known::parse("| `a` | number | | A. |", "").is_err());
    }
}
