//! What scans of the tasks found about the running transition: for how long that holds,
//! when the next scan is due, when it is worth a log line.

use std::{sync::Arc, time::Duration};

use crate::{
    blockers::{self, Blocker, Counts, History, Scan},
    transition::BootTime,
    transition_state::Running,
};

/// A scan is as good as new for this long: the kernel itself checks the tasks about once
/// a second.
const SCAN_FRESH: Duration = Duration::from_secs(1);
/// What a scan found longer ago than this is unknown again: the next scan hangs.
const SCAN_OLD: Duration = Duration::from_secs(60);
/// The first scan of a transition is over by then, or hangs.
const FIRST_SCAN: Duration = Duration::from_secs(5);
/// A scan may cost one part in this many of a CPU: after an expensive one the next waits,
const SCAN_SHARE: u32 = 20;
/// but no longer than this: what holds a transition up is what the monitor is for.
const SCAN_WAIT_MOST: Duration = Duration::from_secs(5);

/// What is known of the tasks of one segment of a transition.
#[derive(Debug, Default)]
pub struct PendingTasks {
    /// The segment that everything here is about.
    segment: Option<u64>,
    history: History,
    found: Option<Arc<Found>>,
    next_scan: Option<BootTime>,
    next_report: Option<Duration>,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// When the scan began.
    pub time: BootTime,
    /// The patch whose transition the kernel said runs.
    pub patch: String,
    /// The pending tasks and why each is pending.
    pub blockers: Vec<Blocker>,
    /// How many there are, by reason and function.
    pub counts: Counts,
    /// Idle tasks could not be checked.
    pub idle_unknown: bool,
}

impl PendingTasks {
    /// Drops what is known of an earlier segment. Returns false if `running` is itself
    /// of an earlier segment: nothing is known of it any more.
    fn is_about(&mut self, running: &Running) -> bool {
        if self.segment < Some(running.segment) {
            *self = Self {
                segment: Some(running.segment),
                ..Self::default()
            };
        }
        self.segment == Some(running.segment)
    }

    /// Whether a scan is worth its cost now.
    pub fn scan_due(&mut self, running: &Running, now: BootTime) -> bool {
        let fresh = |found: &Arc<Found>| now.since(found.time).is_some_and(|age| age < SCAN_FRESH);
        self.is_about(running)
            && !self.found.as_ref().is_some_and(fresh)
            && self.next_scan.is_none_or(|next| now >= next)
    }

    /// Takes a scan, which used `cost` of CPU time and started while `running` was true.
    pub fn scanned(&mut self, running: &Running, scan: &Scan, cost: Duration) {
        if !self.is_about(running) {
            return;
        }
        let wait = cost.saturating_mul(SCAN_SHARE).min(SCAN_WAIT_MOST);
        self.next_scan = Some(scan.time.plus(wait));
        let blockers = blockers::analyse(scan, &mut self.history);
        let counts = Counts::of(&blockers);
        self.found = Some(Arc::new(Found {
            time: scan.time,
            patch: scan.patch.clone(),
            blockers,
            counts,
            idle_unknown: scan.idle_unknown,
        }));
    }

    /// A scan failed: what the last one found may no longer be true.
    pub fn scan_failed(&mut self) {
        self.found = None;
    }

    /// What the last scan of the running transition found, unless that is too old.
    pub fn found(&mut self, running: &Running, now: BootTime) -> Option<Arc<Found>> {
        if !self.is_about(running) {
            return None;
        }
        let found = self.found.as_ref()?;
        now.since(found.time).filter(|age| *age < SCAN_OLD)?;
        let is_named = running.patch.as_ref().is_none_or(|it| *it == found.patch);
        is_named.then(|| found.clone())
    }

    /// Whether the tasks should be known by now: the first scan of a transition takes a while.
    pub fn is_overdue(&mut self, running: &Running, now: BootTime) -> bool {
        self.found(running, now).is_none() && running.at_least >= FIRST_SCAN
    }

