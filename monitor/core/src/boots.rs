//! How a boot ended, and which crash that was: what the flight recorder noted and what the dumps
//! say, combined. Pure.

use std::time::Duration;

use crate::{
    crash::{CrashRecord, Evidence, EvidenceKind, Implicated, Kind, Patch, Precision, When},
    journal::history::{History, SignalSeen},
    phase::Phase,
};

/// A monitor that is stopped in order goes with its machine, or the machine goes on
/// without it. If the next boot begins within this the former is taken for true.
const STOP_TO_BOOT: Duration = Duration::from_secs(15 * 60);
/// By how much the clocks of a dump and of the recorder may disagree.
const SLACK_SECONDS: f64 = 60.0;
/// A dump's clock may be behind the last note's by this: it is another clock.
const UPTIME_SLACK_SECONDS: f64 = 2.0;
/// A signal in a note and its record in the log are no further apart.
const SAME_SIGNAL_SECONDS: f64 = 5.0;

/// What a boot without a last word is called.
pub const RESET_HEADLINE: &str = "the boot ended without a word";

/// A boot before this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Boot {
    /// What was noted of it.
    pub history: History,
    /// When the boot after it began, in seconds since 1970.
    pub next_began: Option<f64>,
}

impl Boot {
    /// Whether it ended in a crash, as far as the entries show.
    #[must_use]
    pub fn unclean(&self) -> Option<bool> {
        if !self.history.stopped {
            return Some(true);
        }
        let gap = self.next_began? - self.history.last_unix_seconds?;
        (gap <= STOP_TO_BOOT.as_secs_f64()).then_some(false)
    }

    /// Whether a crash that a dump reports may be this boot's.
    #[must_use]
    pub fn may_be_of(&self, record: &CrashRecord) -> bool {
        let history = &self.history;
        let releases = record.release.as_ref().zip(history.release.as_ref());
        if releases.is_some_and(|(one, other)| one != other) {
            return false;
        }
        if let Some(when) = record.when.unix_seconds {
            let began = history.began_unix_seconds;
            // The first note is written when the monitor begins, the boot is older.
            let boot = began.map(|began| began - history.began.as_duration().as_secs_f64());
            return boot.is_none_or(|boot| when >= boot - SLACK_SECONDS)
                && self
                    .next_began
                    .is_none_or(|next| when <= next + SLACK_SECONDS);
        }
        // No date: only a boot that ended badly, and after its last note.
        let uptime = record.when.uptime_seconds.unwrap_or(f64::MAX);
        let last = history.last_time.as_duration().as_secs_f64();
        self.unclean() != Some(false) && uptime >= last - UPTIME_SLACK_SECONDS
    }

    /// Adds what the entries contain and a dump does not.
    pub fn supplement(&self, record: &mut CrashRecord, soak: Duration) {
        supplement(&self.history, record, soak);
    }

    /// The crash that ended the boot, if no dump reports it: the signal that was its last note, or
    /// else a reset.
    #[must_use]
    pub fn last_word(&self, soak: Duration) -> CrashRecord {
        let history = &self.history;
        let last = history.signals.last().filter(|_| !history.lived_on);
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
        supplement(history, &mut record, soak);
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

/// Whether a stored crash is the one that a boot's last note was about.
#[must_use]
pub fn is_of_signal(crash: &CrashRecord, last: &CrashRecord) -> bool {
    let times = crash.when.unix_seconds.zip(last.when.unix_seconds);
    crash.kind == last.kind
        && times.is_some_and(|(one, other)| (one - other).abs() <= SAME_SIGNAL_SECONDS)
}

/// Adds what the entries contain and a record does not.
pub fn supplement(history: &History, record: &mut CrashRecord, soak: Duration) {
    // Entries after the crash do not count (there are none in a boot that it ended).
    let now = history.last_time;
    if record.phase == Phase::Unknown {
        record.phase = history.phase(now, soak);
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
        if !record.patches.iter().any(|known| known.name == loaded.name) {
            record.patches.push(Patch {
                name: loaded.name.clone(),
                state: None,
                kpatch: false,
            });
        }
    }
    if let Some(name) = history.loading(now)
        && record.phase == Phase::Load
        && !record.patches.iter().any(|known| known.name == name)
    {
        record.patches.push(Patch {
            name: name.to_owned(),
            state: None,
            kpatch: false,
        });
    }
}
