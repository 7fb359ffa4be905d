//! Parses the date in front of a line, in the formats of programs that keep logs.

/// How complete a date is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Kind {
    /// Complete: the zone is given, or it is seconds since 1970.
    Exact,
    /// The zone is not given: local time, read as if it were UTC.
    Local,
    /// Neither year nor zone: seconds since the start of the leap year 2000.
    NoYear,
    /// The time of day only.
    TimeOfDay,
    /// Seconds since the line before (`dmesg --reltime`, `dmesg --show-delta`).
    Delta,
}

/// A date as it is shown in a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Date {
    /// Seconds, counted from the start that `kind` defines.
    pub(in super::super) seconds: f64,
    /// The start, and how well it is known.
    pub(in super::super) kind: Kind,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// The date at the start of a text, and the text after it.
pub(super) fn at_start(text: &str) -> Option<(Date, &str)> {
    let mut cursor = Cursor { rest: text };
    let date = match text.as_bytes().first()? {
        b'A'..=b'Z' => cursor.named(),
        b'0'..=b'9' => cursor
            .try_each(Cursor::iso)
            .or_else(|| cursor.try_each(Cursor::day_first))
            .or_else(|| cursor.try_each(Cursor::epoch))
            .or_else(|| cursor.try_each(Cursor::time_of_day)),
        b'@' => {
            cursor.rest = text.get(1..)?;
            cursor.try_each(Cursor::tai64n).or_else(|| cursor.epoch())
        }
        _ => None,
    }?;
    // A longer word is not a date.
    let ends = !cursor
        .rest
        .starts_with(|next: char| next.is_ascii_alphanumeric());
    ends.then_some((date, cursor.rest))
}

/// A text inside brackets that consists of a date only.
pub(super) fn whole(text: &str) -> Option<Date> {
    if let Some(delta) = delta(text) {
        return Some(delta);
    }
    if let Some((date, rest)) = at_start(text) {
        return rest.trim().is_empty().then_some(date);
    }
    // `dmesg --reltime` shows the minute where it changes: `Nov23 12:15`.
    let mut cursor = Cursor { rest: text };
    let month = cursor.month()?;
    let day = cursor.number(1, 2)?;
    cursor.spaces(1)?;
    let hour = cursor.number(2, 2)?;
    cursor.byte(b':')?;
    let minute = cursor.number(2, 2)?;
    cursor.rest.is_empty().then_some(())?;
    let seconds = moment(2000, month, day, (hour, minute, 0), 0.0)? - YEAR_2000;
    Some(Date {
        seconds,
        kind: Kind::NoYear,
    })
}

/// `+0.100000` (`--reltime`), `<    0.100000>` (`--show-delta --notime`).
fn delta(text: &str) -> Option<Date> {
    let number = match text.strip_prefix('<') {
        Some(rest) => rest.strip_suffix('>')?.trim(),
        None => text.strip_prefix('+')?,
    };
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    (number.len() < 24 && number.bytes().all(plain)).then_some(())?;
    Some(Date {
        seconds: number.parse().ok()?,
        kind: Kind::Delta,
    })
}

/// Seconds since 1970 of the start of 2000.
const YEAR_2000: f64 = 946_684_800.0;

