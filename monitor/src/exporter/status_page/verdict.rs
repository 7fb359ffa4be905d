//! The statements at the top of the page, the most urgent first.

use super::{Page, ago, text::shown};
use livepatch_core::{crash::Implicated, patch::Patch, patch_version::is_newer};

/// A crash is reported at the top for this long; one in the running boot for as long as the boot
/// lasts.
const NEWS_SECONDS: f64 = 24.0 * 3600.0;

/// How urgent a statement is, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Someone has to act.
    Bad,
    /// Something is running; more urgent than standing warnings.
    Busy,
    /// A problem that someone should look at.
    Warning,
    /// Everything is as it should be.
    Good,
}

impl Level {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Warning => "warning",
            Self::Busy => "busy",
            Self::Good => "good",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) level: Level,
    /// One or two words, for the title.
    pub(super) short: &'static str,
    /// The statement as a sentence.
    pub(super) text: String,
    /// The section with the details.
    pub(super) section: &'static str,
}

/// All statements, the most urgent first; never empty.
pub(super) fn statements(page: &Page) -> Vec<Statement> {
    let mut statements: Vec<Statement> = [
        Some(transition(page)),
        crash(page),
        forced(page),
        load_failure(page),
        refused(page),
        drill(page),
        missing(page),
        interrupted(page),
        degraded(page),
    ]
    .into_iter()
    .flatten()
    .collect();
    statements.sort_by_key(|statement| statement.level);
    statements
}

fn transition(page: &Page) -> Statement {
    let say = |level, short, text, section| Statement {
        level,
        short,
        text,
        section,
    };
    if let Some(running) = page.running() {
        let name = running.patch.as_deref();
        let patch = name.map_or_else(|| "a patch of unknown name".to_owned(), shown);
        let progress = page.progress(running);
        return if page.values().transitions.stuck {
            let text = format!("STUCK: the transition of {patch}, {progress}.");
            say(Level::Bad, "Stuck", text, "transition")
        } else {
            let text = format!("A transition of {patch} runs: {progress}.");
            say(Level::Busy, "In transition", text, "transition")
        };
    }
    match page.patches() {
        None => say(
            Level::Warning,
            "Unknown",
            "Which livepatches are loaded is unknown.".to_owned(),
            "patches",
        ),
        Some(_) if !page.values().patches.beside.mechanisms.is_empty() => say(
            Level::Warning,
            "Not watched",
            "This kernel is patched by another mechanism, which this monitor cannot watch."
                .to_owned(),
            "patches",
        ),
        Some(set) if !set.supported => say(
            Level::Warning,
            "No livepatches",
            "This kernel has no livepatch support.".to_owned(),
            "patches",
        ),
        Some(set) => {
            let enabled = |patch: &&Patch| patch.enabled == Some(true);
            let in_force = set.patches.iter().filter(enabled).count();
            let text = match in_force {
                0 => "No transition runs, no livepatch is in force.".to_owned(),
                1 => "No transition runs, 1 livepatch is in force.".to_owned(),
                count => format!("No transition runs, {count} livepatches are in force."),
            };
            say(Level::Good, "Quiet", text, "patches")
        }
    }
}

fn crash(page: &Page) -> Option<Statement> {
    let crashes = &page.values().crashes;
    let crash = crashes.last.as_ref()?;
    let record = &crash.record;
    let when = record.when.unix_seconds;
    let is_news = match when.zip(page.now_unix_seconds) {
        Some((when, now)) => now - when < NEWS_SECONDS,
        None => crashes.boot_unclean == Some(true),
    };
    if !is_news && !crashes.last_in_this_boot {
        return None;
    }
    let ago = ago(when, page.now_unix_seconds).map_or_else(String::new, |ago| format!(" {ago}"));
    let who = match crashes.last_in_this_boot {
        true => format!("This kernel crashed{ago} and kept running"),
        false => format!("This host crashed{ago}"),
    };
    let patch = record
        .evidence
        .iter()
        .find_map(|found| found.patch.as_deref());
    let hand = match record.implicated {
        Implicated::Yes => format!(
            "{} is implicated",
            patch.map_or_else(|| "a livepatch".to_owned(), shown)
        ),
        Implicated::No => "no livepatch is implicated".to_owned(),
        Implicated::Unknown => "whether a livepatch is implicated is unknown".to_owned(),
    };
    let (kind, phase) = (record.kind.name(), record.phase.name());
    Some(Statement {
        level: Level::Bad,
        short: "Crashed",
        text: format!("{who}: {kind}, phase {phase}; {hand}."),
        section: "crash",
    })
}

