//! Determines how a boot ended, and which crash ended it, from the journal and the dumps. Pure.

use std::{cmp::Reverse, time::Duration};

use crate::{
    crash::{
        CLOCK_WRONG_SECONDS, CrashRecord, Evidence, EvidenceKind, Implicated, Kind,
        NEVER_SET_BEFORE, Patch, Precision, When,
    },
    journal::{
        entry::TimedEntry,
        history::{History, SignalSeen},
    },
    phase::Phase,
    transition::BootTime,
};

mod dating;

/// After an orderly stop of the monitor the machine either shuts down or keeps running without it.
/// If the next boot begins within this time, it shut down.
const STOP_TO_BOOT: Duration = Duration::from_secs(15 * 60);
/// By how much clocks that are set correctly may disagree.
const SLACK_SECONDS: f64 = 60.0;
/// Longest time from a crash to the next boot in seconds, including the saving of a dump.
const MAX_DOWNTIME: u64 = 15 * 60;

/// Most seconds between a signal in the journal and its record in the log.
const SAME_SIGNAL_SECONDS: f64 = 5.0;

/// The headline of a boot that ended without a crash report, signal or orderly stop.
pub const RESET_HEADLINE: &str = "the boot ended without a message in the log";

/// One of the earlier boots of this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Boot {
    /// The state that its journal entries add up to.
    pub history: History,
    /// The entries, oldest first.
    pub entries: Vec<TimedEntry>,
    /// When the boot after it began, in seconds since 1970.
    pub next_began: Option<f64>,
}

impl Boot {
    /// A boot, from the entries of its journal.
    #[must_use]
    pub fn new(entries: Vec<TimedEntry>, next_began: Option<f64>, soak: Duration) -> Self {
        Self {
            history: fold(&entries, soak),
            entries,
            next_began,
        }
    }

    /// When it began, in seconds since 1970: computed from its last entry, because the clock may
    /// have been corrected after the first.
    #[must_use]
    pub fn began(&self) -> Option<f64> {
        let history = &self.history;
        Some(history.last_unix_seconds? - history.last_time.as_duration().as_secs_f64())
    }

    /// When the next boot began, if its clock continues from this one's.
    fn ended_by(&self) -> Option<f64> {
        let next = self.next_began?;
        let last = self.history.last_unix_seconds;
        last.is_none_or(|last| next >= last - SLACK_SECONDS)
            .then_some(next)
    }

    /// Whether it ended uncleanly, as far as the journal shows.
    #[must_use]
    pub fn unclean(&self) -> Option<bool> {
        if !self.history.stopped {
            return Some(true);
        }
        let gap = self.ended_by()? - self.history.last_unix_seconds?;
        (gap <= STOP_TO_BOOT.as_secs_f64()).then_some(false)
    }

