//! One log line an effect, with the fields an operator searches for.

use tracing::{error, info, warn};

use livepatch_core::degradation::Degradation;
use livepatch_core::{
    blockers::{Blocker, printable},
    crash::{boots::HostCrash, counts::Sighting},
    transition::{Direction, Effect},
};

/// Names a patch in a log line.
fn name(patch: Option<&String>) -> &str {
    patch.map_or("(not known)", String::as_str)
}

/// Logs what this host does not let the monitor do.
pub(super) fn log_degradations(degradations: &[Degradation]) {
    for missing in degradations {
        warn!(remedy = missing.remedy, "degraded: {}", missing.what);
    }
}

/// Logs what the state machine says.
pub(super) fn log(effect: &Effect) {
    match effect {
        Effect::Started {
            patch,
            direction,
            start,
        } => {
            let known = if start.is_some() {
                ""
            } else {
                ", start not known"
            };
            info!(
                patch = name(patch.as_ref()),
                direction = direction.name(),
                "transition runs{known}"
            );
        }
        Effect::Ended {
            patch,
            direction,
            outcome,
            duration,
        } => {
            let patch = name(patch.as_ref());
            let (direction, outcome) = (direction.name(), outcome.name());
            match duration {
                Some(duration) => info!(
                    patch,
                    direction,
                    outcome,
                    seconds = format_args!("{:.3}", duration.as_secs_f64()),
                    "transition ended"
                ),
                None => info!(
                    patch,
                    direction, outcome, "transition ended after an unknown time"
                ),
            }
        }
        Effect::EndUnseen { patch, direction } => warn!(
            patch = name(patch.as_ref()),
            direction = direction.map_or("(not known)", Direction::name),
            "transition ended unseen: how and when is not known"
        ),
        Effect::Reversed {
            patch, direction, ..
        } => warn!(
            patch = name(patch.as_ref()),
            direction = direction.name(),
            "transition reversed, now runs in this direction"
        ),
        Effect::Forced { patch } => error!(
            patch = name(patch.as_ref()),
            "transition forced: tasks may run old and new code at once, and the patch replaced can never be unloaded; plan a reboot"
        ),
        Effect::Signalled { patch, rounds } => warn!(
            patch = name(patch.as_ref()),
            rounds, "the kernel signalled the tasks that hold the transition up"
        ),
        Effect::LoadFailed { patch, cancelled } => {
            let how = if *cancelled { "cancelled" } else { "refused" };
            error!(
                patch = name(patch.as_ref()),
                "enabling the patch was {how}; see the kernel log for the reason"
            );
        }
    }
}

/// Logs that the kernel is unwell.
pub(super) fn log_signal(sighting: &Sighting) {
    let patches = sighting.patches.join(", ");
    let (signal, phase) = (sighting.signal.name(), sighting.phase.name());
    let headline = printable(sighting.headline.as_bytes());
    if patches.is_empty() {
        error!(signal, phase, "crash signal: {headline}");
    } else {
        error!(
            signal,
            phase,
            patches,
            "crash signal that implicates a livepatch; stop the rollout: {headline}"
        );
    }
}

/// Logs a crash of an earlier boot.
pub(super) fn log_crash(crash: &HostCrash) {
    let record = &crash.record;
    error!(
        id = crash.id,
        kind = record.kind.name(),
        phase = record.phase.name(),
        implicated = record.implicated.name(),
        "this host has crashed: {}; `livepatch-monitor crashes show {}` has the whole of it",
        printable(record.headline.as_bytes()),
        crash.id
    );
}

/// Logs a stuck transition: a summary and its first blockers.
pub(super) fn log_stuck(patch: Option<&String>, seconds: u64, blockers: &[Blocker]) {
    const SHOWN: usize = 10;
    warn!(
        patch = name(patch),
        seconds,
        tasks = blockers.len(),
        "transition is stuck; `livepatch-monitor blockers` shows stacks"
    );
    for blocker in blockers.iter().take(SHOWN) {
        warn!(
            tid = blocker.task.tid,
            comm = printable(&blocker.task.comm),
            reason = blocker.reason.name(),
            "blocker: {}",
            blocker.detail
        );
    }
    if blockers.len() > SHOWN {
        warn!("and {} more tasks", blockers.len() - SHOWN);
    }
}
