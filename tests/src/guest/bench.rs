//! The measurements; each produces a table. The absolute numbers of an emulated processor mean
//! little, so values that are compared are measured alternately on the same machine.

mod cost;
mod counts;
mod growth;
mod latency;
mod scan;
mod start;
mod transition;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{guest::Guest, monitor};

type Measurement = fn(&mut Guest) -> Result<Table>;

/// The name of each table's file, and the function that measures it.
const ALL: &[(&str, Measurement)] = &[
    ("counts", counts::measure),
    ("latency", latency::measure),
    ("scan", scan::measure),
    ("functions", growth::functions),
    ("patches", growth::patches),
    ("cost", cost::measure),
    ("start", start::measure),
    ("size", start::size),
    ("transition", transition::measure),
];

/// Makes the tables of a comma-separated list, or `all`.
pub(crate) fn run(guest: &mut Guest, names: &str) -> Result<()> {
    let wanted = |name: &str| names == "all" || names.split(',').any(|wanted| wanted == name);
    if let Some(unknown) = names
        .split(',')
        .find(|wanted| *wanted != "all" && ALL.iter().all(|(name, _)| name != wanted))
    {
        bail!("there is no table called {unknown}");
    }
    for (name, measure) in ALL.iter().filter(|(name, _)| wanted(name)) {
        guest.begin(name);
        let result = measure(guest);
        let log = monitor::log_tail();
        guest.clean_up()?;
        let table =
            result.with_context(|| format!("measuring {name}; the monitor's log ends:\n{log}"))?;
        guest.file(&format!("bench/{name}.txt"), &table.text())?;
        guest.file(&format!("bench/{name}.json"), &table.json()?)?;
    }
    Ok(())
}

/// Rows of text with a title.
#[derive(Debug)]
struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &str, head: &[&str]) -> Self {
        let mut table = Self {
            title: title.to_owned(),
            rows: Vec::new(),
        };
        table.row(head);
        table
    }

    fn row(&mut self, cells: &[impl ToString]) {
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
    }

    fn json(&self) -> Result<String> {
        let table = serde_json::json!({ "title": self.title, "rows": self.rows });
        serde_json::to_string_pretty(&table).context("a table as JSON")
    }

    fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(String::len).max().unwrap_or(0)
        };
        let mut text = format!("{}\n\n", self.title);
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                // The first column is the row's name, the others are numbers.
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `other / ours` as `12.3x`; a dash if `ours` is too small to divide by.
fn ratio(other: f64, ours: f64) -> String {
    if ours > 0.0 {
        format!("{:.1}x", other / ours)
    } else {
        "-".to_owned()
    }
}

/// The median and the maximum.
fn median_and_worst(mut durations: Vec<Duration>) -> Result<(Duration, Duration)> {
    durations.sort();
    let median = durations.get(durations.len() / 2);
    median
        .copied()
        .zip(durations.last().copied())
        .context("nothing was measured")
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new("Title", &["what", "ms"]);
        table.row(&["a", "1.0"]);
        table.row(&["longer", "12.5"]);
        assert_eq!(
            table.text(),
            "Title\n\nwhat      ms\na        1.0\nlonger  12.5\n"
        );
    }
}