    /// How well a crash fits into this boot; `ended` if the kernel ended with it. `None` if it is
    /// another boot's.
    #[must_use]
    pub fn fit(&self, record: &CrashRecord, ended: bool) -> Option<Fit> {
        let history = &self.history;
        let releases = record.release.as_ref().zip(history.release.as_ref());
        if releases.is_some_and(|(one, other)| one != other) {
            return None;
        }
        let drift = record.when.drift_seconds();
        let uptime = record.when.uptime_seconds;
        let last = history.last_time.as_duration().as_secs_f64();
        // Nothing is recorded after the kernel's end.
        let after_the_last = uptime.is_none_or(|uptime| uptime >= last - drift);
        let length = self
            .ended_by()
            .zip(self.began())
            .map(|(end, start)| end - start);
        let within_length = uptime
            .zip(length)
            .is_none_or(|(uptime, length)| uptime <= length + drift + SLACK_SECONDS);
        // From the crash to the next boot: a crash that ended a boot is followed by one.
        let downtime = uptime.zip(length).map(|(uptime, length)| length - uptime);
        let downtime = downtime.and_then(|down| Duration::try_from_secs_f64(down.max(0.0)).ok());
        let downtime = downtime.map(|down| down.as_secs());
        let in_time = (!ended || after_the_last) && within_length;
        let when = &record.when;
        let date = when.unix_seconds.filter(|_| when.is_utc());
        let off = date.filter(|date| *date > NEVER_SET_BEFORE).map(|date| {
            let before = self.began().map_or(0.0, |start| start - date);
            let after = self.ended_by().map_or(0.0, |end| date - end);
            before.max(after).max(0.0)
        });
        if off.is_some_and(|off| off > CLOCK_WRONG_SECONDS) {
            return None;
        }
        let in_span = off.is_some_and(|off| off <= SLACK_SECONDS);
        let of_system = in_span && when.is_of_system();
        let recorded = recorded(history, record).is_some();
        // If no date can be trusted, the boot must have ended with a crash, and the crash must come
        // after its last entry.
        let undated = after_the_last && self.unclean() != Some(false);
        let possible = match in_span {
            true => in_time || of_system,
            false => in_time && undated,
        };
        (possible || recorded).then_some(Fit {
            in_system_time: of_system && in_time,
            recorded,
            ends_it: ended && in_time && downtime.is_some_and(|down| down <= MAX_DOWNTIME),
            in_firmware_time: in_span && in_time,
            downtime: Reverse(downtime.unwrap_or(u64::MAX)),
        })
    }

    /// Whether nothing is known of this boot after the crash.
    #[must_use]
    pub fn may_have_ended(&self, record: &CrashRecord) -> bool {
        let last = self.history.last_time.as_duration().as_secs_f64();
        let uptime = record.when.uptime_seconds;
        uptime.is_some_and(|uptime| uptime >= last - record.when.drift_seconds())
    }

    /// Fills in what the journal knows and the dump does not: the date first, then the phase of the
    /// patch's life.
    pub fn supplement(&self, record: &mut CrashRecord, soak: Duration) {
        let history = &self.history;
        let seen = recorded(history, record);
        dating::date(history, seen, self.ended_by(), &mut record.when);
        let now = dating::moment(history, seen, &record.when);
        // If the machine kept running, entries after the crash prove nothing about it.
        let until = self
            .entries
            .partition_point(|recorded| recorded.time <= now);
        match self
            .entries
            .get(until..)
            .is_some_and(|later| !later.is_empty())
        {
            true => {
                let before = fold(self.entries.get(..until).unwrap_or_default(), soak);
                supplement(&before, record, now, soak);
            }
            false => supplement(history, record, now, soak),
        }
    }

    /// The crash that ended the boot, if no dump shows it: the signal that was its
    /// last entry, or else a reset.
    #[must_use]
    pub fn last_word(&self, soak: Duration) -> CrashRecord {
        let history = &self.history;
        let last = history.signals.last().filter(|_| !history.kept_running);
        let fatal = last.and_then(|seen| Some((seen, seen.signal.kind()?)));
        let now = history.last_time;
        let mut record = match fatal {
            Some((seen, kind)) => of_signal(seen, kind),
            None => CrashRecord {
                when: When {
                    uptime_seconds: Some(now.as_duration().as_secs_f64()),
                    unix_seconds: history.last_unix_seconds,
                    precision: Precision::After,
                },
                headline: RESET_HEADLINE.to_owned(),
                phase: history.phase(now, soak),
                ..CrashRecord::empty(Kind::Reset)
            },
        };
        supplement(history, &mut record, now, soak);
        if let Some(patch) = history.loading(now) {
            record.evidence.push(Evidence {
                kind: EvidenceKind::PatchLoading,
                patch: Some(patch.to_owned()),
                function: None,
            });
        }
        if record.phase == Phase::Unpatched {
            record.implicated = Implicated::No;
        }
        record
    }
}

