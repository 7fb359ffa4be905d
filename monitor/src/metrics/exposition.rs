//! Writes the text exposition format 0.0.4.
//!
//! The crate `prometheus` holds the metrics of the process, and is what the tests compare this
//! writer with. It does not write the exposition: for each sample of each scrape it would make and
//! check a description, allocate every label, and merge and sort copies of them all, which was nine
//! tenths of a scrape's instructions. Here a sample is appended to one buffer.

use std::ops::Range;

use prometheus::{TextEncoder, proto::MetricFamily};

use super::Metric;

#[cfg(test)]
mod tests;

/// An exposition of a host with a patch has 10 kB.
const CAPACITY: usize = 16 << 10;

/// Integers of a double up to here are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Why a metric could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExpositionError {
    /// A collector gives another number of label values than the metric has labels.
    #[error(
        "metric {metric} has {declared} labels and was given {given} values: this is a bug of the monitor, please report it"
    )]
    Labels {
        /// Name of the metric whose labels do not fit.
        metric: &'static str,
        /// Labels in its row of the contract.
        declared: usize,
        /// Values given for a sample.
        given: usize,
    },
    /// The metrics library cannot encode one of its own metrics.
    #[error("cannot encode a metric: {0}")]
    Library(#[from] prometheus::Error),
}

/// Metric families as text, each under its name.
#[derive(Clone, Debug)]
pub struct Exposition {
    text: String,
    families: Vec<Family>,
}

/// Where in the text a family and its name are.
#[derive(Clone, Debug)]
struct Family {
    name: Range<usize>,
    text: Range<usize>,
}

/// The state of an exposition at some point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    text: usize,
    families: usize,
}

impl Default for Exposition {
    fn default() -> Self {
        Self {
            text: String::with_capacity(CAPACITY),
            families: Vec::with_capacity(64),
        }
    }
}

