//! Input and output of the state machine.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use livepatch_monitor_ebpf::EventKind;
use serde::{Deserialize, Serialize};

use crate::transition::{Direction, Outcome};

/// The kernel signals the remaining tasks at the end of every attempt whose
/// number is a multiple of this and not zero (`SIGNALS_TIMEOUT`,
/// kernel/livepatch/transition.c, 5.1 to 7.2). It counts attempts, not seconds.
pub const SIGNALS_TIMEOUT: u32 = 15;

/// A moment of `CLOCK_BOOTTIME`, in nanoseconds since boot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    /// From nanoseconds since boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From the time since boot; a later time than the range (584 years) becomes the last.
    #[must_use]
    pub fn from_duration(since_boot: Duration) -> Self {
        Self(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The time since boot in nanoseconds, as `CLOCK_BOOTTIME` counts it.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time since boot.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long after `earlier` this is; `None` if it is before it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }

    /// The moment `span` after this one; saturates at the end of the range.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(Self::from_duration(span).0))
    }
}

/// An event of the probes. A field that the probe could not read is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KlpEvent {
    /// When the probe fired.
    pub time: BootTime,
    /// Which probe fired.
    pub kind: EventKind,
    /// The patch in transition or being enabled, by name.
    pub patch: Option<String>,
    /// `klp_target_state` at entry, or the argument of `klp_init_transition`.
    pub target: Option<Direction>,
    /// `klp_signals_cnt` at entry: the attempts made since the start or the
    /// last reversal, and so the number of the attempt that begins.
    pub attempt: Option<u32>,
    /// Whether the patch replaces all others.
    pub replace: Option<bool>,
    /// The object or module concerned. For [`EventKind::ModuleFree`] this is the module that was
    /// freed; `patch` is used only if this is `None`.
    pub object: Option<String>,
}

/// What the reader of snapshots relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// Probes deliver events; a snapshot only completes and corrects them.
    Probes,
    /// Snapshots are the only source, so everything is derived from them.
    Snapshots,
}

/// How a segment of a transition became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its start was seen, in an event or between two snapshots.
    Seen,
    /// It was already running.
    Adopted,
    /// The segment before it was reversed.
    Reversed,
    /// An earlier process of this boot saved it.
    Restored,
}

/// A transition of a patch, or the segment of it that a reversal starts or ends. The state machine,
/// the journal's fold and the saved state of an earlier process use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The patch; `None` until an event or a snapshot shows its name.
    pub patch: Option<String>,
    /// Direction of this segment.
    pub direction: Direction,
    /// When this segment started (the reversal, for a segment that follows one); `None` if that was
    /// not seen or the clock has gone backwards since.
    pub start: Option<BootTime>,
    /// Attempts made on this segment, including the one in progress; `None` if unknown, as without
    /// probes.
    pub attempts: Option<u32>,
    /// Whether `force` was written during this segment.
    pub forced: bool,
    /// Whether enabling failed and the end is due.
    pub cancelling: bool,
}

impl Transition {
    /// A segment about which nothing else is known.
    #[must_use]
    pub const fn new(patch: Option<String>, direction: Direction) -> Self {
        Self {
            patch,
            direction,
            start: None,
            attempts: None,
            forced: false,
            cancelling: false,
        }
    }
}

/// The running transition, or its current segment: a reversal ends one segment and starts the next.
/// Dereferences to its [`Transition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    pub(super) transition: Transition,
    /// How this segment became known.
    pub origin: Origin,
    /// When this process first knew of the segment.
    pub(super) since: BootTime,
    /// Time of the last event of the segment.
    pub(super) last: BootTime,
    /// Signal rounds of this segment that are accounted for; `None` until the attempt number is
    /// first seen on a segment that was not tracked from its start.
    pub(super) signalled: Option<u32>,
    /// Whether the direction is known from an event, or from `enabled` if that is unambiguous.
    pub(super) settled: bool,
    /// Since when snapshots show the opposite direction.
    pub(super) opposed_since: Option<BootTime>,
    /// Set if the reversal that started this segment came before the snapshot that started then,
    /// and the snapshot was applied before the event of the reversal was read.
    pub(super) shown_since: Option<BootTime>,
    /// Since when snapshots do not show this transition.
    pub(super) vanished_since: Option<BootTime>,
}

impl Deref for Active {
    type Target = Transition;

    fn deref(&self) -> &Transition {
        &self.transition
    }
}

impl DerefMut for Active {
    fn deref_mut(&mut self) -> &mut Transition {
        &mut self.transition
    }
}

impl Active {
    pub(super) fn new(
        patch: Option<String>,
        direction: Direction,
        origin: Origin,
        now: BootTime,
    ) -> Self {
        Self {
            transition: Transition::new(patch, direction),
            origin,
            since: now,
            last: now,
            signalled: None,
            settled: true,
            opposed_since: None,
            shown_since: None,
            vanished_since: None,
        }
    }

