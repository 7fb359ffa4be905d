//! How the monitor obtains each kernel signal, and how many events it has received of it, as
//! its status page shows them. `/metrics` has the sums, and what is missing.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use livepatch_monitor_test_support::http;

use crate::monitor;

/// The beginning of a row.
const ROW: &str = "<tr><th><code>";
/// What comes before the abilities that were given up.
const GIVEN_UP: &str = "Sandbox: rights dropped after the start: <code>";

/// The table of kernel signals.
#[derive(Debug)]
pub(crate) struct Probes {
    rows: BTreeMap<String, Row>,
    given_up: Vec<String>,
}

#[derive(Debug)]
struct Row {
    method: String,
    /// None where the signal is no event.
    received: Option<u64>,
}

impl Probes {
    /// Reads the page of the monitor at the usual address.
    pub(crate) fn read() -> Result<Self> {
        Self::read_from(monitor::ADDRESS)
    }

    /// Reads the page of the monitor at an address.
    pub(crate) fn read_from(address: &str) -> Result<Self> {
        Self::parse(&http::body(address, "/")?)
    }

    fn parse(page: &str) -> Result<Self> {
        let rows = page.split(ROW).skip(1).map(|row| {
            let malformed = || format!("a row of the page is `{:.80}`", row);
            let (name, rest) = row.split_once("</code></th><td>").with_context(malformed)?;
            let (method, rest) = rest.split_once("</td><td>").with_context(malformed)?;
            let (received, _) = rest.split_once("</td>").with_context(malformed)?;
            let received = match received {
                "" => None,
                count => Some(count.parse().with_context(malformed)?),
            };
            let method = method.to_owned();
            Ok((name.to_owned(), Row { method, received }))
        });
        let rows: BTreeMap<_, _> = rows.collect::<Result<_>>()?;
        ensure!(!rows.is_empty(), "the page has no kernel signals");
        let given_up = page
            .split_once(GIVEN_UP)
            .and_then(|(_, rest)| rest.split_once('<'));
        let given_up = given_up
            .into_iter()
            .flat_map(|(names, _)| names.split(", "));
        Ok(Self {
            rows,
            given_up: given_up.map(str::to_owned).collect(),
        })
    }

    fn row(&self, signal: &str) -> Result<&Row> {
        let row = self.rows.get(signal);
        row.with_context(|| format!("the page has no {signal}: {:?}", self.rows.keys()))
    }

    /// How the monitor obtains a signal.
    pub(crate) fn method(&self, signal: &str) -> Result<&str> {
        Ok(&self.row(signal)?.method)
    }

    /// Fails unless a signal is obtained in this way.
    pub(crate) fn expect(&self, signal: &str, method: &str) -> Result<()> {
        let found = self.method(signal)?;
        ensure!(
            found == method,
            "{signal} is obtained by {found}, not {method}"
        );
        Ok(())
    }

    /// Fails if a signal is obtained in this way.
    pub(crate) fn expect_none_by(&self, method: &str) -> Result<()> {
        let by = self.rows.iter().find(|(_, row)| row.method == method);
        match by {
            Some((signal, _)) => bail!("{signal} is obtained by {method}"),
            None => Ok(()),
        }
    }

    /// How many events of this name were received.
    pub(crate) fn received(&self, event: &str) -> Result<f64> {
        let count = self.row(event)?.received;
        let count = count.with_context(|| format!("{event} is no event"))?;
        Ok(f64::from(
            u32::try_from(count).context("an absurd number of events")?,
        ))
    }

    /// Fails unless this many events were received.
    #[expect(clippy::float_cmp, reason = "counts are whole numbers")]
    pub(crate) fn expect_received(&self, event: &str, expected: f64) -> Result<()> {
        let received = self.received(event)?;
        ensure!(
            received == expected,
            "{received} {event} were received, not {expected}"
        );
        Ok(())
    }

    /// How many signals there are.
    pub(crate) fn len(&self) -> f64 {
        f64::from(u16::try_from(self.rows.len()).unwrap_or(u16::MAX))
    }

    /// Whether the monitor has given up an ability.
    pub(crate) fn has_given_up(&self, ability: &str) -> bool {
        self.given_up.iter().any(|known| known == ability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let page = format!(
            "<p>{GIVEN_UP}files, tcp</code>.</p><table><thead><tr><th>signal</th></tr></thead>\
             {ROW}panic</code></th><td>kprobe</td><td>0</td></tr>\
             {ROW}task_scan</code></th><td>iterator</td><td></td></tr></table>"
        );
        let probes = Probes::parse(&page).unwrap();
        probes.expect("panic", "kprobe").unwrap();
        assert!(probes.expect("panic", "fentry").is_err());
        probes.expect_none_by("none").unwrap();
        assert!(probes.expect_none_by("iterator").is_err());
        probes.expect_received("panic", 0.0).unwrap();
        assert!(probes.received("task_scan").is_err());
        assert!(probes.method("oops_enter").is_err());
        assert!(probes.has_given_up("files") && !probes.has_given_up("devices"));
        assert!(Probes::parse("<p>all is well</p>").is_err());
    }
}
