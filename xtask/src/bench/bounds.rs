//! What the counts may be, and how they compare with an earlier run's.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The most that each row of the table `counts` may be: what the project sets itself.
const BOUNDS: &[(&str, f64)] = &[
    ("start", 600.0),
    ("scrape", 0.6),
    ("scrape, patched", 0.6),
    ("scrape, 1,000 functions", 0.7),
    ("scrape, 50 patches", 4.0),
    ("blockers", 300.0),
    ("peak MiB", 16.0),
    ("resident MiB", 9.5),
    ("program, bytes", 11e6),
];

/// The monitor's column of the table `counts`, by row.
#[derive(Debug)]
pub(super) struct Counts(BTreeMap<String, f64>);

#[derive(Deserialize)]
struct Table {
    rows: Vec<Vec<String>>,
}

impl Counts {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let table: Table = serde_json::from_str(text).context("not a table of counts")?;
        let rows = table.rows.iter().skip(1).map(|row| {
            let (what, count) = row.first().zip(row.get(1)).context("a row is too short")?;
            let count = count.parse();
            let count = count.with_context(|| format!("the count of `{what}` is not a number"))?;
            Ok((what.clone(), count))
        });
        Ok(Self(rows.collect::<Result<_>>()?))
    }

    /// Each count beside the earlier one.
    pub(super) fn compared(&self, earlier: &Self) -> String {
        let mut text = String::from("compared with the earlier run:\n");
        for (what, count) in &self.0 {
            let _ = match earlier.0.get(what) {
                Some(before) if *before > 0.0 => {
                    let change = (count / before - 1.0) * 100.0;
                    writeln!(text, "  {what}: {before} -> {count} ({change:+.1} %)")
                }
                _ => writeln!(text, "  {what}: {count} (not in the earlier run)"),
            };
        }
        text
    }

    /// # Errors
    /// A count is past its bound, or missing.
    pub(super) fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for (what, bound) in BOUNDS {
            match self.0.get(*what) {
                Some(count) if count <= bound => {}
                Some(count) => wrong.push(format!("{what}: {count}, at most {bound}")),
                None => wrong.push(format!("{what}: not counted")),
            }
        }
        if !wrong.is_empty() {
            bail!(
                "past the bounds of xtask/src/bench/bounds.rs: {}",
                wrong.join("; ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, f64)]) -> Counts {
        let head = vec!["what".to_owned(), "monitor".to_owned()];
        let rows = rows
            .iter()
            .map(|(what, count)| vec![(*what).to_owned(), count.to_string()]);
        let rows: Vec<_> = [head].into_iter().chain(rows).collect();
        Counts::parse(&serde_json::json!({ "rows": rows }).to_string()).unwrap()
    }

    #[test]
    fn a_count_past_its_bound_is_an_error() {
        counts(BOUNDS).check().unwrap();
        for (index, (what, bound)) in BOUNDS.iter().enumerate() {
            let mut rows = BOUNDS.to_vec();
            rows[index].1 = bound * 1.01;
            let error = counts(&rows).check().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            rows.remove(index);
            let error = counts(&rows).check().unwrap_err().to_string();
            assert!(error.contains("not counted"), "{error}");
        }
    }

    #[test]
    fn changes_are_named() {
        let text = counts(&[("scrape", 0.5), ("new", 1.0)]).compared(&counts(&[("scrape", 1.0)]));
        assert!(text.contains("scrape: 1 -> 0.5 (-50.0 %)"), "{text}");
        assert!(text.contains("new: 1 (not in the earlier run)"), "{text}");
    }
}
