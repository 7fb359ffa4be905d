//! One clock for each host, with which lines with and without the kernel's time can be ordered and
//! the time between them determined.

use std::collections::HashMap;

use super::super::date::{Date, Kind};

/// Hosts whose clocks are remembered.
const MAX_HOSTS: usize = 256;
const DAY: f64 = 86400.0;

#[derive(Debug, Default)]
pub(super) struct Clocks {
    hosts: HashMap<Option<String>, Clock>,
    /// Whose the last line was.
    last: Option<String>,
}

#[derive(Debug, Default)]
struct Clock {
    /// The kind of date that is the clock where there is no kernel's time.
    base: Option<Kind>,
    /// A kind of date less the kernel's time.
    offset: Option<(Kind, f64)>,
    stamped: bool,
    last: Option<Date>,
}

impl Clocks {
    /// The time on the host's clock: the kernel's where the log has it. And the date,
    /// with what it leaves out counted on from the line before.
    pub(super) fn read(
        &mut self,
        host: Option<&str>,
        date: Option<Date>,
        uptime: Option<f64>,
    ) -> (Option<f64>, Option<Date>) {
        // A line that names no host is of the one that wrote last; the first that is
        // named is the one that had no name so far.
        let host = host.map(str::to_owned).or_else(|| self.last.clone());
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host) {
            self.hosts.clear();
        }
        if !self.hosts.contains_key(&host)
            && let Some(nameless) = self.hosts.remove(&None)
        {
            self.hosts.insert(host.clone(), nameless);
        }
        self.last.clone_from(&host);
        self.hosts.entry(host).or_default().read(date, uptime)
    }
}

impl Clock {
    fn read(&mut self, date: Option<Date>, uptime: Option<f64>) -> (Option<f64>, Option<Date>) {
        let date = date.map(|date| self.counted_on(date));
        self.last = date.or(self.last);
        if let Some(uptime) = uptime {
            self.stamped = true;
            if let Some(date) = date {
                self.offset = Some((date.kind, date.seconds - uptime));
            }
            return (Some(uptime), date);
        }
        let clock = date.and_then(|date| match self.offset {
            Some((kind, offset)) => (kind == date.kind).then_some(date.seconds - offset),
            None if self.stamped => None,
            None => {
                let base = *self.base.get_or_insert(date.kind);
                (base == date.kind).then_some(date.seconds)
            }
        });
        (clock, date)
    }

    fn counted_on(&self, date: Date) -> Date {
        let Some(last) = self.last else {
            return date;
        };
        match date.kind {
            Kind::Delta => Date {
                seconds: last.seconds + date.seconds,
                kind: last.kind,
            },
            // Past midnight, past the end of the year.
            Kind::TimeOfDay if last.kind == date.kind => past(date, last, DAY),
            Kind::NoYear if last.kind == date.kind => past(date, last, 366.0 * DAY),
            _ => date,
        }
    }
}

fn past(mut date: Date, last: Date, period: f64) -> Date {
    let periods = ((last.seconds - date.seconds) / period).round();
    if periods >= 1.0 {
        date.seconds += periods * period;
    }
    date
}
