//! The status page: a plain value in, HTML out. Pure.
//!
//! Every string goes through maud, which escapes it, and foreign ones through
//! [`shown`] before, which takes the teeth out of characters that turn or hide text.
//! None becomes an attribute, but for the path of the metrics, which is checked when
//! the command line is read.

use std::{collections::BTreeMap, time::Duration};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::verdict::{Level, Statement};
use crate::{
    host::{expected::Expected, packages::Interrupted},
    metrics::CrashView,
};
use livepatch_core::{
    blockers::{BlockerReport, Counts},
    crash::{
        boots::HostCrash,
        display::{date, shown},
    },
    degradation::Degradation,
    lifecycle::InForce,
    patch::PatchSet,
    transition::{Direction, Totals, age, progress},
};

mod sections;
mod verdict;

/// Blockers that are described; of more there is only the number.
pub const BLOCKERS_SHOWN: usize = 50;

/// The query that keeps the page from renewing itself.
pub const STAY: &str = "refresh=off";

const STYLE: &str = include_str!("style.css");

/// What a browser may do with the page. The hash is that of [`STYLE`]; a test holds
/// them together.
macro_rules! policy {
    () => {
        "default-src 'none'; style-src 'sha256-ByRI28B1GzMmZMtGg9d2qygzkdpms8qyeRI0FE0UXY4='; img-src data:; base-uri 'none'; form-action 'none'"
    };
}

/// In the page itself, so that it holds for a copy too.
const POLICY: &str = policy!();

/// The header `Content-Security-Policy`, which alone can forbid framing.
pub const CONTENT_SECURITY_POLICY: &str = concat!(policy!(), "; frame-ancestors 'none'");

/// Everything the page shows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The host's name.
    pub host: String,
    /// The running kernel's release.
    pub release: String,
    /// When all this was so, in seconds since 1970.
    pub now_unix_seconds: Option<f64>,
    /// Where the metrics are.
    pub telemetry_path: String,
    /// The reader does not want the page to renew itself.
    pub stay: bool,
    /// What is loaded; `None` where sysfs cannot be read.
    pub patches: Option<PatchSet>,
    /// Patches in force, and since when.
    pub in_force: BTreeMap<String, InForce>,
    /// Whether a patch was forced; one of which that is not known is left out.
    pub forced: BTreeMap<String, bool>,
    /// The transition that runs.
    pub transition: Option<Transition>,
    /// What transitions came to since the monitor began.
    pub totals: Totals,
    /// What is known of crashes.
    pub crashes: CrashView,
    /// The last crash.
    pub last_crash: Option<HostCrash>,
    /// It was in this boot: the kernel that runs has had it.
    pub crashed_in_this_boot: bool,
    /// What updates left half done, an entry for each package manager.
    pub interrupted: Vec<Interrupted>,
    /// Livepatches that should be in force.
    pub expected: Vec<Expected>,
    /// What the monitor does not see, and how to mend that.
    pub degradations: Vec<Degradation>,
    /// Probes that are not attached, and why where that is known.
    pub probes_missing: Vec<(&'static str, Option<String>)>,
}

/// The running transition.
#[derive(Clone, Debug)]
pub struct Transition {
    /// The patch; `None` until its name is known.
    pub patch: Option<String>,
    /// Where it leads.
    pub direction: Direction,
    /// For how long it has run, where its start is known.
    pub running_for: Option<Duration>,
    /// Attempts made, where known.
    pub attempts: Option<u32>,
    /// Rounds of signals sent, where known.
    pub signals: Option<u32>,
    /// It is older than `--stuck-after`.
    pub stuck: bool,
    /// Its pending tasks; `None` where they cannot be told.
    pub pending: Option<Pending>,
}

impl Transition {
    /// How far it is, in words.
    fn progress(&self) -> String {
        let pending = self.pending.as_ref().map(|pending| pending.counts.total());
        progress(self.direction, self.running_for, self.attempts, pending)
    }
}

