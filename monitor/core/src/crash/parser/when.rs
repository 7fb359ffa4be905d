//! When a line was written, as precisely as the log shows it.

use super::{
    super::record::{Precision, When},
    Anchor,
    date::Kind,
    line::Line,
};

/// From the line itself, or from an earlier line that shows both clocks.
pub(super) fn of(line: &Line, anchor: Option<Anchor>) -> When {
    let (unix_seconds, precision) = match (line.unix, line.uptime, anchor) {
        (Some(unix), _, _) => (Some(unix), Precision::Line),
        (None, Some(uptime), Some(anchor)) => (
            Some(anchor.unix_seconds - anchor.uptime_seconds + uptime),
            Precision::LogClock,
        ),
        _ => match line.date.map(|date| (date.seconds, date.kind)) {
            Some((seconds, Kind::Local)) => (Some(seconds), Precision::LocalTime),
            Some(_) => (None, Precision::NoYear),
            None => (None, Precision::Unknown),
        },
    };
    When {
        uptime_seconds: line.uptime,
        unix_seconds,
        precision,
    }
}

/// Lines that show the wall clock together with the log's: `audit(1795438089.828:1)`, and the RTC's
/// `setting system clock to 2026-11-23T12:48:09 UTC (1795438089)`.
pub(super) fn anchor(line: &Line) -> Option<Anchor> {
    let text = line.text.as_str();
    let digits = if let Some((_, rest)) = text.split_once(" audit(") {
        rest.split_once(':')?.0
    } else {
        let (_, rest) = text.split_once(": setting system clock to ")?;
        rest.rsplit_once('(')?.1.strip_suffix(')')?
    };
    let plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    Some(Anchor {
        unix_seconds: (plain && digits.len() < 20).then(|| digits.parse().ok())??,
        uptime_seconds: line.uptime?,
    })
}