impl Exposition {
    /// Writes a gauge: label values and value of each series. Without series, the family
    /// is left out. Of several values for the same series the last counts.
    ///
    /// # Errors
    /// A sample has another number of labels than the metric.
    pub(crate) fn gauge<'a, const N: usize>(
        &mut self,
        metric: &Metric,
        rows: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), ExpositionError> {
        self.family(metric, rows, |_, last| last)
    }

    /// Writes a counter: label values and value of each series. Without series, the family
    /// is left out. Several values for the same series are added.
    ///
    /// # Errors
    /// A sample has another number of labels than the metric.
    pub(crate) fn counter<'a, const N: usize>(
        &mut self,
        metric: &Metric,
        rows: impl IntoIterator<Item = ([&'a str; N], u64)>,
    ) -> Result<(), ExpositionError> {
        let rows = rows.into_iter();
        let rows = rows.map(|(labels, value)| (labels, super::count(value)));
        self.family(metric, rows, |sum, value| sum + value)
    }

    fn family<'a, const N: usize>(
        &mut self,
        metric: &Metric,
        rows: impl IntoIterator<Item = ([&'a str; N], f64)>,
        merge: impl Fn(f64, f64) -> f64,
    ) -> Result<(), ExpositionError> {
        let mut rows: Vec<([&str; N], f64)> = rows.into_iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let declared = metric.labels.len();
        let Ok(names) = <[&str; N]>::try_from(metric.labels) else {
            return Err(ExpositionError::Labels {
                metric: metric.name,
                declared,
                given: N,
            });
        };
        // Labels by name, series by the values of the labels in that order.
        let mut order: [usize; N] = std::array::from_fn(|position| position);
        order.sort_unstable_by_key(|&position| names[position]);
        let names = order.map(|position| names[position]);
        for (values, _) in &mut rows {
            *values = order.map(|position| values[position]);
        }
        if !rows.is_sorted_by(|(one, _), (next, _)| one < next) {
            rows.sort_by_key(|(labels, _)| *labels);
            rows.dedup_by(|(next, value), (kept, sum)| {
                let is_same = next == kept;
                if is_same {
                    *sum = merge(*sum, *value);
                }
                is_same
            });
        }
        self.head(metric);
        for (values, value) in &rows {
            self.sample(metric.name, &names, values, *value);
        }
        self.end();
        Ok(())
    }

    fn head(&mut self, metric: &Metric) {
        let text = &mut self.text;
        let start = text.len();
        text.push_str("# HELP ");
        let name = text.len()..text.len() + metric.name.len();
        text.push_str(metric.name);
        text.push(' ');
        push_escaped(text, metric.help, false);
        text.push_str("\n# TYPE ");
        text.push_str(metric.name);
        text.push(' ');
        text.push_str(metric.kind.name());
        text.push('\n');
        self.families.push(Family {
            name,
            text: start..start,
        });
    }

    fn end(&mut self) {
        if let Some(family) = self.families.last_mut() {
            family.text.end = self.text.len();
        }
    }

    fn sample<const N: usize>(
        &mut self,
        metric: &str,
        names: &[&str; N],
        values: &[&str; N],
        value: f64,
    ) {
        let text = &mut self.text;
        text.push_str(metric);
        let mut separator = '{';
        for (name, value) in names.iter().zip(values) {
            text.push(separator);
            text.push_str(name);
            text.push_str("=\"");
            push_escaped(text, value, true);
            text.push('"');
            separator = ',';
        }
        text.push_str(if N == 0 { " " } else { "} " });
        push_value(text, value);
        text.push('\n');
    }

    /// Writes metrics that the library contains, with their series in order.
    ///
    /// # Errors
    /// The library cannot encode one.
    pub(crate) fn library(&mut self, families: Vec<MetricFamily>) -> Result<(), ExpositionError> {
        for mut family in families {
            family.mut_metric().sort_by(|one, other| {
                let values = |metric: &prometheus::proto::Metric| {
                    let labels = metric.get_label().iter();
                    labels
                        .map(|label| label.value().to_owned())
                        .collect::<Vec<_>>()
                };
                values(one).cmp(&values(other))
            });
            let start = self.text.len();
            let name = family.name().to_owned();
            TextEncoder::new().encode_utf8(&[family], &mut self.text)?;
            // `# HELP name …`: all of the library's metrics have a help text.
            let at = start + "# HELP ".len();
            self.families.push(Family {
                name: at..at + name.len(),
                text: start..self.text.len(),
            });
        }
        Ok(())
    }

    /// The current position.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            text: self.text.len(),
            families: self.families.len(),
        }
    }

    /// Removes what was written since.
    pub(crate) fn back_to(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.families.truncate(mark.families);
    }

    /// The names of the families, in the order in which they were written.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<&str> {
        let names = self.families.iter().map(|family| self.part(&family.name));
        names.collect()
    }

    fn part(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// The whole text, families sorted by name.
    #[must_use]
    pub fn into_text(mut self) -> String {
        let mut families = std::mem::take(&mut self.families);
        families.sort_by(|one, other| self.part(&one.name).cmp(self.part(&other.name)));
        let mut text = String::with_capacity(self.text.len());
        for family in &families {
            text.push_str(self.part(&family.text));
        }
        text
    }
}

/// Appends a help text or a label's value.
fn push_escaped(text: &mut String, value: &str, quotes: bool) {
    let special = |byte: u8| byte == b'\\' || byte == b'\n' || (quotes && byte == b'"');
    if !value.bytes().any(special) {
        text.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

/// Appends a sample's value.
fn push_value(text: &mut String, value: f64) {
    use std::fmt::Write as _;

    let is_integer = value.trunc() == value && value.abs() < EXACT && value.is_sign_positive();
    if !is_integer {
        let _ = write!(text, "{value}");
        return;
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an integer between 0 and 2^53"
    )]
    let value = value as u64;
    match u8::try_from(value) {
        Ok(digit @ 0..=9) => text.push(char::from(b'0' + digit)),
        _ => {
            let _ = write!(text, "{value}");
        }
    }
}
