//! What earlier scans of a transition found.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BootTime, Direction, PendingTask, Scan};

/// Attempts that must have been made since a task was first seen with a clean stack: the first of
/// them may have started, and passed the task, before.
const ATTEMPTS: u32 = 2;

/// The same if attempts are not counted. They come about once a second
/// (`round_jiffies_relative(HZ)`, kernel/livepatch/transition.c).
const SPAN: Duration = Duration::from_secs(5);

/// Since when each pending task has had a clean stack. Contains at most the tasks of the last scan.
#[derive(Clone, Debug, Default)]
pub struct History {
    segment: Option<(String, Direction)>,
    attempts: Option<u32>,
    seen: BTreeMap<(u32, Option<u64>), FirstSeen>,
    round: u64,
}

/// The first time that a task was seen with a clean stack.
#[derive(Clone, Copy, Debug)]
struct FirstSeen {
    attempts: Option<u32>,
    time: BootTime,
    round: u64,
}

impl History {
    /// A history without any scan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of tasks remembered from the last scans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether no task is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Starts a scan; one of another transition or segment resets the history. The number of
    /// attempts only decreases when a segment starts.
    pub(super) fn begin(&mut self, scan: &Scan) {
        let same_segment = self
            .segment
            .as_ref()
            .is_some_and(|(patch, direction)| *patch == scan.patch && *direction == scan.direction);
        let fell_back =
            matches!((self.attempts, scan.attempts), (Some(before), Some(now)) if now < before);
        if !same_segment || fell_back {
            self.seen.clear();
            self.attempts = None;
        }
        self.segment = Some((scan.patch.clone(), scan.direction));
        self.attempts = scan.attempts.or(self.attempts);
        self.round = self.round.wrapping_add(1);
    }

    /// Records that the task has a clean stack. Returns what has passed since it was first seen
    /// with one, in words, if the kernel must have checked it in the meantime.
    pub(super) fn clean(&mut self, scan: &Scan, task: &PendingTask) -> Option<String> {
        let round = self.round;
        let first = self
            .seen
            .entry((task.tid, task.start_ns))
            .or_insert(FirstSeen {
                attempts: scan.attempts,
                time: scan.time,
                round,
            });
        first.round = round;
        match (first.attempts, scan.attempts) {
            (Some(before), Some(now)) => {
                let passed = now.saturating_sub(before);
                (passed >= ATTEMPTS).then(|| format!("in {passed} attempts"))
            }
            _ => {
                let passed = scan.time.since(first.time).unwrap_or_default();
                (passed >= SPAN).then(|| format!("in {} seconds", passed.as_secs()))
            }
        }
    }

    /// Ends the scan: forgets the tasks that did not have a clean stack in it.
    pub(super) fn finish(&mut self) {
        let round = self.round;
        self.seen.retain(|_, first| first.round == round);
    }
}
