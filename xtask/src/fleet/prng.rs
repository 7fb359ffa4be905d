//! Pseudo-random numbers that are the same in every run: a hash of a seed and a number.

/// Uniformly distributed in [0, 1).
pub(super) fn uniform(seed: u64, number: usize) -> f64 {
    let number = u64::try_from(number).unwrap_or(u64::MAX);
    // splitmix64, whose first output for adjacent seeds is already unrelated.
    let mut hash = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // The upper 32 bits, which a float represents exactly.
    let upper = u32::try_from(hash >> 32).unwrap_or(u32::MAX);
    f64::from(upper) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::uniform;

    #[test]
    fn chance_is_even_and_repeats() {
        let draws: Vec<f64> = (0..10_000).map(|number| uniform(7, number)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        for tenth in 0..10 {
            let from = f64::from(tenth) / 10.0;
            let within = draws
                .iter()
                .filter(|draw| (from..from + 0.1).contains(*draw))
                .count();
            assert!((900..1_100).contains(&within), "{within} in tenth {tenth}");
        }
        assert_eq!(uniform(7, 3).to_bits(), uniform(7, 3).to_bits());
        assert_ne!(uniform(7, 3).to_bits(), uniform(8, 3).to_bits());
    }
}
