//! Bounds the failure rate of the remaining hosts from the outcomes so far.

use std::{fmt, str::FromStr};

use serde::Serialize;
use statrs::function::beta::checked_beta_reg;

/// Confidence level of the bound.
const CONFIDENCE: f64 = 0.95;

/// The highest risk that is allowed for the hosts that get the patch next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRisk {
    /// This share of them may fail, above 0 and at most 1.
    Share(f64),
    /// This many of them may fail.
    Hosts(u64),
}

impl MaxRisk {
    /// The probability of failure that is allowed for each of the next hosts.
    fn share_of(self, next: u64) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::Hosts(hosts) => float(hosts) / float(next.max(1)),
        }
    }
}

impl fmt::Display for MaxRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{} %", share * 100.0),
            Self::Hosts(hosts) => write!(f, "{hosts}"),
        }
    }
}

impl FromStr for MaxRisk {
    type Err = &'static str;

    /// Parses `1%` or a number of hosts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REMEDY: &str = "not a percentage above 0 or a number of hosts above 0; write 1% or 3";
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim_end().parse().map_err(|_| REMEDY)?;
            let allowed = percent > 0.0 && percent <= 100.0;
            return allowed
                .then_some(Self::Share(percent / 100.0))
                .ok_or(REMEDY);
        }
        match text.parse() {
            Ok(0) | Err(_) => Err(REMEDY),
            Ok(hosts) => Ok(Self::Hosts(hosts)),
        }
    }
}

/// The remaining risk of the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Risk {
    /// Hosts that got the patch and whose outcome is known: soaked or failed.
    pub known: u64,
    /// Hosts with a known outcome that failed: crashed or silent.
    pub failed: u64,
    /// Upper bound, with 95 % confidence, of the probability that a host fails: the
    /// one-sided Clopper-Pearson bound.
    pub upper_bound: f64,
    /// Hosts that are up without the patch.
    pub to_do: u64,
    /// How many of the remaining hosts would fail at that bound.
    pub to_do_failing_at_bound: f64,
    /// Hosts that are to get the patch next.
    pub next: u64,
    /// How many of these would fail at that bound.
    pub next_failing_at_bound: f64,
    /// How many more hosts must soak, none of them failing, until the risk of the next hosts is
    /// as low as required; `None` if nothing is required or no number is enough.
    pub more_to_soak: Option<u64>,
}

impl Risk {
    /// The risk after `failed` of `known` hosts failed, with `to_do` hosts remaining, of which
    /// `next` are to follow (all if not given) with a risk of at most `limit`.
    #[must_use]
    pub fn new(
        known: u64,
        failed: u64,
        to_do: u64,
        next: Option<u64>,
        limit: Option<MaxRisk>,
    ) -> Self {
        let upper_bound = upper_bound(known, failed);
        let next = next.unwrap_or(to_do);
        let more = |limit: MaxRisk| more_to_soak(known, failed, limit.share_of(next));
        Self {
            next,
            next_failing_at_bound: upper_bound * float(next),
            more_to_soak: limit.and_then(more),
            known,
            failed,
            upper_bound,
            to_do,
            to_do_failing_at_bound: upper_bound * float(to_do),
        }
    }
}

/// The largest failure probability at which at most `failed` of `known` failures would
/// still be observed with probability 5 %. It is 1 if nothing is known.
fn upper_bound(known: u64, failed: u64) -> f64 {
    if failed >= known {
        return 1.0;
    }
    // P(X <= k | p) = 1 - I_p(k + 1, n - k), which falls as p grows.
    let (a, b) = (float(failed) + 1.0, float(known - failed));
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // Bisect until no number lies between the two.
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return high;
        }
        // Invalid arguments leave the bound high.
        if checked_beta_reg(a, b, middle).is_ok_and(|share| share < CONFIDENCE) {
            low = middle;
        } else if high - low < f64::EPSILON * high {
            return high;
        } else {
            high = middle;
        }
    }
}

/// Most hosts for which it is worked out how many must soak.
const MOST: u64 = 1 << 32;

