//! Events that the monitor reports as lost. The metric has their number, the status page
//! the number of each kind.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_test_support::http;

use crate::{exposition::Exposition, monitor};

const METRIC: &str = "livepatch_monitor_events_lost_total";
/// The text before the kinds on the status page.
const BEFORE: &str = "kernel events lost because the ring buffer was full: ";

/// Lost events by the event's name.
pub(crate) struct LostEvents(BTreeMap<String, u64>);

impl LostEvents {
    /// Reads the status page; the sum must agree with the metric.
    pub(crate) fn read(metrics: &Exposition) -> Result<Self> {
        let page = http::body(monitor::ADDRESS, "/")?;
        let losses = Self::parse(&page)?;
        let all: u64 = losses.0.values().sum();
        metrics.expect(METRIC, number(all)?)?;
        Ok(losses)
    }

    /// How many of an event were lost.
    pub(crate) fn of(&self, event: &str) -> Result<f64> {
        number(self.0.get(event).copied().unwrap_or(0))
    }

    fn parse(page: &str) -> Result<Self> {
        let Some((_, rest)) = page.split_once(BEFORE) else {
            return Ok(Self(BTreeMap::new()));
        };
        let text = rest.split(['.', '<']).next().unwrap_or_default();
        let losses = text.trim().split(", ").map(|part| {
            let (count, event) = part.split_once(' ').context("no count and event")?;
            Ok((event.to_owned(), count.parse().context("no count")?))
        });
        let losses: Result<BTreeMap<_, _>> = losses.collect();
        let losses = losses.with_context(|| format!("the page has `{text}`"))?;
        ensure!(!losses.is_empty(), "the page has `{text}`");
        Ok(Self(losses))
    }
}

fn number(count: u64) -> Result<f64> {
    let count = u32::try_from(count).context("an absurd number of events")?;
    Ok(f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_from_the_page() {
        let page = format!("<li>{BEFORE}258 printk_console, 3 __warn. <em>To mend it</em></li>");
        let losses = LostEvents::parse(&page).unwrap();
        assert_eq!(losses.of("printk_console").unwrap(), 258.0);
        assert_eq!(losses.of("__warn").unwrap(), 3.0);
        assert_eq!(losses.of("panic").unwrap(), 0.0);
        assert!(
            LostEvents::parse("<p>all is well</p>")
                .unwrap()
                .0
                .is_empty()
        );
        assert!(LostEvents::parse(&format!("{BEFORE}many")).is_err());
    }
}