fn moment(year: u32, month: u32, day: u32, clock: (u32, u32, u32), fraction: f64) -> Option<f64> {
    let (hour, minute, second) = clock;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    valid.then_some(())?;
    let days = days(i32::try_from(year).ok()?, month, day)?;
    let seconds = f64::from(hour * 3600 + minute * 60 + second);
    Some(f64::from(days) * 86400.0 + seconds + fraction)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i32, month: u32, day: u32) -> Option<i32> {
    // Years that start in March have the leap day at their end.
    let year = if month <= 2 { year - 1 } else { year };
    let month = i32::try_from((month + 9) % 12).ok()?;
    let day = i32::try_from(day).ok()?;
    Some(
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468,
    )
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    /// Restores the position if `read` fails.
    fn try_each(&mut self, read: fn(&mut Self) -> Option<Date>) -> Option<Date> {
        let start = self.rest;
        let date = read(self);
        if date.is_none() {
            self.rest = start;
        }
        date
    }

    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let digits = self
            .rest
            .bytes()
            .take(most)
            .take_while(u8::is_ascii_digit)
            .count();
        (digits >= least).then_some(())?;
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        number.parse().ok()
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        (*self.rest.as_bytes().first()? == byte).then_some(())?;
        self.rest = self.rest.get(1..)?;
        Some(())
    }

    fn any(&mut self, bytes: &[u8]) -> Option<u8> {
        let first = *self.rest.as_bytes().first()?;
        bytes.contains(&first).then_some(())?;
        self.rest = self.rest.get(1..)?;
        Some(first)
    }

    fn spaces(&mut self, least: usize) -> Option<()> {
        let rest = self.rest.trim_start_matches(' ');
        (self.rest.len() - rest.len() >= least).then_some(())?;
        self.rest = rest;
        Some(())
    }

    fn one_of(&mut self, names: &[&str]) -> Option<u32> {
        let name = self.rest.get(..3)?;
        let at = names.iter().position(|known| *known == name)?;
        self.rest = self.rest.get(3..)?;
        u32::try_from(at).ok()
    }

    fn month(&mut self) -> Option<u32> {
        Some(self.one_of(&MONTHS)? + 1)
    }

    fn clock(&mut self) -> Option<((u32, u32, u32), f64)> {
        let hour = self.number(1, 2)?;
        self.byte(b':')?;
        let minute = self.number(2, 2)?;
        self.byte(b':')?;
        let second = self.number(2, 2)?;
        let followed = |rest: &str| rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let fraction = match followed(self.rest) {
            true if self.any(b".,").is_some() => self.fraction()?,
            _ => 0.0,
        };
        (hour < 24 && minute < 60 && second <= 60).then_some(((hour, minute, second), fraction))
    }

    fn fraction(&mut self) -> Option<f64> {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        let number = number.get(..digits.min(9))?;
        let scale = 10f64.powi(i32::try_from(number.len()).ok()?);
        Some(f64::from(number.parse::<u32>().ok()?) / scale)
    }

    /// `Z`, `+01:00`, ` +0100`, ` UTC`, ` GMT`; any other name gives no offset.
    fn zone(&mut self) -> Option<f64> {
        let rest = self.rest.strip_prefix(' ').unwrap_or(self.rest);
        for name in ["UTC", "GMT", "Z"] {
            if let Some(behind) = rest.strip_prefix(name)
                && !behind.starts_with(|next: char| next.is_ascii_alphanumeric())
            {
                self.rest = behind;
                return Some(0.0);
            }
        }
        let mut cursor = Cursor { rest };
        if let Some(sign) = cursor.any(b"+-")
            && let Some(hours) = cursor.number(2, 2)
        {
            let _ = cursor.byte(b':');
            let minutes = cursor.number(2, 2).unwrap_or(0);
            let offset = f64::from(hours * 3600 + minutes * 60);
            self.rest = cursor.rest;
            return Some(if sign == b'-' { -offset } else { offset });
        }
        // `CET`, `AEST`: there is more than one zone with such a name.
        let letters = rest.bytes().take_while(u8::is_ascii_uppercase).count();
        let named = (2..=5).contains(&letters) && rest.len() != self.rest.len();
        if named && rest.as_bytes().get(letters) == Some(&b' ') {
            self.rest = rest.get(letters..).unwrap_or_default();
        }
        None
    }

    fn zoned(&mut self, seconds: f64) -> Date {
        match self.zone() {
            Some(offset) => Date {
                seconds: seconds - offset,
                kind: Kind::Exact,
            },
            None => Date {
                seconds,
                kind: Kind::Local,
            },
        }
    }

    /// `2026-11-23T12:15:00.100000+00:00` and similar.
    fn iso(&mut self) -> Option<Date> {
        let year = self.number(4, 4)?;
        let between = self.any(b"-/.")?;
        let month = self.number(2, 2)?;
        self.byte(between)?;
        let day = self.number(2, 2)?;
        self.any(b"T _-:")?;
        self.at_clock(year, month, day)
    }

    /// `23 Nov 2026 12:15:00`, `23/Nov/2026:12:15:00 +0000`
    fn day_first(&mut self) -> Option<Date> {
        let day = self.number(1, 2)?;
        let between = self.any(b" -/")?;
        let month = self.month()?;
        self.byte(between)?;
        let year = self.number(4, 4)?;
        self.any(b" :")?;
        self.at_clock(year, month, day)
    }

    /// The rest of a date after its day: the time of day and the zone.
    fn at_clock(&mut self, year: u32, month: u32, day: u32) -> Option<Date> {
        let (clock, fraction) = self.clock()?;
        let seconds = moment(year, month, day, clock, fraction)?;
        Some(self.zoned(seconds))
    }

    /// Seconds since 1970 with a fraction: `1795436100.100000`.
    fn epoch(&mut self) -> Option<Date> {
        let seconds = self.number(10, 10).filter(|number| *number >= 1 << 29)?;
        self.byte(b'.')?;
        let fraction = self.fraction()?;
        Some(Date {
            seconds: f64::from(seconds) + fraction,
            kind: Kind::Exact,
        })
    }

    /// `4000000067421e0a00000000`, as multilog and svlogd write it: 2^62 plus seconds of TAI,
    /// which daemontools count as 10 ahead of UTC, then nanoseconds.
    fn tai64n(&mut self) -> Option<Date> {
        let (label, rest) = self.rest.split_at_checked(24)?;
        let (seconds, nanos) = label.split_at_checked(16)?;
        let seconds = u64::from_str_radix(seconds, 16).ok()?;
        let nanos = u32::from_str_radix(nanos, 16).ok()?;
        let unix = seconds.checked_sub((1 << 62) + 10)?;
        let unix = u32::try_from(unix).ok()?;
        self.rest = rest;
        Some(Date {
            seconds: f64::from(unix) + f64::from(nanos) / 1e9,
            kind: Kind::Exact,
        })
    }

    fn time_of_day(&mut self) -> Option<Date> {
        let ((hour, minute, second), fraction) = self.clock()?;
        Some(Date {
            seconds: f64::from(hour * 3600 + minute * 60 + second) + fraction,
            kind: Kind::TimeOfDay,
        })
    }

    /// Dates that start with the name of a day or month.
    fn named(&mut self) -> Option<Date> {
        let weekday = self.one_of(&WEEKDAYS).is_some();
        if weekday {
            let _ = self.byte(b',');
            self.spaces(1)?;
            // `journalctl -o short-full`, an HTTP date.
            if self.rest.starts_with(|first: char| first.is_ascii_digit()) {
                return self
                    .try_each(Self::iso)
                    .or_else(|| self.try_each(Self::day_first));
            }
        }
        let month = self.month()?;
        self.spaces(1)?;
        let day = self.number(1, 2)?;
        self.spaces(1)?;
        // `Nov 23 2026 12:15:00`
        let start = self.rest;
        let mut year = self.number(4, 4);
        if year.is_none() || self.spaces(1).is_none() {
            (year, self.rest) = (None, start);
        }
        let (clock, fraction) = self.clock()?;
        if year.is_none() {
            return self.year_last(month, day, clock, fraction);
        }
        let seconds = moment(year?, month, day, clock, fraction)?;
        Some(self.zoned(seconds))
    }

    /// ` 2026`, ` UTC 2026`, ` +0000 2026`, or no year at all.
    fn year_last(
        &mut self,
        month: u32,
        day: u32,
        clock: (u32, u32, u32),
        fraction: f64,
    ) -> Option<Date> {
        let start = self.rest;
        let offset = self.zone();
        let year = self.spaces(1).and_then(|()| self.number(4, 4));
        let ends = !self
            .rest
            .starts_with(|next: char| next.is_ascii_alphanumeric() || next == '.');
        if let Some(year) = year.filter(|_| ends)
            && let Some(seconds) = moment(year, month, day, clock, fraction)
        {
            return Some(match offset {
                Some(offset) => Date {
                    seconds: seconds - offset,
                    kind: Kind::Exact,
                },
                None => Date {
                    seconds,
                    kind: Kind::Local,
                },
            });
        }
        self.rest = start;
        Some(Date {
            seconds: moment(2000, month, day, clock, fraction)? - YEAR_2000,
            kind: Kind::NoYear,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_many_programs() {
        let exact = 1_795_436_100.0;
        for (text, seconds, kind, rest) in [
            ("2026-11-23T12:15:00Z x", exact, Kind::Exact, " x"),
            (
                "2026-11-23T12:15:00,250000+00:00 x",
                exact + 0.25,
                Kind::Exact,
                " x",
            ),
            (
                "2026-11-23T13:15:00.25+0100 x",
                exact + 0.25,
                Kind::Exact,
                " x",
            ),
            ("2026-11-23 12:15:00 [x", exact, Kind::Local, " [x"),
            ("2026/11/23 12:15:00 x", exact, Kind::Local, " x"),
            (
                "2026-11-23 12:15:00.5 UTC x",
                exact + 0.5,
                Kind::Exact,
                " x",
            ),
            ("Mon 2026-11-23 12:15:00 UTC a", exact, Kind::Exact, " a"),
            ("Mon 2026-11-23 12:15:00 CET a", exact, Kind::Local, " a"),
            ("Mon Nov 23 12:15:00 2026", exact, Kind::Local, ""),
            ("Mon Nov 23 12:15:00 UTC 2026 x", exact, Kind::Exact, " x"),
            ("Nov 23 2026 12:15:00 x", exact, Kind::Local, " x"),
            ("23 Nov 2026 12:15:00 x", exact, Kind::Local, " x"),
            ("1795436100.5 x", exact + 0.5, Kind::Exact, " x"),
            (
                "@400000006b042e4e1dcd6500 x",
                exact + 0.5,
                Kind::Exact,
                " x",
            ),
            ("12:15:00.5 x", 44_100.5, Kind::TimeOfDay, " x"),
            ("Jan  2 00:00:01 x", 86_401.0, Kind::NoYear, " x"),
        ] {
            assert_eq!(
                at_start(text),
                Some((Date { seconds, kind }, rest)),
                "{text}"
            );
        }
        for text in [
            "900.100000",
            "2026-13-23T12:15:00Z",
            "Novel 1",
            "12:15",
            "ab",
            "Nov 23",
            "",
        ] {
            assert_eq!(at_start(text), None, "{text}");
        }
    }

    #[test]
    fn dates_in_brackets() {
        for (text, seconds, kind) in [
            ("+0.100000", 0.1, Kind::Delta),
            ("<    0.250000>", 0.25, Kind::Delta),
            ("Jan02 00:01", 86_460.0, Kind::NoYear),
            ("2026-11-23 12:15:00", 1_795_436_100.0, Kind::Local),
        ] {
            assert_eq!(whole(text), Some(Date { seconds, kind }), "{text}");
        }
        assert_eq!(whole("2026-11-23 12:15:00 x"), None);
        assert_eq!(whole("Hardware Error"), None);
    }
}
