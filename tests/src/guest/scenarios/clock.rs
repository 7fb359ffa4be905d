//! When things happened, as precisely as a scenario can know it: between two moments.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

/// Times since 1970 are rounded down to the millisecond, and are sums of readings of two
/// clocks.
const SLACK: f64 = 0.01;

/// Now, in seconds since the Unix epoch.
pub(crate) fn unix_seconds() -> Result<f64> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_secs_f64())
}

/// Fails unless a number of seconds lies between two others.
pub(crate) fn expect_between(what: &str, value: f64, least: f64, most: f64) -> Result<()> {
    ensure!(
        value >= least - SLACK && value <= most + SLACK,
        "{what} is {value}, it should lie between {least} and {most}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_is_refused() {
        assert!(expect_between("x", 1.0, 1.0, 2.0).is_ok());
        assert!(expect_between("x", 0.9, 1.0, 2.0).is_err());
        assert!(expect_between("x", 2.1, 1.0, 2.0).is_err());
    }
}
