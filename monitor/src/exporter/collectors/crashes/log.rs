//! What the kernel log says about the signals that hooks announced.

use std::time::Duration;

use livepatch_core::{
    boots,
    crash::{
        CrashRecord, DRIFT, NonFatalSignal, Phase, Precision, When,
        counts::Sighting,
        parser::{self, ParsedLog, Reading},
    },
    journal::history::History,
    transition::BootTime,
};

use super::{Crashes, counted};
use crate::{
    exporter::{collector::Effect, kernel_log::since_boot, lock},
    kernel::{clock, kmsg::KmsgError},
};

/// While the log's last line is younger than this, a report is taken to be still printing.
const QUIET: Duration = Duration::from_millis(200);
/// How many times a log that does not become quiet is read again.
const MAX_WAITS: u32 = 5;
/// A line and its hook are no further apart where the clocks agree.
const LEAST_DRIFT_SECONDS: f64 = 0.5;

/// Whether the kernel log must be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::exporter) enum LogReading {
    /// Everything has been read.
    #[default]
    Complete,
    /// A report is still being printed.
    Unfinished,
}

impl Crashes {
    /// Reads the kernel log for what the hooks announced.
    pub(in crate::exporter) fn read_log(&self, history: &History) -> (LogReading, Vec<Effect>) {
        let now = clock::boot_time();
        let text = match self.log.records() {
            Ok(text) => text,
            Err(error) => return self.log_unreadable(now, &error, history),
        };
        let mut state = lock(&self.state);
        state.log_readable = true;
        let last = parser::last_uptime(&text);
        let last = last.map(|uptime| boot_time(uptime, state.drift_seconds));
        let restless = last
            .and_then(|last| now.since(last))
            .is_none_or(|quiet| quiet < QUIET);
        if restless && state.waited < MAX_WAITS {
            state.waited += 1;
            return (LogReading::Unfinished, Vec::new());
        }
        state.waited = 0;
        // Released first: parsing a long log and storing its records takes a while.
        drop(state);
        let reading = Reading {
            replaced: history.replaced(),
            ..Reading::new(self.soak.as_secs_f64())
        };
        let parsed = parser::read(&text, &reading);
        {
            let mut state = lock(&self.state);
            state.unclear.clone_from(&parsed.problems);
            state.drift_seconds = drift(history, &parsed).unwrap_or(state.drift_seconds);
        }
        let mut effects = Vec::new();
        for record in parsed.records {
            effects.extend(self.survived(record, history));
        }
        for signal in parsed.non_fatal {
            effects.extend(self.non_fatal(signal, history));
        }
        (LogReading::Complete, effects)
    }

    fn log_unreadable(
        &self,
        now: BootTime,
        error: &KmsgError,
        history: &History,
    ) -> (LogReading, Vec<Effect>) {
        let mut state = lock(&self.state);
        state.log_readable = false;
        state.log_problem = Some(error.to_string());
        let over = state.grouping.close(now);
        let reading = match state.grouping.is_open() {
            true => LogReading::Unfinished,
            false => LogReading::Complete,
        };
        let effect = self.count_group(&mut state, over, history);
        (reading, effect.into_iter().collect())
    }

    /// Completes and stores a crash that the machine survived.
    fn survived(&self, mut record: CrashRecord, history: &History) -> Option<Effect> {
        let time = self.place(&mut record.when, &mut record.phase, history)?;
        let mut state = lock(&self.state);
        let mut effect = None;
        if time >= self.since {
            boots::supplement(history, &mut record, time, self.soak);
            effect = counted(&mut state, Sighting::from(&record));
        }
        if let Some(store) = &mut state.store
            && let Err(error) = store.put(record, self.boot_id.as_deref(), Some(false))
        {
            state.store_problem = Some(error.to_string());
        }
        effect
    }

    /// Completes and counts a signal that is not a crash.
    fn non_fatal(&self, mut signal: NonFatalSignal, history: &History) -> Option<Effect> {
        let time = self.place(&mut signal.when, &mut signal.phase, history)?;
        if time < self.since {
            return None;
        }
        let sighting = Sighting::new(
            signal.signal,
            signal.phase,
            (signal.implicated, &signal.evidence),
            signal.when,
            &signal.headline,
        );
        counted(&mut lock(&self.state), sighting)
    }

