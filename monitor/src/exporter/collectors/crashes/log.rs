//! What the kernel log says about the signals that hooks announced.

use std::time::Duration;

use livepatch_core::{
    boots,
    crash::{
        CrashRecord, NonFatalSignal, Phase, Precision, When,
        counts::Sighting,
        parser::{self, Reading},
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
        let text = match self.log.console() {
            Ok(text) => text,
            Err(error) => return self.log_unreadable(now, &error, history),
        };
        let mut state = lock(&self.state);
        state.log_readable = true;
        let last = parser::last_uptime(&text).map(boot_time);
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
            boots::supplement(history, &mut record, self.soak);
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
        let time = boot_time(when.uptime_seconds?);
        when.unix_seconds = clock::unix_seconds(time);
        when.precision = Precision::Line;
        let known = self.phase_at(time, history);
        if known != Phase::Unknown {
            *phase = known;
        }
        Some(time)
    }
}

/// Converts a time of the log's clock.
fn boot_time(uptime_seconds: f64) -> BootTime {
    since_boot(Duration::try_from_secs_f64(uptime_seconds).unwrap_or_default())
}
