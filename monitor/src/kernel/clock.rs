//! The clocks of the running system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use livepatch_core::transition::BootTime;

/// How many times two clocks are compared. If the thread is preempted between the two reads, the
/// second one is late and the difference too small, so the largest difference is the best.
const READS: usize = 5;

/// Time since boot, including suspend (`CLOCK_BOOTTIME`): the clock of the BPF programs'
/// timestamps.
#[must_use]
pub fn boot_time() -> BootTime {
    BootTime::from_nanos(nanos(ClockId::Boottime))
}

/// How far `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`, the clock of the kernel log: the time
/// spent in suspend.
#[must_use]
pub fn suspended() -> Duration {
    let ahead = || nanos(ClockId::Boottime).saturating_sub(nanos(ClockId::Monotonic));
    Duration::from_nanos((0..READS).map(|_| ahead()).max().unwrap_or(0))
}

/// Converts a time since boot to seconds since the Unix epoch, rounded to milliseconds. `None` if
/// the wall clock is set to a time before the epoch or before the boot.
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

/// The CPU time that the calling thread has used.
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