    /// Sets the date of a line of this boot's log, and the phase in which it was printed.
    fn place(&self, when: &mut When, phase: &mut Phase, history: &History) -> Option<BootTime> {
        let time = boot_time(when.uptime_seconds?, lock(&self.state).drift_seconds);
        when.unix_seconds = clock::unix_seconds(time);
        when.precision = Precision::Line;
        let known = self.phase_at(time, history);
        if known != Phase::Unknown {
            *phase = known;
        }
        Some(time)
    }
}

/// A moment of the log's clock, which the boot's is ahead of by `drift_seconds`.
fn boot_time(uptime_seconds: f64, drift_seconds: f64) -> BootTime {
    let uptime = Duration::try_from_secs_f64(uptime_seconds + drift_seconds);
    since_boot(uptime.unwrap_or_default())
}

/// By how much the boot's clock is ahead of the log's by now: a hook stamps what it sees with
/// the boot's clock, the kernel its line with the log's. None where no line was seen by
/// both.
fn drift(history: &History, parsed: &ParsedLog) -> Option<f64> {
    let records = parsed
        .records
        .iter()
        .map(|it| (&it.headline, &it.when, it.reports));
    let non_fatal = parsed
        .non_fatal
        .iter()
        .map(|it| (&it.headline, &it.when, it.reports));
    // Of what was reported several times the record has the first moment only.
    let lines: Vec<_> = records
        .chain(non_fatal)
        .filter(|(_, _, reports)| *reports <= 1)
        .collect();
    history.signals.iter().rev().find_map(|seen| {
        let of_line = lines
            .iter()
            .filter(|(headline, _, _)| **headline == seen.headline);
        let uptime = of_line
            .filter_map(|(_, when, _)| when.uptime_seconds)
            .next_back()?;
        let logged = boot_time(uptime, 0.0).as_duration().as_secs_f64();
        let drift = seen.time.as_duration().as_secs_f64() - logged;
        // More than clocks drift apart: another line with the same text.
        let believed = drift.abs() <= DRIFT * uptime;
        believed.then_some(if drift.abs() < LEAST_DRIFT_SECONDS {
            0.0
        } else {
            drift
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use livepatch_core::{
        crash::{Implicated, Signal},
        journal::history::SignalSeen,
    };

    use super::*;

    fn at(seconds: f64) -> BootTime {
        BootTime::from_duration(Duration::from_secs_f64(seconds))
    }

    fn seen(seconds: f64, headline: &str) -> SignalSeen {
        SignalSeen {
            time: at(seconds),
            unix_seconds: None,
            signal: Signal::Warning,
            headline: headline.into(),
            phase: Phase::Unknown,
        }
    }

    fn logged(seconds: f64, headline: &str, reports: u32) -> NonFatalSignal {
        NonFatalSignal {
            signal: Signal::Warning,
            when: When {
                uptime_seconds: Some(seconds),
                unix_seconds: None,
                precision: Precision::Unknown,
            },
            headline: headline.into(),
            function: None,
            phase: Phase::Unknown,
            implicated: Implicated::Unknown,
            evidence: Vec::new(),
            report: None,
            reports,
        }
    }

    fn drift_of(signals: Vec<SignalSeen>, non_fatal: Vec<NonFatalSignal>) -> Option<f64> {
        let history = History {
            signals,
            ..History::default()
        };
        let parsed = ParsedLog {
            non_fatal,
            ..ParsedLog::default()
        };
        // The machine may have been suspended: then both clocks have stood still together.
        let suspended = clock::suspended().as_secs_f64();
        drift(&history, &parsed).map(|drift| {
            let drift = drift + if drift == 0.0 { 0.0 } else { suspended };
            (drift * 1e3).round() / 1e3
        })
    }

    /// The log's clock is seven seconds behind after some hours.
    #[test]
    fn a_line_that_a_hook_announced_shows_the_drift() {
        let (early, late) = ("WARNING: a", "WARNING: b");
        let lines = || vec![logged(20_000.0, early, 1), logged(39_993.0, late, 1)];
        let signals = vec![seen(20_003.0, early), seen(40_000.0, late)];
        assert_eq!(drift_of(signals, lines()), Some(7.0));
        assert_eq!(drift_of(vec![seen(39_993.1, late)], lines()), Some(0.0));
        assert_eq!(drift_of(Vec::new(), lines()), None);
        assert_eq!(drift_of(vec![seen(40_000.0, "WARNING: c")], lines()), None);
        // Hours apart it is another line with the same text.
        assert_eq!(drift_of(vec![seen(60_000.0, late)], lines()), None);
        // Of several reports the record has the first only.
        let several = vec![logged(39_000.0, late, 9)];
        assert_eq!(drift_of(vec![seen(40_000.0, late)], several), None);
    }
}
