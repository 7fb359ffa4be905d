//! What the kernel log says of the signals that hooks announced.

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

/// A report is still being printed while the log's last line is younger than this.
const QUIET: Duration = Duration::from_millis(200);
/// How often a log that does not come to rest is waited for.
const MAX_WAITS: u32 = 5;
/// Whether to read the kernel log once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::exporter) enum LogReading {
    /// All is read.
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
        // A long log takes a while to parse, and to store what it says.
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
        for signal in parsed.lesser {
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

    /// A crash that the machine has survived.
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

    /// A signal that is no crash.
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

    /// Dates a line of the running boot's log, and says in which phase it came.
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

/// A moment of the log's clock.
fn boot_time(uptime_seconds: f64) -> BootTime {
    since_boot(Duration::try_from_secs_f64(uptime_seconds).unwrap_or_default())
}
