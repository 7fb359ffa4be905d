//! One clock per host, by which lines with and without the kernel's time can be ordered and the
//! time between them determined.

use std::collections::HashMap;

use super::super::date::{Date, Kind};

/// Most hosts whose clocks are remembered.
const MAX_HOSTS: usize = 256;
const DAY: f64 = 86400.0;

#[derive(Debug, Default)]
pub(super) struct Clocks {
    hosts: HashMap<Option<String>, Clock>,
    /// Host of the last line.
    last: Option<String>,
}

#[derive(Debug, Default)]
struct Clock {
    /// The kind of date that serves as the clock if there is no kernel time.
    base: Option<Kind>,
    /// Offset between wall-clock and kernel time, per date format.
    offset: Option<(Kind, f64)>,
    stamped: bool,
    last: Option<Date>,
}

impl Clocks {
    /// The time on the host's clock, which is the kernel's if the log has it; and the date, with
    /// its missing parts filled in from the line before.
    pub(super) fn read(
        &mut self,
        host: Option<&str>,
        date: Option<Date>,
        uptime: Option<f64>,
    ) -> (Option<f64>, Option<Date>) {
        // A line without a host belongs to the host of the line before; the first host that is
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
