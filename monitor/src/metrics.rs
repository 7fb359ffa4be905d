//! How a metric is declared, sampled and written. The declarations themselves are in the
//! collectors that serve them (`exporter/collectors/`).

mod exposition;

pub use exposition::{Exposition, ExpositionError};

/// A metric's type in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that can go up and down.
    Gauge,
    /// A value that only goes up.
    Counter,
}

impl Kind {
    /// The type as docs/metrics.md writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// One row of the metric contract.
#[derive(Debug)]
pub struct Metric {
    /// Full name of the metric, with its prefix.
    pub name: &'static str,
    /// Whether it is a counter or a gauge.
    pub kind: Kind,
    /// Its label names, in the order in which a sample's values are given.
    pub labels: &'static [&'static str],
    /// Its `# HELP` line. Prometheus shows it alone, so it must make sense alone.
    pub help: &'static str,
}

/// Declares a collector's rows of the metric contract: a constant for each, and `METRICS`
/// with all of them. `docs/metrics.md` has the same rows; a test compares them.
macro_rules! metrics {
    ($($id:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(const $id: $crate::metrics::Metric = $crate::metrics::Metric {
            name: $name,
            kind: $crate::metrics::Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*
        const METRICS: &[$crate::metrics::Metric] = &[$($id),*];
    };
}

pub(crate) use metrics;

/// A boolean as a sample's value: 1 for true, 0 for false.
pub(crate) fn bit(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// A count as a sample's value.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts of tasks and functions are far below 2^52"
)]
pub(crate) fn count(value: u64) -> f64 {
    value as f64
}

/// Content type of the text exposition format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

#[cfg(test)]
mod tests {
    use crate::exporter::collectors;

    /// The table of docs/metrics.md and the collectors' rows are the same.
    #[test]
    fn reference_is_true() {
        let text = include_str!("../../docs/metrics.md");
        let mut rows: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("| `livepatch_"))
            .map(str::to_owned)
            .collect();
        let mut contract: Vec<String> = collectors::tests::contract()
            .into_iter()
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
        // docs/metrics.md has its own order.
        rows.sort();
        contract.sort();
        assert_eq!(rows, contract);
    }
}
