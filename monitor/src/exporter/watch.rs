//! What the exporter knows, as values: events, snapshots and scans come in, log
//! lines and metrics go out.

use std::time::Duration;

use livepatch_monitor_ebpf::EventKind;

use crate::livepatch::{
    blockers::{self, Blocker, Counts, History, Scan},
    patch::PatchSet,
    transition::{Active, BootTime, Effect, KlpEvent, Transitions, Watching},
};

/// A scan is as good as new for this long: the kernel itself looks at the tasks
/// about once a second.
const SCAN_FRESH: Duration = Duration::from_secs(1);
/// A scan may cost this share of one CPU: after one that took long, the next waits.
const SCAN_SHARE: u32 = 20;

/// Everything known between two moments.
#[derive(Debug)]
pub struct Watch {
    /// The state machine.
    pub transitions: Transitions,
    watching: Watching,
    history: History,
    blockers: Option<Found>,
    events: [u64; EventKind::ALL.len()],
    next_scan: Option<BootTime>,
    next_report: Option<Duration>,
}

/// What a scan found.
#[derive(Debug)]
struct Found {
    time: BootTime,
    patch: String,
    blockers: Vec<Blocker>,
    counts: Counts,
}

impl Watch {
    /// Nothing known yet.
    #[must_use]
    pub fn new(watching: Watching) -> Self {
        Self {
            transitions: Transitions::new(),
            watching,
            history: History::default(),
            blockers: None,
            events: [0; EventKind::ALL.len()],
            next_scan: None,
            next_report: None,
        }
    }

    /// An event of the kernel.
    pub fn event(&mut self, event: &KlpEvent) -> Vec<Effect> {
        if let Some(count) = self.events.get_mut(event.kind as usize) {
            *count += 1;
        }
        let effects = self.transitions.event(event);
        self.forget_if_ended(&effects);
        effects
    }

    /// A snapshot of sysfs.
    pub fn snapshot(&mut self, now: BootTime, patches: &PatchSet) -> Vec<Effect> {
        let effects = self.transitions.observe(now, patches, self.watching);
        self.forget_if_ended(&effects);
        effects
    }

    /// A leg that began or ended makes what was known of its tasks stale.
    fn forget_if_ended(&mut self, effects: &[Effect]) {
        let stale = effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Started { .. }
                    | Effect::Ended { .. }
                    | Effect::EndUnseen { .. }
                    | Effect::Reversed { .. }
            )
        });
        if stale {
            self.history = History::default();
            self.blockers = None;
            self.next_report = None;
            self.next_scan = None;
        }
    }

    /// Whether a scan is worth its cost now.
    #[must_use]
    pub fn scan_due(&self, now: BootTime) -> bool {
        let fresh = self
            .blockers
            .as_ref()
            .is_some_and(|found| now.since(found.time).is_some_and(|age| age < SCAN_FRESH));
        let too_soon = self.next_scan.is_some_and(|next| now < next);
        self.transitions.active().is_some() && !fresh && !too_soon
    }

    /// A scan that took `cost`.
    pub fn scanned(&mut self, scan: &Scan, cost: Duration) {
        self.next_scan = Some(scan.time.plus(cost.saturating_mul(SCAN_SHARE)));
        if self.transitions.active().is_none() {
            return;
        }
        let blockers = blockers::analyse(scan, &mut self.history);
        let counts = Counts::of(&blockers);
        self.blockers = Some(Found {
            time: scan.time,
            patch: scan.patch.clone(),
            blockers,
            counts,
        });
    }

    /// No scan can be had: what the last one saw is no longer true.
    pub fn scan_failed(&mut self) {
        self.blockers = None;
    }

    /// The counts of the last scan of the running transition.
    #[must_use]
    pub fn counts(&self) -> Option<&Counts> {
        let active = self.transitions.active()?;
        let found = self.blockers.as_ref()?;
        (active.patch.is_none() || active.patch.as_deref() == Some(&found.patch))
            .then_some(&found.counts)
    }

    /// Whether the running transition is older than `stuck_after`. A start that
    /// is not known is at least as old as our knowledge of it.
    #[must_use]
    pub fn stuck(&self, now: BootTime, stuck_after: Duration) -> bool {
        self.transitions
            .active()
            .is_some_and(|active| least_age(active, now) >= stuck_after)
    }

    /// The blockers worth a log line now: when a transition becomes stuck, and
    /// again each time it has lasted twice as long.
    pub fn stuck_report(
        &mut self,
        now: BootTime,
        stuck_after: Duration,
    ) -> Option<(Duration, &[Blocker])> {
        let age = least_age(self.transitions.active()?, now);
        let found = self.blockers.as_ref()?;
        if age < self.next_report.unwrap_or(stuck_after) || found.blockers.is_empty() {
            return None;
        }
        self.next_report = Some(age.saturating_mul(2).max(Duration::from_secs(1)));
        Some((age, &found.blockers))
    }

    /// Events received, by kind.
    pub fn events(&self) -> impl Iterator<Item = (EventKind, u64)> + '_ {
        EventKind::ALL.into_iter().zip(self.events)
    }
}

fn least_age(active: &Active, now: BootTime) -> Duration {
    active.age(now).unwrap_or_else(|| active.known_for(now))
}