/// Tasks that a transition waits for.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// How many, and why.
    pub counts: Counts,
    /// Idle tasks could not be looked at.
    pub idle_unknown: bool,
    /// The first [`BLOCKERS_SHOWN`] of them.
    pub shown: Vec<BlockerReport>,
}

/// The page as HTML.
#[must_use]
pub fn render(page: &Page) -> String {
    let statements = verdict::statements(page);
    let (short, level) = statements
        .first()
        .map_or(("Unknown", Level::Warning), |first| {
            (first.short, first.level)
        });
    let host = shown(&page.host);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(seconds) = renewed_after(page) {
                    meta http-equiv="refresh" content=(seconds);
                }
                title { (short) ": " (host) " – livepatch-monitor" }
                // Without it browsers ask for /favicon.ico.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Livepatches of " (host) }
                }
                main {
                    (said(&statements, level))
                    (renewal(page))
                    (sections::transition(page))
                    (sections::patches(page))
                    (sections::crash(page))
                    (sections::host(page))
                    (sections::evidence(page))
                    (sections::degraded(page))
                }
                (footer(page))
            }
        }
    }
    .into_string()
}

/// The verdict, and what else is worth a line.
fn said(statements: &[Statement], level: Level) -> Markup {
    let line = |statement: &Statement| {
        html! {
            a href={ "#" (statement.section) } { (statement.text) }
        }
    };
    html! {
        section id="verdict" class=(level.class()) aria-label="Verdict" {
            @if let Some((first, others)) = statements.split_first() {
                p class="headline" { (line(first)) }
                @if !others.is_empty() {
                    ul {
                        @for other in others {
                            li class=(other.level.class()) { (line(other)) }
                        }
                    }
                }
            }
        }
    }
}

/// Seconds after which the page renews itself. Only while a transition runs: when
/// nothing happens nothing is asked for. What is stuck changes slowly, and is read.
fn renewed_after(page: &Page) -> Option<u32> {
    let running = page.transition.as_ref().filter(|_| !page.stay)?;
    Some(if running.stuck { 30 } else { 5 })
}

fn renewal(page: &Page) -> Markup {
    html! {
        @if page.transition.is_some() {
            p class="note" {
                @if let Some(seconds) = renewed_after(page) {
                    "While the transition runs this page renews itself every "
                    (seconds) " seconds. " a href={ "/?" (STAY) } { "Stop that" }
                } @else {
                    "This page does not renew itself. " a href="/" { "Let it" }
                }
            }
        }
    }
}

fn footer(page: &Page) -> Markup {
    html! {
        footer {
            nav aria-label="Other answers" {
                ul {
                    li { a href=(page.telemetry_path) { "Metrics" } }
                    li { a href="/-/healthy" { "Health" } }
                }
            }
            p {
                "livepatch-monitor " (env!("CARGO_PKG_VERSION"))
                " (revision " (env!("LIVEPATCH_MONITOR_REVISION")) ") on "
                (shown(&page.host)) ", kernel " (shown(&page.release)) ". As of "
                (moment(page.now_unix_seconds, None)) "."
            }
        }
    }
}

/// A moment in UTC and, where it is known what time it is, how long ago that was.
fn moment(unix_seconds: Option<f64>, now_unix_seconds: Option<f64>) -> Markup {
    html! {
        @match date(unix_seconds) {
            None => "unknown",
            Some(date) => {
                time datetime=(date) { (date.replace('T', " ").replace('Z', " UTC")) }
                @if let Some(ago) = ago(unix_seconds, now_unix_seconds) { " (" (ago) ")" }
            }
        }
    }
}

/// `3h 20m ago`; none for what is in the future, by another clock.
fn ago(unix_seconds: Option<f64>, now_unix_seconds: Option<f64>) -> Option<String> {
    let since = now_unix_seconds? - unix_seconds?;
    let whole = age(Duration::try_from_secs_f64(since).ok()?);
    let words: Vec<&str> = whole.split_whitespace().take(2).collect();
    Some(format!("{} ago", words.join(" ")))
}

/// `1 task`, `2 tasks`.
fn number(count: u64, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    }
}