    /// How long this segment has run; `None` if its start is unknown.
    #[must_use]
    pub fn age(&self, now: BootTime) -> Option<Duration> {
        self.start.and_then(|start| now.since(start))
    }

    /// How long this process has known of the segment: it has run at least as long.
    #[must_use]
    pub fn known_for(&self, now: BootTime) -> Duration {
        now.since(self.since).unwrap_or_default()
    }

    /// How often the kernel has signalled the remaining tasks on this segment.
    #[must_use]
    pub fn signals(&self) -> Option<u32> {
        self.attempts.map(|made| rounds(made.saturating_sub(1)))
    }

    /// Records an event of this segment. If time goes backwards, the segment's length is unknown.
    /// An event that came before the snapshot from which the segment was adopted, but was read
    /// after it, does not count as that, however late it is read.
    pub(super) fn touch(&mut self, time: BootTime) {
        let older_than_known = self.origin == Origin::Adopted && time < self.since;
        if self.last > time && !older_than_known {
            self.start = None;
        }
        self.last = self.last.max(time);
        self.vanished_since = None;
    }

    /// Limits how many lost events a jump in the attempt number can stand for: attempts are at
    /// least about half a second apart (`round_jiffies_relative(HZ)`).
    pub(super) fn plausible_gap(&self, time: BootTime) -> u64 {
        time.since(self.last)
            .map_or(0, |span| span.as_secs().saturating_mul(2).saturating_add(2))
    }
}

/// Signal rounds of a segment of which `failed` attempts have failed.
pub(super) const fn rounds(failed: u32) -> u32 {
    failed.saturating_sub(1) / SIGNALS_TIMEOUT
}

/// The attempt in which the kernel next signals the remaining tasks, after so many attempts
/// (klp_try_complete_transition, kernel/livepatch/transition.c; 5.1 to 7.2).
#[must_use]
pub const fn next_signals(attempts: u32) -> u32 {
    let rounds = attempts.saturating_sub(1) / SIGNALS_TIMEOUT + 1;
    rounds.saturating_mul(SIGNALS_TIMEOUT).saturating_add(1)
}

/// Counters since this process started; they only increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Attempts to complete a transition, including those known only from a gap in the kernel's
    /// attempt number.
    pub attempts: u64,
    /// Rounds in which the kernel signalled the remaining tasks.
    pub signals: u64,
    /// Transitions whose direction was reversed.
    pub reversals: u64,
    /// Transitions during which an operator wrote `force`.
    pub forces: u64,
    /// Patches that could not be enabled: refused, or cancelled.
    pub load_failures: u64,
}

/// Result of an event or a snapshot; each is worth one log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A transition is known to be running.
    Started {
        /// The patch, if known by now.
        patch: Option<String>,
        /// Whether it patches or unpatches.
        direction: Direction,
        /// When it started; `None` if it was already running when it was found.
        start: Option<BootTime>,
    },
    /// A transition, or the segment that a reversal ends, has ended.
    Ended {
        /// The patch; `None` if its name is unknown.
        patch: Option<String>,
        /// Whether it patched or unpatched.
        direction: Direction,
        /// How this transition or segment ended.
        outcome: Outcome,
        /// From start to end; `None` if either was not seen.
        duration: Option<Duration>,
    },
    /// A transition has ended, but how and when was not seen: excluded from durations. Also comes
    /// alone, for an end without a known start.
    EndUnseen {
        /// The patch; `None` if its name is unknown.
        patch: Option<String>,
        /// The direction, if known.
        direction: Option<Direction>,
    },
    /// Follows the `Ended` of the first segment and starts the second, as `Started` starts the
    /// first.
    Reversed {
        /// The patch; `None` if its name is unknown.
        patch: Option<String>,
        /// The direction after the reversal.
        direction: Direction,
        /// When it was reversed; `None` if the reversal itself was not seen.
        start: Option<BootTime>,
    },
    /// The transition was forced: tasks were switched without a check.
    Forced {
        /// The patch in transition.
        patch: Option<String>,
    },
    /// The kernel signalled the remaining tasks.
    Signalled {
        /// The patch in transition.
        patch: Option<String>,
        /// Rounds so far on this segment.
        rounds: u32,
    },
    /// A patch could not be enabled.
    LoadFailed {
        /// The patch; `None` if its name is unknown.
        patch: Option<String>,
        /// Whether the kernel had started and went back (`klp_cancel_transition`); otherwise it
        /// refused at once.
        cancelled: bool,
    },
}

/// State that must survive a restart of the process within one boot. The caller stores the boot id
/// with it and does not restore it after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The transition that was running.
    #[serde(default)]
    pub active: Option<Transition>,
    /// Patches whose transition was forced, and when that was.
    #[serde(default)]
    pub forced: BTreeMap<String, BootTime>,
    /// Patches watched since they were first enabled, and when that was.
    #[serde(default)]
    pub watched: BTreeMap<String, BootTime>,
}
