//! Checks what every panel shows of the rollout in the end-to-end test: its queries go to the
//! Prometheus that scraped the hosts.

mod expectations;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use anyhow::Result;

use super::board::{self, Board};
use crate::monitoring::prometheus::Series;

use expectations::EXPECTATIONS;

/// Longer than two scrapes of the end-to-end test, as Grafana would choose it.
const RATE_INTERVAL: &str = "20s";

/// The step of the scenario's time range, in seconds: no state in it is shorter.
const STEP: f64 = 1.0;

/// Counts are floating-point numbers.
const TOLERANCE: f64 = 1e-9;

/// Labels that a series has.
type Labels = &'static [(&'static str, &'static str)];

/// What a query must return over the whole scenario.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// The highest value of the series with these labels.
    Max(Labels, f64),
    /// Their lowest value, for counts that are larger for a while on a slow machine.
    Min(Labels, f64),
    /// They rise above a value.
    Above(Labels, f64),
    /// They fall below a value.
    Below(Labels, f64),
    /// There is a series with these labels.
    Shows(Labels),
    /// Series, and all of them are 0; why.
    Zero(&'static str),
    /// No series, for the reason given.
    Nothing(&'static str),
    /// No series, or 0, depending on the kernel; why.
    Quiet(&'static str),
}

/// The expectations of one query.
#[derive(Clone, Copy, Debug)]
struct Expectation {
    board: &'static str,
    panel: &'static str,
    query: &'static str,
    expect: &'static [Expect],
}

/// Runs the queries of all shipped panels and returns what is not as expected. `query` takes
/// PromQL, start, end (Unix seconds) and step (seconds).
pub(crate) fn check_panels(
    query: impl Fn(&str, f64, f64, f64) -> Result<Vec<Series>>,
    start: f64,
    end: f64,
) -> Result<Vec<String>> {
    check(&board::all()?, EXPECTATIONS, start, end, query)
}

fn check(
    boards: &[Board],
    expectations: &[Expectation],
    start: f64,
    end: f64,
    query: impl Fn(&str, f64, f64, f64) -> Result<Vec<Series>>,
) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut met = BTreeSet::new();
    for board in boards {
        for panel in board.shown() {
            for target in &panel.targets {
                let place = (
                    board.uid.as_str(),
                    panel.title.as_str(),
                    target.ref_id.as_str(),
                );
                let name = format!("{}: panel \"{}\", query {}", place.0, place.1, place.2);
                let Some(expectation) = expectations
                    .iter()
                    .find(|known| (known.board, known.panel, known.query) == place)
                else {
                    complaints.push(format!("{name}: nothing is said of what it should show"));
                    continue;
                };
                met.insert(place);
                let text = substituted(&target.expr, end - start);
                let series = query(&text, start, end, STEP)?;
                for expect in expectation.expect {
                    if let Some(wrong) = expect.wrong(&series) {
                        complaints.push(format!("{name}: {wrong}\n    {text}"));
                    }
                }
            }
        }
    }
    for Expectation {
        board,
        panel,
        query,
        ..
    } in expectations
    {
        if !met.contains(&(*board, *panel, *query)) {
            complaints.push(format!(
                "{board}: something is expected of panel \"{panel}\", query {query}, which is not there"
            ));
        }
    }
    Ok(complaints)
}

/// A query as Grafana sends it with "All" selected everywhere.
fn substituted(query: &str, range: f64) -> String {
    query
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$__range", &format!("{:.0}s", range.ceil().max(1.0)))
        .replace("$__interval", "1s")
        .replace("$job", ".+")
        .replace("$instance", ".+")
        .replace("$patch", ".+")
}

impl Expect {
    /// What is wrong with a result, if anything.
    fn wrong(self, series: &[Series]) -> Option<String> {
        match self {
            Self::Max(labels, value) => match extent(series, labels) {
                None => Some(missing(series, labels)),
                Some((_, highest)) => ((highest - value).abs() > TOLERANCE).then(|| {
                    format!("its highest value with {labels:?} is {highest}, not {value}")
                }),
            },
            Self::Min(labels, value) => match extent(series, labels) {
                None => Some(missing(series, labels)),
                Some((lowest, _)) => ((lowest - value).abs() > TOLERANCE)
                    .then(|| format!("its lowest value with {labels:?} is {lowest}, not {value}")),
            },
            Self::Above(labels, value) => match extent(series, labels) {
                None => Some(missing(series, labels)),
                Some((_, highest)) => (highest <= value)
                    .then(|| format!("with {labels:?} it rises to {highest}, not above {value}")),
            },
            Self::Below(labels, value) => match extent(series, labels) {
                None => Some(missing(series, labels)),
                Some((lowest, _)) => (lowest >= value)
                    .then(|| format!("with {labels:?} it falls to {lowest}, not below {value}")),
            },
            Self::Shows(labels) => extent(series, labels)
                .is_none()
                .then(|| missing(series, labels)),
            Self::Zero(why) => match extent(series, &[]) {
                None => Some(format!("it gives nothing, instead of 0 ({why})")),
                Some(values) => not_zero(values, why),
            },
            Self::Nothing(why) => {
                (!series.is_empty()).then(|| format!("it gives {}, although: {why}", found(series)))
            }
            Self::Quiet(why) => extent(series, &[]).and_then(|values| not_zero(values, why)),
        }
    }
}

fn not_zero((lowest, highest): (f64, f64), why: &str) -> Option<String> {
    (lowest.abs() > TOLERANCE || highest.abs() > TOLERANCE)
        .then(|| format!("its values are {lowest} to {highest}, although: {why}"))
}

/// The lowest and the highest value of the series with these labels.
fn extent(series: &[Series], labels: Labels) -> Option<(f64, f64)> {
    let has = |series: &&Series| {
        labels
            .iter()
            .all(|(name, value)| series.labels.get(*name).is_some_and(|found| found == value))
    };
    series
        .iter()
        .filter(has)
        .flat_map(|series| series.points.iter().map(|(_, value)| *value))
        .fold(None, |extent, value| {
            let (lowest, highest) = extent.unwrap_or((value, value));
            Some((value.min(lowest), value.max(highest)))
        })
}

fn missing(series: &[Series], labels: Labels) -> String {
    format!("no series has {labels:?}; it gives {}", found(series))
}

/// The labels of the first few series.
fn found(series: &[Series]) -> String {
    if series.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = series
        .iter()
        .take(3)
        .map(|series| format!("{:?}", series.labels))
        .collect();
    format!("{} series, such as {}", series.len(), shown.join(" "))
}
