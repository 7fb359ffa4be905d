//! Bounds the failure rate of the remaining hosts from the outcomes so far.

use serde::Serialize;
use statrs::function::beta::checked_beta_reg;

/// Confidence level of the bound.
const CONFIDENCE: f64 = 0.95;

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
}

impl Risk {
    /// The risk after `failed` of `known` hosts failed, with `to_do` hosts remaining.
    #[must_use]
    pub fn new(known: u64, failed: u64, to_do: u64) -> Self {
        let upper_bound = upper_bound(known, failed);
        Self {
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
        let risk = Risk::new(300, 0, 13_700);
        assert!((0.0099..0.01).contains(&risk.upper_bound), "{risk:?}");
        assert!((135.0..138.0).contains(&risk.to_do_failing_at_bound));
    }

    proptest! {
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
