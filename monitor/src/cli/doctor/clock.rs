//! Compares the wall clock with the kernel's log, which has what it was set to at boot.

use std::{path::Path, time::Duration};

use crate::kernel::{
    clock,
    kmsg::{KmsgReader, Record},
};
use livepatch_core::{
    doctor::{Check, Status},
    transition::{BootTime, age},
};

const CHECK: &str = "clock";
/// A difference that a slow hardware clock explains.
const TOLERATED: f64 = 60.0;

pub(super) fn checks(kmsg: &Path) -> Vec<Check> {
    let (set, error) = match set_at_boot(kmsg) {
        Ok(set) => (set, None),
        Err(error) => (None, Some(error)),
    };
    let stepped = set.and_then(|(at, unix)| Some(clock::unix_seconds(at)? - unix));
    let mut checks = vec![judge(stepped, is_synchronised())];
    if let Some(error) = error {
        let remedy = "run as root or with CAP_SYSLOG (kernel.dmesg_restrict)";
        checks.push(Check::new("kernel_log", Status::Failure, error, remedy));
    }
    checks
}

fn judge(stepped: Option<f64>, synchronised: Option<bool>) -> Check {
    const SYNCHRONISE: &str = "run chrony or systemd-timesyncd: dates of crashes and the gate's soak \
                               times come from this clock";
    let by = stepped.filter(|by| by.abs() > TOLERATED).map(|by| {
        let amount = age(Duration::try_from_secs_f64(by.abs()).unwrap_or_default());
        let direction = if by > 0.0 { "ahead of" } else { "behind" };
        format!("it is {amount} {direction} what the kernel log says it was set to at the boot")
    });
    match (synchronised, by) {
        (Some(true), None) => Check::ok(CHECK, "the clock is synchronised"),
        (Some(true), Some(by)) => Check::ok(
            CHECK,
            format!(
                "the clock is synchronised now; {by}, so times before it was corrected are wrong"
            ),
        ),
        (Some(false), None) => Check::new(
            CHECK,
            Status::Warning,
            "the kernel says that the clock is not synchronised",
            SYNCHRONISE,
        ),
        (Some(false), Some(by)) => Check::new(
            CHECK,
            Status::Warning,
            format!("the clock is not synchronised, and {by}"),
            SYNCHRONISE,
        ),
        (None, Some(by)) => Check::new(
            CHECK,
            Status::Warning,
            format!("the clock: {by}"),
            SYNCHRONISE,
        ),
        (None, None) => Check::new(
            CHECK,
            Status::Unknown,
            "cannot determine whether the clock is right: the kernel does not say whether it is \
             synchronised",
            "check it with timedatectl or chronyc tracking",
        ),
    }
}

/// Whether the kernel's clock is disciplined (adjtimex(2), `STA_UNSYNC`).
fn is_synchronised() -> Option<bool> {
    // SAFETY: timex is made of integers and padding, for which zero is a valid value; with
    // `modes` 0 the kernel only writes to it.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    (state >= 0).then_some(timex.status & libc::STA_UNSYNC == 0)
}

/// When the kernel set the wall clock, and to what; `None` if its log does not show it (any more).
fn set_at_boot(kmsg: &Path) -> Result<Option<(BootTime, f64)>, String> {
    let mut log = KmsgReader::open(kmsg).map_err(|error| error.to_string())?;
    let mut found = None;
    log.read_all(|record: &Record| {
        if found.is_none() && record.facility == 0 {
            let at = BootTime::from_duration(record.time + clock::suspended());
            found = set_to(&record.text).map(|unix| (at, unix));
        }
    })
    .map_err(|error| error.to_string())?;
    Ok(found)
}

/// `rtc_cmos 00:04: setting system clock to 2026-11-29T08:15:30 UTC (1795940130)`
/// (drivers/rtc/class.c; drivers/rtc/hctosys.c before 5.5).
fn set_to(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("setting system clock to ")?;
    let (_, seconds) = rest.rsplit_once('(')?;
    seconds.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        for (line, expected) in [
            (
                "rtc_cmos 00:04: setting system clock to 2026-11-29T08:15:30 UTC (1795940130)",
                Some(1_795_940_130.0),
            ),
            (
                "rtc_cmos 00:00: setting system clock to 2019-05-01 10:00:00 UTC (1556704800)",
                Some(1_556_704_800.0),
            ),
            ("rtc_cmos 00:04: registered as rtc0", None),
            ("setting system clock to (", None),
        ] {
            assert_eq!(set_to(line), expected, "{line}");
        }
    }

    #[test]
    fn two_hours_off_are_said_and_a_slow_clock_is_not() {
        let judged = |stepped, synchronised| {
            let check = judge(stepped, synchronised);
            (check.status, check.what)
        };
        let (status, what) = judged(Some(-7200.0), Some(false));
        assert_eq!(status, Status::Warning);
        assert!(what.contains("2h behind"), "{what}");
        let (status, what) = judged(Some(7200.0), Some(true));
        assert_eq!(status, Status::Ok);
        assert!(what.contains("2h ahead of"), "{what}");
        assert_eq!(
            judged(Some(59.0), Some(true)).1,
            "the clock is synchronised"
        );
        assert_eq!(judged(None, Some(false)).0, Status::Warning);
        assert_eq!(judged(None, None).0, Status::Unknown);
        assert_eq!(judged(Some(3.0), None).0, Status::Unknown);
        assert_eq!(judged(Some(7200.0), None).0, Status::Warning);
    }
}