fn of_signal(seen: &SignalSeen, kind: Kind) -> CrashRecord {
    CrashRecord {
        signals: vec![seen.signal],
        reports: 1,
        when: When {
            uptime_seconds: Some(seen.time.as_duration().as_secs_f64()),
            unix_seconds: seen.unix_seconds,
            precision: Precision::Line,
        },
        headline: seen.headline.clone(),
        phase: seen.phase,
        ..CrashRecord::empty(kind)
    }
}

/// The state that these entries add up to.
fn fold(entries: &[TimedEntry], soak: Duration) -> History {
    let mut history = History::default();
    for recorded in entries {
        history.take(recorded, soak);
    }
    history
}

/// Reasons why a crash belongs to a boot, the strongest first; the boot with the greater value gets
/// the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// The date by the system's clock at the crash lies within the boot.
    in_system_time: bool,
    /// The boot's journal has the kernel's line for it, at that uptime.
    recorded: bool,
    /// The next boot follows it closely.
    ends_it: bool,
    /// Its date by another clock lies within the boot.
    in_firmware_time: bool,
    /// Seconds from the crash to the next boot.
    downtime: Reverse<u64>,
}

/// The entry that the monitor wrote for this report.
fn recorded<'a>(history: &'a History, record: &CrashRecord) -> Option<&'a SignalSeen> {
    let uptime = record.when.uptime_seconds?;
    let drift = record.when.drift_seconds();
    let near = |seen: &&SignalSeen| {
        let time = seen.time.as_duration().as_secs_f64();
        seen.headline == record.headline && (time - uptime).abs() <= drift
    };
    let mut seen: Vec<_> = history.signals.iter().filter(near).collect();
    let apart = |seen: &SignalSeen| (seen.time.as_duration().as_secs_f64() - uptime).abs();
    seen.sort_by(|one, other| apart(one).total_cmp(&apart(other)));
    seen.first().copied()
}

/// Whether a stored crash is the one that a boot's last entry was about.
#[must_use]
pub fn is_of_signal(crash: &CrashRecord, last: &CrashRecord) -> bool {
    let apart = |one: Option<f64>, other: Option<f64>| Some((one? - other?).abs());
    let times = apart(crash.when.unix_seconds, last.when.unix_seconds);
    let uptimes = apart(crash.when.uptime_seconds, last.when.uptime_seconds);
    let drift = last.when.drift_seconds();
    let same_line = crash.headline == last.headline && uptimes.is_some_and(|apart| apart <= drift);
    crash.kind == last.kind
        && (same_line || times.is_some_and(|apart| apart <= SAME_SIGNAL_SECONDS))
}

/// Fills in what the journal entries before a crash at `now` know and its record does not.
pub fn supplement(history: &History, record: &mut CrashRecord, now: BootTime, soak: Duration) {
    let phase = history.phase(now, soak);
    let during = matches!(phase, Phase::Load | Phase::Transition | Phase::Soak);
    match record.phase {
        Phase::Unknown => record.phase = phase,
        // The lines about the transition may be in the part of the log that is lost.
        Phase::Patched if during => record.phase = phase,
        Phase::Unpatched if during || phase == Phase::Patched => {
            record.not_proved("the monitor's journal has a livepatch where the log shows none");
            record.phase = phase;
        }
        Phase::Load | Phase::Transition | Phase::Soak | Phase::Patched | Phase::Unpatched => {}
    }
    if record.release.is_none() {
        record.release.clone_from(&history.release);
    }
    if record.transition.is_none() && record.phase == Phase::Transition {
        record.transition = history.running(now);
    }
    if record.last_transition.is_none() {
        record.last_transition = history.last(now);
    }
    for loaded in history.patches.iter().flatten() {
        add_patch(record, &loaded.name);
    }
    if let Some(name) = history.loading(now)
        && record.phase == Phase::Load
    {
        add_patch(record, name);
    }
}

fn add_patch(record: &mut CrashRecord, name: &str) {
    if !record.patches.iter().any(|known| known.name == name) {
        record.patches.push(Patch {
            name: name.to_owned(),
            state: None,
            kpatch: false,
        });
    }
}

#[cfg(test)]
mod tests;
