//! Counts the crash signals of the running boot. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{CrashRecord, Evidence, Implicated, Phase, Signal, When};
use crate::transition::BootTime;

/// Events remembered so that an update of one is not counted again.
const MAX_KNOWN: usize = 256;
/// Hooks hit within this time belong to one event if the log cannot be read to find out.
const ONE_EVENT: Duration = Duration::from_secs(1);

/// An event, reduced to what the counters need.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// The most severe signal of the event.
    pub signal: Signal,
    /// The phase of a patch's life that it falls in.
    pub phase: Phase,
    /// The patches that it implicates.
    pub patches: Vec<String>,
    /// When it happened, as far as the log or the hook dates it.
    pub when: When,
    /// The kernel's line for it.
    pub headline: String,
}

impl Sighting {
    /// The sighting of an event that the log reports.
    #[must_use]
    pub fn new(
        signal: Signal,
        phase: Phase,
        (implicated, evidence): (Implicated, &[Evidence]),
        when: When,
        headline: &str,
    ) -> Self {
        let mut patches: Vec<String> = Vec::new();
        if implicated == Implicated::Yes {
            for patch in evidence.iter().filter_map(|found| found.patch.as_ref()) {
                if !patches.contains(patch) {
                    patches.push(patch.clone());
                }
            }
        }
        Self {
            signal,
            phase,
            patches,
            when,
            headline: headline.to_owned(),
        }
    }

    fn key(&self) -> Key {
        (
            self.headline.clone(),
            self.when.uptime_seconds.map(f64::to_bits),
        )
    }
}

impl From<&CrashRecord> for Sighting {
    fn from(record: &CrashRecord) -> Self {
        let signal = record.signals.iter().copied().max();
        Self::new(
            signal.unwrap_or(Signal::Panic),
            record.phase,
            (record.implicated, &record.evidence),
            record.when,
            &record.headline,
        )
    }
}

type Key = (String, Option<u64>);

/// Crash signals, each event counted once unless it becomes more severe.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By signal and phase.
    pub signals: BTreeMap<(Signal, Phase), u64>,
    /// By signal and patch.
    pub implicating: BTreeMap<(Signal, String), u64>,
    /// When the last signal of each kind was seen in each phase, in seconds since 1970.
    pub last: BTreeMap<(Signal, Phase), f64>,
    known: VecDeque<(Key, Signal)>,
}

impl Counts {
    /// Counts an event, and counts it again only if it has become more severe. Returns whether it
    /// was counted.
    pub fn count(&mut self, sighting: &Sighting) -> bool {
        let key = sighting.key();
        let known = self.known.iter_mut().find(|(known, _)| *known == key);
        match known {
            Some((_, signal)) if *signal >= sighting.signal => return false,
            Some((_, signal)) => *signal = sighting.signal,
            None => {
                if self.known.len() == MAX_KNOWN {
                    self.known.pop_front();
                }
                self.known.push_back((key, sighting.signal));
            }
        }
        let signal = sighting.signal;
        *self.signals.entry((signal, sighting.phase)).or_default() += 1;
        for patch in &sighting.patches {
            let of_patch = self.implicating.entry((signal, patch.clone()));
            *of_patch.or_default() += 1;
        }
        if let Some(seconds) = sighting.when.unix_seconds {
            self.last.insert((signal, sighting.phase), seconds);
        }
        true
    }
}

/// Groups hits of hooks into events, for when the log cannot be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grouping {
    open: Option<(BootTime, BootTime, Signal)>,
}

impl Grouping {
    /// Records that a hook was hit. Returns the previous event if this hit is not part of it.
    pub fn hit(&mut self, time: BootTime, signal: Signal) -> Option<(BootTime, Signal)> {
        let closed = self.close(time);
        let (first, _, before) = self.open.unwrap_or((time, time, signal));
        self.open = Some((first, time, before.max(signal)));
        closed
    }

    /// The event that has ended by `now`.
    pub fn close(&mut self, now: BootTime) -> Option<(BootTime, Signal)> {
        let (first, last, signal) = self.open?;
        let over = now.since(last).is_some_and(|quiet| quiet > ONE_EVENT);
        if !over {
            return None;
        }
        self.open = None;
        Some((first, signal))
    }

    /// Whether an event is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::{EvidenceKind, Precision};

    fn sighting(signal: Signal, uptime: f64) -> Sighting {
        let evidence =
            [EvidenceKind::FaultInPatch, EvidenceKind::StackInPatch].map(|kind| Evidence {
                kind,
                patch: Some("fix".into()),
                function: None,
            });
        let when = When {
            uptime_seconds: Some(uptime),
            unix_seconds: Some(1e9 + uptime),
            precision: Precision::Line,
        };
        let implicated = (Implicated::Yes, evidence.as_slice());
        Sighting::new(signal, Phase::Soak, implicated, when, "BUG: x")
    }

    #[test]
    fn an_event_counts_once_and_a_patch_once() {
        let mut counts = Counts::default();
        assert!(counts.count(&sighting(Signal::Oops, 5.0)));
        assert!(!counts.count(&sighting(Signal::Oops, 5.0)));
        assert!(!counts.count(&sighting(Signal::Warning, 5.0)));
        assert!(counts.count(&sighting(Signal::Oops, 6.0)));
        assert_eq!(counts.signals[&(Signal::Oops, Phase::Soak)], 2);
        assert_eq!(counts.implicating[&(Signal::Oops, "fix".into())], 2);
        assert!((counts.last[&(Signal::Oops, Phase::Soak)] - 1e9 - 6.0).abs() < 1e-9);
    }

    #[test]
    fn an_event_that_becomes_more_severe_counts_as_that_too() {
        let mut counts = Counts::default();
        assert!(counts.count(&sighting(Signal::RcuStall, 5.0)));
        assert!(counts.count(&sighting(Signal::SoftLockup, 5.0)));
        assert_eq!(counts.signals.values().sum::<u64>(), 2);
    }

    #[test]
    fn hooks_close_together_are_one_event() {
        let at = |millis: u64| BootTime::from_nanos(millis * 1_000_000);
        let mut grouping = Grouping::default();
        assert_eq!(grouping.hit(at(100), Signal::Warning), None);
        assert_eq!(grouping.hit(at(900), Signal::Oops), None);
        assert_eq!(grouping.hit(at(1800), Signal::Warning), None);
        assert_eq!(grouping.close(at(2700)), None);
        assert_eq!(
            grouping.hit(at(2900), Signal::HungTask),
            Some((at(100), Signal::Oops))
        );
        assert_eq!(grouping.close(at(4000)), Some((at(2900), Signal::HungTask)));
        assert!(!grouping.is_open());
    }
}
