//! When something happened, and how precisely that is known.

use serde::{Deserialize, Serialize};

/// A clock that nobody has set correctly is off by no more than this: a day, in another time zone.
/// What is further away happened at another time.
pub const CLOCK_WRONG_SECONDS: f64 = 26.0 * 3600.0;
/// A date before this (2017) is that of a firmware clock that was never set, and is ignored.
pub const NEVER_SET_BEFORE: f64 = 1.5e9;
/// The log's clock (`local_clock()`) and the boot's may drift apart by this fraction of the uptime.
/// One report has 10 hours after some weeks.
pub const DRIFT: f64 = 0.02;
/// How far the two clocks may differ even in a boot that has just started.
const LEAST_DRIFT_SECONDS: f64 = 5.0;
/// Two readings of a correct clock for one moment differ by no more than this.
const SAME_MOMENT_SECONDS: f64 = 15.0;
/// By how much clocks that are set correctly may disagree.
const SLACK_SECONDS: f64 = 60.0;

/// How precisely [`When::unix_seconds`] is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// No date is known.
    Unknown,
    /// The log's dates have no year (or day), so that there is no number to give.
    NoYear,
    /// It was then or later: the last known time of a boot that ended without a message.
    After,
    /// The line has a local time without its zone: the number is that time read as if it were UTC,
    /// which is wrong by up to 14 hours.
    LocalTime,
    /// The date of the dump's file: when the crash kernel wrote it, by the firmware's
    /// clock, minutes after the crash.
    File,
    /// From an earlier line in the log that has both clocks: as accurate as the machine's clock was
    /// at that line.
    LogClock,
    /// From the journal's two clocks and the uptime: as accurate as the log's clock after the
    /// journal's last entry.
    Journal,
    /// From the number or the time of a pstore record, to about a second.
    Dump,
    /// The line itself has the time at which a program logged it.
    Line,
}

/// When a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct When {
    /// Seconds on the log's own clock, which starts with the boot.
    pub uptime_seconds: Option<f64>,
    /// Seconds since 1970, UTC.
    pub unix_seconds: Option<f64>,
    /// How precisely the latter is known.
    pub precision: Precision,
}

impl When {
    /// Whether the date, if there is one, is correct within its precision and not off by a time
    /// zone.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        self.precision != Precision::LocalTime
    }

    /// By how much the log's clock may differ from the boot's at that moment.
    #[must_use]
    pub fn drift_seconds(&self) -> f64 {
        let uptime = self.uptime_seconds.unwrap_or(0.0).max(0.0);
        LEAST_DRIFT_SECONDS + uptime * DRIFT
    }

    /// Whether the date was read from the system's clock when it happened.
    #[must_use]
    pub fn is_of_system(&self) -> bool {
        let precise = matches!(self.precision, Precision::Dump | Precision::Line);
        self.unix_seconds.is_some() && precise
    }

    /// Whether two dates may be of one moment, given the precision of each.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let (Some(first), Some(second)) = (self.unix_seconds, other.unix_seconds) else {
            return true;
        };
        let (Some(of_one), Some(of_other)) = (self.tolerance(), other.tolerance()) else {
            return true;
        };
        // One text parsed twice gives the same date, right or wrong.
        let tolerance = match self.precision == other.precision {
            true => 0.0,
            false => of_one.max(of_other),
        };
        (first - second).abs() < SAME_MOMENT_SECONDS + tolerance
    }

    /// By how much the date may be wrong; `None` if there is no date to compare.
    fn tolerance(&self) -> Option<f64> {
        match self.precision {
            Precision::Line | Precision::Dump => Some(0.0),
            Precision::Journal => Some(SLACK_SECONDS + self.drift_seconds()),
            Precision::LogClock | Precision::File => Some(CLOCK_WRONG_SECONDS),
            Precision::Unknown | Precision::NoYear | Precision::After | Precision::LocalTime => {
                None
            }
        }
    }
}
