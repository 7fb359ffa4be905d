//! One line and what stands before its text: syslog's date and host, `<4>`,
//! `[   12.345678]`, `[ T123]`.

/// Bytes of a line that are looked at; the kernel's own are at most 1024.
const MAX_LINE: usize = 4096;

/// A line without its prefixes.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Seconds on the kernel's clock.
    pub(super) uptime: Option<f64>,
    /// Seconds since 1970, by the program that logged it.
    pub(super) unix: Option<f64>,
    /// Who printed it (`CONFIG_PRINTK_CALLER`): `T12` a task, `C0` a CPU.
    pub(super) caller: Option<String>,
    /// The rest, without white space at its end.
    pub(super) text: String,
}

/// The lines of a text; a carriage return ends one too, as on a serial console.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line> {
    bytes
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.is_empty())
        .map(|line| Line::parse(line.get(..MAX_LINE).unwrap_or(line)))
}

impl Line {
    fn parse(bytes: &[u8]) -> Self {
        let whole = String::from_utf8_lossy(bytes);
        // A console that was cut leaves NUL bytes; they mean nothing anywhere.
        let mut rest = whole.trim_matches('\0').trim_end();
        let mut unix = None;
        if let Some((date, behind)) = syslog(rest) {
            unix = unix_seconds(date);
            rest = behind;
        }
        rest = level(rest);
        let mut uptime = None;
        let mut caller = None;
        if let Some((seconds, behind)) = bracket(rest).and_then(|(inner, behind)| {
            // Digits only: "nan" and "1e9" are numbers elsewhere.
            let plain = inner
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            let seconds: f64 = (plain && inner.contains('.')).then(|| inner.parse().ok())??;
            (inner.len() <= MAX_TIME).then_some((seconds, behind))
        }) {
            uptime = Some(seconds);
            rest = behind;
            if let Some((who, behind)) = bracket(rest).filter(|(who, _)| is_caller(who)) {
                caller = Some(who.to_owned());
                rest = behind;
            }
            rest = rest.strip_prefix(' ').unwrap_or(rest);
        } else if let Some((_, behind)) = bracket(rest).filter(|(inner, _)| is_date(inner)) {
            // `dmesg -T`: local time of an unknown zone.
            rest = behind.strip_prefix(' ').unwrap_or(behind);
        }
        Self {
            uptime,
            unix,
            caller,
            text: rest.to_owned(),
        }
    }
}

/// `18446744073.709551` and some padding.
const MAX_TIME: usize = 24;

/// `<4>` or, with a facility, `<30>`.
fn level(text: &str) -> &str {
    text.strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .filter(|(digits, _)| (1..=3).contains(&digits.len()))
        .filter(|(digits, _)| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(text, |(_, rest)| rest)
}

/// `[  inner]` at the start.
fn bracket(text: &str) -> Option<(&str, &str)> {
    let (inner, behind) = text.trim_start().strip_prefix('[')?.split_once(']')?;
    Some((inner.trim(), behind))
}

fn is_caller(text: &str) -> bool {
    text.strip_prefix(['T', 'C'])
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Mon Nov 23 12:48:09 2026`
fn is_date(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace().skip(1);
    words.next().is_some_and(|month| MONTHS.contains(&month)) && words.count() == 3
}

/// `DATE HOST kernel: `, where the date is `Nov 23 12:48:09` or of RFC 3339.
fn syslog(text: &str) -> Option<(&str, &str)> {
    let (before, behind) = text.split_once(" kernel: ")?;
    let first = before.split_ascii_whitespace().next()?;
    let dated = MONTHS.contains(&first) || unix_seconds(first).is_some();
    (dated && before.len() < 160).then_some((first, behind))
}

/// Of `2026-11-23T12:48:09.123456+01:00`.
fn unix_seconds(text: &str) -> Option<f64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone_at = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone_at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let fraction = number(fraction.get(..6).unwrap_or(fraction))
        .zip(i32::try_from(fraction.len().min(6)).ok())
        .map(|(digits, places)| f64::from(digits) / 10f64.powi(places))?;
    let offset = match zone.split_at_checked(1)? {
        ("Z", _) => 0,
        (sign, zone) => {
            let hours = number(zone.get(..2)?)?;
            let minutes = number(zone.get(2..)?.trim_start_matches(':'))?;
            let offset = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            if sign == "-" { -offset } else { offset }
        }
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let whole = days(i64::from(year), i64::from(month), i64::from(day)) * 86400 + seconds - offset;
    i32::try_from(whole / 65536)
        .ok()
        .zip(i32::try_from(whole % 65536).ok())
        .map(|(high, low)| f64::from(high) * 65536.0 + f64::from(low) + fraction)
}

fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, uptime: Option<f64>, unix: Option<f64>, caller: Option<&str>, text: &str) {
        let expected = Line {
            uptime,
            unix,
            caller: caller.map(str::to_owned),
            text: text.to_owned(),
        };
        assert_eq!(Line::parse(line.as_bytes()), expected);
    }

    #[test]
    fn every_prefix() {
        check("plain", None, None, None, "plain");
        check(
            "[   12.345678]  f+0x1/0x2",
            Some(12.345_678),
            None,
            None,
            " f+0x1/0x2",
        );
        check("<4>[ 12.3] x", Some(12.3), None, None, "x");
        check("[   12.5][ T123] x", Some(12.5), None, Some("T123"), "x");
        check(
            "<0>[   12.5][    C0]  x ",
            Some(12.5),
            None,
            Some("C0"),
            " x",
        );
        check(
            "Nov 23 12:48:09 web-1 kernel: [   12.5] x",
            Some(12.5),
            None,
            None,
            "x",
        );
        check(
            "2026-11-23T12:48:09.250000+01:00 web-1 kernel: x",
            None,
            Some(1_795_434_489.25),
            None,
            "x",
        );
        check("[Mon Nov 23 12:48:09 2026] x", None, None, None, "x");
        check(
            "[Hardware Error]: x",
            None,
            None,
            None,
            "[Hardware Error]: x",
        );
        check("<TASK>", None, None, None, "<TASK>");
        check("\0\0[ 1.0] x\0", Some(1.0), None, None, "x");
    }

    #[test]
    fn a_carriage_return_ends_a_line() {
        let texts: Vec<String> = lines(b"a\r\nb\rc\n\n").map(|line| line.text).collect();
        assert_eq!(texts, ["a", "b", "c"]);
    }
}
