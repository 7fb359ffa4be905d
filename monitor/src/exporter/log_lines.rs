//! The log lines of what happens, with the fields an operator searches for.

use std::os::unix::ffi::OsStrExt as _;

use tracing::{error, info, warn};

use livepatch_core::{
    blockers::{Blocker, printable},
    crash::{HostCrash, capture::Source, counts::Sighting},
    degradation::Degradation,
    transition::{Direction, Effect},
    transition_state::Running,
    updates::run::UpdateRun,
};

use super::collector::StartFromLog;
use crate::{
    crash::look::Untrusted,
    host::{
        expected::Expected,
        packages::{Interrupted, Manager},
    },
};

/// Most packages named in one line.
const PACKAGES_SHOWN: usize = 10;
/// Most blocking tasks that get a line of their own.
const BLOCKERS_SHOWN: usize = 10;
/// Most dumps that are not trusted and get a line of their own.
const UNTRUSTED_SHOWN: usize = 10;

/// Names a patch in a log line.
fn name(patch: Option<&String>) -> &str {
    patch.map_or("(not known)", String::as_str)
}

/// Logs what the monitor cannot do on this host.
pub(super) fn degradations(degradations: &[Degradation]) {
    for missing in degradations {
        warn!(remedy = missing.remedy, "degraded: {}", missing.what);
    }
}

/// Logs a step of a transition.
pub(super) fn transition(effect: &Effect) {
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

/// Logs a crash signal.
pub(super) fn signal(sighting: &Sighting) {
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
pub(super) fn crash(crash: &HostCrash) {
    let record = &crash.record;
    error!(
        id = crash.id,
        kind = record.kind.name(),
        phase = record.phase.name(),
        implicated = record.implicated.name(),
        "this host has crashed: {}; `livepatch-monitor crashes show {}` shows the full record",
        printable(record.headline.as_bytes()),
        crash.id
    );
}

/// Logs files that look like dumps but are not trusted.
pub(super) fn untrusted(untrusted: &[Untrusted], more: usize) {
    for dump in untrusted.iter().take(UNTRUSTED_SHOWN) {
        warn!(
            "not trusted, and not counted: {}: {}",
            printable(dump.path.as_os_str().as_bytes()),
            dump.reason
        );
    }
    let more = more + untrusted.len().saturating_sub(UNTRUSTED_SHOWN);
    if more > 0 {
        warn!("and {more} more that are not trusted; `livepatch-monitor crashes` lists them");
    }
}

/// Logs a stuck transition: a summary and its first blockers.
pub(super) fn stuck(running: &Running, blockers: &[Blocker]) {
    warn!(
        patch = name(running.patch.as_ref()),
        seconds = running.at_least.as_secs(),
        tasks = blockers.len(),
        "transition is stuck; `livepatch-monitor blockers --stack` shows who holds it up"
    );
    for blocker in blockers.iter().take(BLOCKERS_SHOWN) {
        warn!(
            tid = blocker.task.tid,
            comm = printable(&blocker.task.comm),
            reason = blocker.reason.name(),
            "blocker: {}",
            blocker.detail
        );
    }
    if let Some(more @ 1..) = blockers.len().checked_sub(BLOCKERS_SHOWN) {
        warn!("and {more} more tasks");
    }
}

/// Logs what the kernel log says about the start of a transition that was already running.
pub(super) fn start_from_log(patch: &str, said: &StartFromLog) {
    match said {
        StartFromLog::Found => info!(
            patch,
            "start of the running transition taken from the kernel log"
        ),
        StartFromLog::TooShort => info!(
            patch,
            "the kernel log does not reach back to the transition's start"
        ),
        StartFromLog::Unreadable(error) => warn!("start of the running transition: {error}"),
    }
}

/// Logs an update that was left half done.
pub(super) fn update_interrupted(found: &Interrupted) {
    let shown = found.packages.iter().take(PACKAGES_SHOWN);
    let names: Vec<String> = shown
        .map(|package| format!("{} ({})", package.name, package.state))
        .collect();
    warn!(
        manager = found.manager.name(),
        packages = found.packages.len(),
        "an update was left half done: {}; repair it before the next one ({})",
        names.join(", "),
        found.remedy()
    );
}

/// Logs that a package manager was at work when the machine went down.
pub(super) fn update_under_way(crash: &str, run: &UpdateRun) {
    warn!(
        crash,
        manager = printable(run.manager.as_bytes()),
        command = run
            .command
            .as_ref()
            .map(|command| printable(command.as_bytes())),
        packages = run.packages.len(),
        "an update had not ended when the machine went down; `livepatch-monitor crashes show` names its packages"
    );
}

/// Logs that the update has been completed.
pub(super) fn update_repaired(manager: Manager) {
    info!(manager = manager.name(), "no package is half done any more");
}

/// Logs a livepatch that should be in force and is not.
pub(super) fn patch_missing(expected: &Expected) {
    if let Some(problem) = expected.state.problem() {
        let patch = expected.patch.as_str();
        warn!(patch, "the livepatch {problem}");
    }
}

/// Logs a module that the kernel did not load because of a livepatch.
pub(super) fn module_refused(patch: &str, module: &str) {
    let (patch, module) = (printable(patch.as_bytes()), printable(module.as_bytes()));
    error!(
        patch,
        module,
        "the livepatch failed for a module, and the kernel refused to load that module; see the kernel log"
    );
}

/// Logs at startup which evidence a crash would not leave behind. It is a warning if there would be
/// no dump at all.
pub(super) fn crash_capture(ready: &[(Source, bool)]) {
    let dump = [Source::Pstore, Source::Kdump];
    let is_kept = ready
        .iter()
        .any(|(source, ready)| *ready && dump.contains(source));
    for (source, _) in ready.iter().filter(|(_, ready)| !ready) {
        let (source, remedy) = (source.name(), source.remedy());
        if is_kept {
            info!(remedy, "not ready for a crash: {source}");
        } else {
            warn!(
                remedy,
                "no dump would survive a crash; not ready for one: {source}"
            );
        }
    }
}
