//! One log line an effect, with the fields an operator searches for.

use tracing::{error, info, warn};

use crate::livepatch::{
    Direction,
    blockers::{Blocker, printable},
    transition::Effect,
};

/// Names a patch in a log line.
fn name(patch: Option<&String>) -> &str {
    patch.map_or("(not known)", String::as_str)
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
