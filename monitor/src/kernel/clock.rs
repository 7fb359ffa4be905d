//! The clocks of the running system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use livepatch_core::transition::BootTime;

/// How often two clocks are compared. Between its two reads a thread may be kept waiting
/// for a processor, which makes the second one late and the difference smaller: the
/// greatest difference is the best.
const READS: usize = 5;

/// Time since boot, suspend included (`CLOCK_BOOTTIME`): what the BPF programs
/// stamp events with.
#[must_use]
pub fn boot_time() -> BootTime {
    BootTime::from_nanos(nanos(ClockId::Boottime))
}

/// How far `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`, which the kernel log
/// is stamped with: the time spent in suspend.
#[must_use]
pub fn suspended() -> Duration {
    let ahead = || nanos(ClockId::Boottime).saturating_sub(nanos(ClockId::Monotonic));
    Duration::from_nanos((0..READS).map(|_| ahead()).max().unwrap_or(0))
}

/// Seconds since the Unix epoch at a moment since boot, to the millisecond.
/// `None` where the wall clock is set before the epoch or before the boot.
#[must_use]
pub fn unix_seconds(time: BootTime) -> Option<f64> {
    let at = || {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        wall.checked_sub(boot_time().since(time)?)
    };
    let millis = (0..READS).filter_map(|_| at()).max()?.as_millis();
    Some(
        f64::from(u32::try_from(millis / 1000).ok()?)
            + f64::from(u32::try_from(millis % 1000).ok()?) / 1000.0,
    )
}

/// What the calling thread has cost: CPU time, not the time it was kept waiting.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    Duration::from_nanos(nanos(ClockId::ThreadCPUTime))
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