    /// The blockers worth a log line now: when a transition becomes stuck, and again
    /// each time it has run twice as long.
    pub fn stuck_report(&mut self, running: &Running, stuck_after: Duration) -> Option<Arc<Found>> {
        if !self.is_about(running) {
            return None;
        }
        let found = self.found.as_ref()?;
        let limit = self.next_report.unwrap_or(stuck_after);
        if running.at_least < limit || found.blockers.is_empty() {
            return None;
        }
        let twice = running.at_least.saturating_mul(2);
        self.next_report = Some(twice.max(Duration::from_secs(1)));
        Some(found.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        blockers::{CheckedFunc, Frame, PendingTask, ScanSource, TaskState},
        function_ref::FunctionRef,
        transition::{Direction, Transition},
    };

    const fn at(seconds: u64) -> BootTime {
        BootTime::from_nanos(seconds * 1_000_000_000)
    }

    /// The transition that started at 100 s, `seconds` after the boot.
    fn running(seconds: u64) -> Running {
        let age = Duration::from_secs(seconds.saturating_sub(100));
        Running {
            transition: Transition {
                start: Some(at(100)),
                attempts: Some(1),
                ..Transition::new(Some("fix".into()), Direction::Patch)
            },
            running_for: Some(age),
            at_least: age,
            signals: Some(0),
            segment: 7,
        }
    }

    fn held(seconds: u64) -> Scan {
        Scan {
            time: at(seconds),
            patch: "fix".into(),
            direction: Direction::Patch,
            attempts: Some(1),
            funcs: Some(vec![CheckedFunc {
                function: FunctionRef {
                    object: "vmlinux".into(),
                    function: "hold".into(),
                },
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

    #[test]
    fn a_scan_is_reused_while_fresh_and_dropped_when_old() {
        let mut tasks = PendingTasks::default();
        let run = running(100);
        assert!(tasks.scan_due(&run, at(100)) && tasks.found(&run, at(100)).is_none());
        assert!(
            !tasks.is_overdue(&running(104), at(104)) && tasks.is_overdue(&running(105), at(105))
        );
        tasks.scanned(&run, &held(101), Duration::ZERO);
        assert!(!tasks.scan_due(&run, at(101)) && tasks.scan_due(&run, at(102)));
        let found = tasks.found(&run, at(102)).unwrap();
        assert_eq!(found.counts.total(), 1);
        assert!(tasks.found(&run, at(161)).is_none(), "shown a minute later");
        assert!(
            !tasks.is_overdue(&running(160), at(160)) && tasks.is_overdue(&running(161), at(161))
        );
        assert!(
            tasks.found(&run, at(90)).is_none(),
            "shown by a clock that went back"
        );
    }

    #[test]
    fn an_expensive_scan_makes_the_next_wait() {
        let mut tasks = PendingTasks::default();
        let run = running(100);
        tasks.scanned(&run, &held(101), Duration::from_millis(200));
        assert!(!tasks.scan_due(&run, at(104)) && tasks.scan_due(&run, at(105)));
        tasks.scanned(&run, &held(105), Duration::from_secs(7));
        assert!(!tasks.scan_due(&run, at(109)) && tasks.scan_due(&run, at(110)));
    }

    #[test]
    fn stuck_is_reported_at_the_limit_and_each_doubling() {
        let mut tasks = PendingTasks::default();
        let limit = Duration::from_secs(15);
        let mut reported = Vec::new();
        for second in 101..=200 {
            let run = running(second);
            tasks.scanned(&run, &held(second), Duration::ZERO);
            if let Some(found) = tasks.stuck_report(&run, limit) {
                assert_eq!(found.blockers.len(), 1);
                reported.push(run.at_least.as_secs());
            }
        }
        assert_eq!(reported, [15, 30, 60]);
    }

    #[test]
    fn what_is_known_of_a_segment_ends_with_it() {
        let mut tasks = PendingTasks::default();
        let first = running(101);
        tasks.scanned(&first, &held(101), Duration::ZERO);
        let second = Running {
            segment: 8,
            ..running(102)
        };
        assert!(tasks.found(&second, at(102)).is_none());
        // A scan that was under way when the segment ended says nothing of the next.
        tasks.scanned(&first, &held(102), Duration::ZERO);
        assert!(tasks.found(&second, at(102)).is_none());
        assert!(tasks.found(&first, at(102)).is_none());
        assert!(tasks.scan_due(&second, at(102)) && !tasks.scan_due(&first, at(102)));
    }

    #[test]
    fn a_scan_of_another_patch_is_not_shown() {
        let mut tasks = PendingTasks::default();
        let mut run = running(101);
        tasks.scanned(&run, &held(101), Duration::ZERO);
        run.transition.patch = Some("other".into());
        assert!(tasks.found(&run, at(101)).is_none());
        run.transition.patch = None;
        assert!(tasks.found(&run, at(101)).is_some());
    }
}
