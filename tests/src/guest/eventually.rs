//! Waiting for something to become true.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

const POLL: Duration = Duration::from_millis(100);

/// Retries until it succeeds; after `timeout` it fails with the last error.
pub(crate) fn eventually<T>(
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begin.elapsed() >= timeout => {
                return Err(error).with_context(|| format!("not within {timeout:?}"));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// A duration in seconds.
pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_reported() {
        let mut tries = 0;
        let error = eventually::<()>(Duration::from_millis(150), || {
            tries += 1;
            anyhow::bail!("try {tries}")
        })
        .unwrap_err();
        assert!(tries > 1);
        assert_eq!(
            format!("{error:#}"),
            format!("not within 150ms: try {tries}")
        );
    }
}
