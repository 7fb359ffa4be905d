//! Limits the rate of requests with a token bucket. Pure.

use std::time::{Duration, Instant};

/// `rate_limit` of the web configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// The interval at which a token is added; not zero.
    pub(super) interval: Duration,
    /// The bucket's size; not zero.
    pub(super) burst: u32,
}

/// A token bucket. It is full at first and whenever the rate changes.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    rate: Option<Rate>,
    /// When the bucket will be full again: each request moves this by one interval.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes a token; false if there is none, so the request must be refused.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        if self.rate != Some(rate) {
            self.rate = Some(rate);
            self.full_at = None;
        }
        let full_at = self.full_at.unwrap_or(now).max(now);
        // At most one token less than the bucket's size may be missing, otherwise there is none to
        // take.
        let most_missing = rate.interval.saturating_mul(rate.burst.saturating_sub(1));
        if full_at.duration_since(now) > most_missing {
            return false;
        }
        self.full_at = full_at.checked_add(rate.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_an_interval() {
        let rate = Rate {
            interval: Duration::from_secs(1),
            burst: 3,
        };
        let mut bucket = Bucket::default();
        let start = Instant::now();
        let passed = |bucket: &mut Bucket, at: u64, tries: usize| {
            let now = start + Duration::from_millis(at);
            (0..tries).filter(|_| bucket.take(rate, now)).count()
        };
        assert_eq!(passed(&mut bucket, 0, 10), 3);
        assert_eq!(passed(&mut bucket, 999, 10), 0);
        assert_eq!(passed(&mut bucket, 1000, 10), 1);
        assert_eq!(passed(&mut bucket, 3000, 10), 2);
        assert_eq!(passed(&mut bucket, 60_000, 10), 3);
    }

    #[test]
    fn a_new_rate_begins_full() {
        let mut bucket = Bucket::default();
        let now = Instant::now();
        let slow = Rate {
            interval: Duration::from_secs(60),
            burst: 1,
        };
        assert!(bucket.take(slow, now));
        assert!(!bucket.take(slow, now));
        assert!(bucket.take(Rate { burst: 2, ..slow }, now));
    }
}
