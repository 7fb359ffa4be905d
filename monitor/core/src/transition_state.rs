//! What the exporter knows, as values: events, snapshots and scans come in, log
//! lines and metrics go out.

use std::time::Duration;

use livepatch_monitor_ebpf::EventKind;

use crate::{
    blockers::{self, Blocker, Counts, History, Scan},
    patch::PatchSet,
    transition::{Active, BootTime, Effect, KlpEvent, Transitions, Watching},
};

/// A scan is as good as new for this long: the kernel itself looks at the tasks
/// about once a second.
const SCAN_FRESH: Duration = Duration::from_secs(1);
/// What a scan saw longer ago than this is no longer said: the next one hangs.
const SCAN_OLD: Duration = Duration::from_secs(60);
/// A scan may cost this share of one CPU: after a dear one the next waits,
const SCAN_SHARE: u32 = 20;
/// but no longer than this: what holds a transition up is what the monitor is for.
const SCAN_WAIT_MOST: Duration = Duration::from_secs(5);

/// Everything known between two moments.
#[derive(Debug)]
pub struct TransitionState {
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
pub struct Found {
    time: BootTime,
    patch: String,
    /// The pending tasks.
    pub blockers: Vec<Blocker>,
    /// How many, and why.
    pub counts: Counts,
    /// Idle tasks could not be looked at.
    pub idle_unknown: bool,
}

impl TransitionState {
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

    /// Counts an event.
    pub fn count_event(&mut self, kind: EventKind) {
        if let Some(count) = self.events.get_mut(kind as usize) {
            *count += 1;
        }
    }

    /// An event of the kernel.
    pub fn event(&mut self, event: &KlpEvent) -> Vec<Effect> {
        self.count_event(event.kind);
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

    /// A scan that took `cost` of CPU time.
    pub fn scanned(&mut self, scan: &Scan, cost: Duration) {
        let wait = cost.saturating_mul(SCAN_SHARE).min(SCAN_WAIT_MOST);
        self.next_scan = Some(scan.time.plus(wait));
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
            idle_unknown: scan.idle_unknown,
        });
    }

    /// No scan can be had: what the last one saw is no longer true.
    pub fn scan_failed(&mut self) {
        self.blockers = None;
    }

    /// The last scan of the running transition, unless it is too old.
    #[must_use]
    pub fn found(&self, now: BootTime) -> Option<&Found> {
        let active = self.transitions.active()?;
        let found = self.blockers.as_ref()?;
        now.since(found.time).filter(|age| *age < SCAN_OLD)?;
        (active.patch.is_none() || active.patch.as_deref() == Some(&found.patch)).then_some(found)
    }

    /// The counts of that scan.
    #[must_use]
    pub fn counts(&self, now: BootTime) -> Option<&Counts> {
        self.found(now).map(|found| &found.counts)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        blockers::{CheckedFunc, Frame, PendingTask, ScanSource, TaskState},
        patch::Patch,
        transition::Direction,
    };

    const fn at(seconds: u64) -> BootTime {
        BootTime::from_nanos(seconds * 1_000_000_000)
    }

    fn begins(seconds: u64) -> KlpEvent {
        KlpEvent {
            time: at(seconds),
            kind: EventKind::InitTransition,
            patch: Some("fix".into()),
            target: Some(Direction::Patch),
            attempt: None,
            replace: None,
            object: None,
        }
    }

    fn held(seconds: u64) -> Scan {
        Scan {
            time: at(seconds),
            patch: "fix".into(),
            direction: Direction::Patch,
            attempts: Some(1),
            funcs: Some(vec![CheckedFunc {
                object: "vmlinux".into(),
                function: "hold".into(),
                range: Some(0x1000..0x1040),
            }]),
            funcs_truncated: false,
            idle_unknown: false,
            idle_truncated: false,
            source: ScanSource::Iterator,
            patches: Vec::new(),
            bpf_frames_reliable: false,
            tasks: vec![PendingTask {
                tid: 7,
                tgid: 7,
                comm: b"db".to_vec(),
                kthread: false,
                idle_cpu: None,
                on_cpu: Some(false),
                state: TaskState::Sleeping,
                patch_state: 0,
                cgroup_id: None,
                start_ns: None,
                stack: vec![Frame {
                    address: Some(0x1010),
                    symbol: None,
                }],
            }],
        }
    }

    fn watching() -> TransitionState {
        let mut watch = TransitionState::new(Watching::Probes);
        watch.event(&begins(100));
        watch
    }

    #[test]
    fn nothing_is_due_without_a_transition() {
        let watch = TransitionState::new(Watching::Probes);
        assert!(
            !watch.scan_due(at(1))
                && watch.counts(at(1)).is_none()
                && !watch.stuck(at(1), Duration::ZERO)
        );
    }

    #[test]
    fn a_scan_is_reused_while_fresh_and_dropped_when_old() {
        let mut watch = watching();
        assert!(watch.scan_due(at(100)) && watch.counts(at(100)).is_none());
        watch.scanned(&held(101), Duration::ZERO);
        assert!(!watch.scan_due(at(101)) && watch.scan_due(at(102)));
        assert_eq!(watch.counts(at(102)).map(Counts::total), Some(1));
        assert!(watch.counts(at(161)).is_none(), "said a minute later");
        assert!(
            watch.counts(at(90)).is_none(),
            "said by a clock that went back"
        );
    }

    #[test]
    fn a_dear_scan_makes_the_next_wait() {
        let mut watch = watching();
        watch.scanned(&held(101), Duration::from_millis(200));
        assert!(!watch.scan_due(at(104)) && watch.scan_due(at(105)));
        watch.scanned(&held(105), Duration::from_secs(7));
        assert!(!watch.scan_due(at(109)) && watch.scan_due(at(110)));
    }

    #[test]
    fn stuck_is_reported_at_the_limit_and_each_doubling() {
        let mut watch = watching();
        watch.scanned(&held(101), Duration::ZERO);
        let limit = Duration::from_secs(15);
        let mut reported = Vec::new();
        for second in 101..=200 {
            watch.scanned(&held(second), Duration::ZERO);
            if let Some((age, blockers)) = watch.stuck_report(at(second), limit) {
                assert_eq!(blockers.len(), 1);
                reported.push(age.as_secs());
            }
            assert_eq!(watch.stuck(at(second), limit), second >= 115);
        }
        assert_eq!(reported, [15, 30, 60]);
    }

    #[test]
    fn the_end_takes_the_blockers_with_it() {
        let mut watch = watching();
        watch.scanned(&held(101), Duration::ZERO);
        let end = KlpEvent {
            time: at(110),
            kind: EventKind::CompleteTransition,
            ..begins(110)
        };
        watch.event(&end);
        assert!(watch.counts(at(110)).is_none());
        // A scan that was under way when the transition ended tells nothing.
        watch.scanned(&held(110), Duration::ZERO);
        assert!(watch.counts(at(110)).is_none());
    }

    #[test]
    fn a_transition_of_unknown_start_is_as_old_as_our_knowledge() {
        let mut watch = TransitionState::new(Watching::Probes);
        let patch = Patch {
            name: "fix".into(),
            enabled: Some(true),
            transition: Some(true),
            ..Patch::default()
        };
        watch.snapshot(
            at(50),
            &PatchSet {
                supported: true,
                patches: vec![patch],
            },
        );
        assert!(!watch.stuck(at(64), Duration::from_secs(15)));
        assert!(watch.stuck(at(65), Duration::from_secs(15)));
    }
}