fn forced(page: &Page) -> Option<Statement> {
    let forced = page
        .values()
        .transitions
        .forced
        .iter()
        .filter(|(_, forced)| **forced);
    let names: Vec<String> = forced.map(|(patch, _)| shown(patch)).collect();
    (!names.is_empty()).then(|| Statement {
        level: Level::Warning,
        short: "Forced",
        text: format!(
            "Forced: {}. Tasks may run old and new code at once; plan a reboot.",
            names.join(", ")
        ),
        section: "patches",
    })
}

/// The last livepatch that could not be enabled: until it or a newer version of it is in
/// force after all, or a day has passed.
fn load_failure(page: &Page) -> Option<Statement> {
    let failure = page.values().transitions.last_failure.as_ref()?;
    let loaded = failure.patch.as_deref().zip(page.patches());
    let is_in_force = loaded.is_some_and(|(failed, set)| {
        set.patches.iter().any(|patch| {
            (patch.name == failed || is_newer(&patch.name, failed))
                && patch.enabled == Some(true)
                && patch.transition != Some(true)
        })
    });
    let age = failure.unix_seconds.zip(page.now_unix_seconds);
    let is_old = age.is_some_and(|(when, now)| now - when >= NEWS_SECONDS);
    if is_in_force || is_old {
        return None;
    }
    let name = failure.patch.as_deref();
    let patch = name.map_or_else(|| "a livepatch of unknown name".to_owned(), shown);
    let how = if failure.cancelled {
        "cancelled"
    } else {
        "refused"
    };
    let when = match ago(failure.unix_seconds, page.now_unix_seconds) {
        Some(ago) => ago,
        None => "at an unknown time".to_owned(),
    };
    Some(Statement {
        level: Level::Warning,
        short: "Load failed",
        text: format!("Enabling {patch} has failed {when}: it was {how}."),
        section: "transition",
    })
}

fn drill(page: &Page) -> Option<Statement> {
    let drill = &page.values().monitor.drill;
    let severities: Vec<&str> = drill.iter().copied().collect();
    (!drill.is_empty()).then(|| Statement {
        level: Level::Warning,
        short: "Drill",
        text: format!(
            "A drill runs: the alert LivepatchDrill fires ({}). Nothing has happened.",
            severities.join(", ")
        ),
        section: "degraded",
    })
}

/// Modules that the kernel did not load because a livepatch failed for them.
fn refused(page: &Page) -> Option<Statement> {
    let refused = page.values().refusals.refused.iter();
    let names: Vec<String> = refused.map(|one| shown(&one.module)).collect();
    (!names.is_empty()).then(|| Statement {
        level: Level::Warning,
        short: "Module refused",
        text: format!(
            "The kernel refused to load {}: a livepatch failed for it.",
            names.join(", ")
        ),
        section: "transition",
    })
}

fn missing(page: &Page) -> Option<Statement> {
    let count = page
        .values()
        .expected
        .patches
        .iter()
        .filter(|one| one.state.is_missing())
        .count();
    (count > 0).then(|| Statement {
        level: Level::Warning,
        short: "Patch missing",
        text: match count {
            1 => "1 livepatch that should be in force is not.".to_owned(),
            count => format!("{count} livepatches that should be in force are not."),
        },
        section: "host",
    })
}

fn interrupted(page: &Page) -> Option<Statement> {
    let packages: usize = page
        .values()
        .updates
        .interrupted
        .iter()
        .map(|found| found.packages.len())
        .sum();
    (packages > 0).then(|| Statement {
        level: Level::Warning,
        short: "Update interrupted",
        text: match packages {
            1 => "An update has left 1 package unfinished.".to_owned(),
            count => format!("An update has left {count} packages unfinished."),
        },
        section: "host",
    })
}

fn degraded(page: &Page) -> Option<Statement> {
    let degraded =
        !page.collected.degradations.is_empty() || page.values().monitor.missing().next().is_some();
    degraded.then(|| Statement {
        level: Level::Warning,
        short: "Degraded",
        text: "The monitor does not see everything here.".to_owned(),
        section: "degraded",
    })
}
