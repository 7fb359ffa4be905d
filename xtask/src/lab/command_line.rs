//! What the command line of every guest kernel contains.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// How long the frequency is measured: two readings of clocks that are within a
/// microsecond give it to a hundred-thousandth.
const MEASURED: Duration = Duration::from_millis(100);

/// Of so many readings of two clocks the one with the least in between is taken.
const READINGS: usize = 20;

/// Words for a guest whose processor may be an emulated one on a busy machine.
pub(super) fn words() -> Vec<String> {
    let mut words: Vec<String> = [
        "console=ttyS0",
        // A busy host delays the guest's clock watchdog, which would then take the slow
        // HPET for the better clock.
        "tsc=reliable",
        // And the ticks by which the kernel tests the timer (arch/x86/kernel/apic/io_apic.c,
        // check_timer): without them it panics.
        "no_timer_check",
        "panic=1",
    ]
    .map(str::to_owned)
    .into();
    // The kernel measures the counter against the emulated PIT. On a busy host it found 177
    // MHz where there were 2445: the guest's time then ran 14 times too fast.
    static FREQUENCY: OnceLock<Option<u64>> = OnceLock::new();
    if let Some(khz) = FREQUENCY.get_or_init(frequency) {
        words.push(format!("tsc_early_khz={khz}"));
    }
    words
}

/// Of this machine's time stamp counter in kHz, which is the guest's too, emulated or not.
fn frequency() -> Option<u64> {
    let first = reading()?;
    thread::sleep(MEASURED);
    let second = reading()?;
    let nanos = second.1.duration_since(first.1).as_nanos();
    let ticks = u128::from(second.0.checked_sub(first.0)?);
    u64::try_from(ticks * 1_000_000 / nanos.max(1)).ok()
}

/// The counter and the clock at one moment.
fn reading() -> Option<(u64, Instant)> {
    (0..READINGS)
        .filter_map(|_| {
            let before = counter()?;
            let clock = Instant::now();
            let apart = counter()?.wrapping_sub(before);
            Some((apart, before + apart / 2, clock))
        })
        .min_by_key(|(apart, ..)| *apart)
        .map(|(_, counter, clock)| (counter, clock))
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86_64 processor has the instruction, and no program of Linux is kept
    // from it unless it asks for that (prctl(2), PR_SET_TSC).
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequency_is_the_same_each_time() {
        let (Some(one), Some(other)) = (frequency(), frequency()) else {
            return;
        };
        // Half of what the kernel's own later measurement may differ by
        // (arch/x86/kernel/tsc.c, tsc_refine_calibration_work).
        assert!(one.abs_diff(other) <= one / 200, "{one} and {other} kHz");
    }

    #[test]
    fn every_guest_has_a_console_and_ends_at_a_panic() {
        let words = words();
        for word in ["console=ttyS0", "panic=1"] {
            assert!(words.iter().any(|known| known == word), "{words:?}");
        }
    }
}