/// How many more hosts must soak until the upper bound is at most `share`.
fn more_to_soak(known: u64, failed: u64, share: f64) -> Option<u64> {
    let enough = |more: u64| upper_bound(known.saturating_add(more), failed) <= share;
    // With nothing allowed to be uncertain, no host has to be known.
    if share >= 1.0 {
        return Some(0);
    }
    let mut high = 1_u64;
    while !enough(high) {
        high *= 2;
        if high > MOST {
            return None;
        }
    }
    if enough(0) {
        return Some(0);
    }
    // The bound falls with every good host: not enough at `low`, enough at `high`.
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low.midpoint(high);
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// Converts a number of hosts; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "numbers of hosts are small")]
const fn float(hosts: u64) -> f64 {
    hosts as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// P(X <= k) of a binomial, term by term.
    fn cumulative(n: u64, k: u64, p: f64) -> f64 {
        let mut term = float(n) * (-p).ln_1p();
        let odds = p.ln() - (-p).ln_1p();
        let mut sum = 0.0;
        for i in 0..=k {
            sum += term.exp();
            term += float(n - i).ln() - float(i + 1).ln() + odds;
        }
        sum
    }

    #[test]
    fn nothing_known_bounds_nothing() {
        for (known, failed) in [(0, 0), (1, 1), (5, 5)] {
            assert!(upper_bound(known, failed) >= 1.0);
        }
    }

    #[test]
    fn no_failure_is_the_textbook_formula() {
        for known in [1, 2, 10, 140, 14_000] {
            let formula = 1.0 - 0.05_f64.powf(1.0 / float(known));
            let bound = upper_bound(known, 0);
            assert!((bound - formula).abs() < 1e-9 * formula, "{known}: {bound}");
        }
    }

    #[test]
    fn three_hundred_good_runs_bound_it_near_a_percent() {
        let risk = Risk::new(300, 0, 13_700, None, None);
        assert!((0.0099..0.01).contains(&risk.upper_bound), "{risk:?}");
        assert!((135.0..138.0).contains(&risk.to_do_failing_at_bound));
    }

    #[test]
    fn how_many_more_must_soak() {
        let more = |known, failed, next, limit: &str| {
            let limit = limit.parse().unwrap();
            Risk::new(known, failed, 14_000, Some(next), Some(limit)).more_to_soak
        };
        // The rule of three: 299 good hosts bound it below 1 %.
        assert_eq!(more(0, 0, 100, "1%"), Some(299));
        assert_eq!(more(298, 0, 100, "1%"), Some(1));
        assert_eq!(more(299, 0, 100, "1%"), Some(0));
        // At most 3 lost allows to double the number of hosts each time.
        for known in [1, 4, 16, 64, 256, 1024] {
            assert_eq!(more(known, 0, known, "3"), Some(0), "{known}");
        }
        assert_eq!(more(4, 0, 8, "3"), Some(3));
        assert!(more(299, 1, 100, "1%").is_some_and(|more| more > 100));
        // As many as follow may fail.
        assert_eq!(more(0, 0, 3, "3"), Some(0));
        assert_eq!(more(0, 0, 10, "100%"), Some(0));
        assert_eq!(more(0, 0, 10, "0.0000000001%"), None);
    }

    #[test]
    fn invalid_limits() {
        for text in [
            "", "0", "0%", "101%", "-1%", "NaN%", "inf%", "1.5", "0.01", "1 host",
        ] {
            assert!(text.parse::<MaxRisk>().is_err(), "{text}");
        }
        assert_eq!("1%".parse(), Ok(MaxRisk::Share(0.01)));
        assert_eq!("3".parse(), Ok(MaxRisk::Hosts(3)));
    }

    proptest! {
        #[test]
        fn so_many_are_needed_and_no_fewer(
            known in 0..3_000_u64, failed in 0..3_u64, percent in 1..100_u32
        ) {
            let share = f64::from(percent) / 100.0;
            let more = more_to_soak(known, failed, share).unwrap();
            prop_assert!(upper_bound(known + more, failed) <= share);
            prop_assert!(more == 0 || upper_bound(known + more - 1, failed) > share);
        }

        #[test]
        fn at_the_bound_so_few_failures_are_seen_once_in_twenty(
            known in 1..20_000_u64, share in 0.0..1.0_f64
        ) {
            // Truncation: any number below `known` will do.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]
            let failed = (share * share * float(known)) as u64;
            prop_assume!(failed < known);
            let seen = cumulative(known, failed, upper_bound(known, failed));
            prop_assert!((seen - 0.05).abs() < 1e-6, "{}", seen);
        }

        #[test]
        fn more_good_runs_never_raise_it(known in 1..5_000_u64, failed in 0..50_u64) {
            prop_assume!(failed < known);
            prop_assert!(upper_bound(known + 1, failed) <= upper_bound(known, failed));
            prop_assert!(upper_bound(known, failed + 1) >= upper_bound(known, failed));
        }
    }
}
