//! When things happened, as a scenario can know it: between two moments.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

/// The monitor's clock and this one are read apart.
const SLACK: f64 = 0.5;

/// Now, in seconds since the Unix epoch.
pub(crate) fn unix_seconds() -> Result<f64> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_secs_f64())
}

/// Fails unless a number of seconds lies between two others, give or take.
pub(crate) fn expect_between(what: &str, value: f64, least: f64, most: f64) -> Result<()> {
    ensure!(
        value >= least - SLACK && value <= most + SLACK,
        "{what} is {value}, it should lie between {least} and {most}"
    );
    Ok(())
}
