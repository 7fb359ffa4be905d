//! How long transitions took.

use std::{sync::Mutex, time::Duration};

use livepatch_core::transition::{Direction, Outcome};
use prometheus::{HistogramOpts, HistogramVec, core::Collector as _};

use super::TRANSITION_DURATION;
use crate::{
    exporter::lock,
    metrics::{Exposition, ExpositionError},
};

/// From 0.1 s to 2 h. The kernel tries about every second and signals after 15.
const BUCKETS: [f64; 16] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
    7200.0,
];

/// The histogram, with every series that can occur at zero.
#[derive(Debug)]
pub(super) struct Durations {
    histogram: HistogramVec,
    /// Its text since the last transition ended: 133 lines that scrapes only copy.
    written: Mutex<Option<Exposition>>,
}

impl Durations {
    /// # Errors
    /// The metrics library refuses the histogram.
    pub(super) fn new() -> prometheus::Result<Self> {
        let options = HistogramOpts::new(TRANSITION_DURATION.name, TRANSITION_DURATION.help)
            .buckets(BUCKETS.to_vec());
        let histogram = HistogramVec::new(options, TRANSITION_DURATION.labels)?;
        for direction in Direction::ALL {
            for outcome in Outcome::ALL {
                // Only enabling can be cancelled (klp_cancel_transition,
                // kernel/livepatch/transition.c).
                if (direction, outcome) != (Direction::Unpatch, Outcome::Cancelled) {
                    histogram.get_metric_with_label_values(&[direction.name(), outcome.name()])?;
                }
            }
        }
        Ok(Self {
            histogram,
            written: Mutex::new(None),
        })
    }

    pub(super) fn observe(&self, direction: Direction, outcome: Outcome, took: Duration) {
        self.histogram
            .with_label_values(&[direction.name(), outcome.name()])
            .observe(took.as_secs_f64());
        *lock(&self.written) = None;
    }

    /// # Errors
    /// The metrics library cannot encode the histogram.
    pub(super) fn export(&self, out: &mut Exposition) -> Result<(), ExpositionError> {
        let mut written = lock(&self.written);
        if let Some(text) = &*written {
            out.append(text);
            return Ok(());
        }
        let mut text = Exposition::default();
        text.library(self.histogram.collect())?;
        out.append(&text);
        *written = Some(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(durations: &Durations) -> String {
        let mut out = Exposition::default();
        durations.export(&mut out).unwrap();
        out.into_text()
    }

    #[test]
    fn a_transition_is_counted_at_the_next_scrape() {
        let durations = Durations::new().unwrap();
        let line = |count| {
            format!(
                "livepatch_transition_duration_seconds_count{{direction=\"patch\",outcome=\"completed\"}} {count}\n"
            )
        };
        for count in 0..3 {
            for _ in 0..2 {
                let text = text(&durations);
                assert!(text.contains(&line(count)), "{text}");
            }
            durations.observe(Direction::Patch, Outcome::Completed, Duration::from_secs(1));
        }
    }
}
