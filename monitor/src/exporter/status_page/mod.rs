//! The status page: plain values in, HTML out. Pure.
//!
//! Every string goes through maud, which escapes it. Strings from outside first go through
//! [`shown`], which makes characters visible that would reverse or hide text, and leaves out
//! addresses of the kernel. The only string that becomes an attribute is the path of the metrics,
//! which is checked when the command line is parsed.

use std::time::Duration;

use livepatch_core::{
    blockers::BlockerReport,
    crash::display::date,
    patch::PatchSet,
    transition::{age, progress},
    transition_state::Running,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::{
    text::shown,
    verdict::{Level, Statement},
};
use super::{collector::Collected, collectors::Values};

mod pending;
mod sections;
mod text;
mod verdict;

/// Most blocking tasks that are described; the rest are only counted.
pub const BLOCKERS_SHOWN: usize = 50;

/// The query string that stops the page from reloading itself.
pub const STAY: &str = "refresh=off";

const STYLE: &str = include_str!("style.css");

/// What a browser may do with the page. The hash is that of [`STYLE`]; a test compares them.
macro_rules! policy {
    () => {
        "default-src 'none'; style-src 'sha256-i0KlQaG7kXuobmt/Kw5THVXFX7ON1mYPykTS9xkz+eo='; img-src data:; base-uri 'none'; form-action 'none'"
    };
}

/// The policy in the page itself, so that it also applies to a saved copy.
const POLICY: &str = policy!();

/// The header `Content-Security-Policy`; only a header can forbid framing.
pub const CONTENT_SECURITY_POLICY: &str = concat!(policy!(), "; frame-ancestors 'none'");

/// Everything the page shows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The kernel's name for the host.
    pub host: String,
    /// When the values were read, in seconds since 1970.
    pub now_unix_seconds: Option<f64>,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// Whether the page must not reload itself.
    pub stay: bool,
    /// What the collectors found: the same values that the metrics show.
    pub collected: Collected<Values>,
    /// The first [`BLOCKERS_SHOWN`] of the pending tasks.
    pub blockers: Vec<BlockerReport>,
}

impl Page {
    fn values(&self) -> &Values {
        &self.collected.values
    }

    /// The loaded livepatches; `None` if sysfs cannot be read.
    fn patches(&self) -> Option<&PatchSet> {
        self.values().patches.set.as_deref()
    }

    /// The running transition.
    fn running(&self) -> Option<&Running> {
        self.values().transitions.running.as_ref()
    }

    /// Describes the progress of the running transition.
    fn progress(&self, running: &Running) -> String {
        let found = self.values().tasks.found.as_ref();
        let pending = found.map(|found| found.counts.total());
        progress(
            running.direction,
            running.running_for,
            running.attempts,
            pending,
        )
    }
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
                // Without this, browsers request /favicon.ico.
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
                    (sections::monitor(page))
                }
                (footer(page))
            }
        }
    }
    .into_string()
}

/// Renders the verdict: the most urgent statement as a headline, then the others.
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

/// Seconds after which the page reloads itself, which it does only while a transition runs. A stuck
/// transition reloads more slowly, because it changes slowly and is being read.
fn renewed_after(page: &Page) -> Option<u32> {
    page.running().filter(|_| !page.stay)?;
    let is_stuck = page.values().transitions.stuck;
    Some(if is_stuck { 30 } else { 5 })
}

fn renewal(page: &Page) -> Markup {
    html! {
        @if page.running().is_some() {
            p class="note" {
                @if let Some(seconds) = renewed_after(page) {
                    "While the transition runs, this page reloads every "
                    (seconds) " seconds. " a href={ "/?" (STAY) } { "Stop reloading" }
                } @else {
                    "This page does not reload. " a href="/" { "Reload it automatically" }
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
                    li { a href="/-/ready" { "Readiness" } }
                }
            }
            p {
                "livepatch-monitor " (env!("CARGO_PKG_VERSION"))
                " (revision " (env!("LIVEPATCH_MONITOR_REVISION")) ") on "
                (shown(&page.host)) ", kernel " (shown(&page.values().patches.release)) ". As of "
                (moment(page.now_unix_seconds, None)) "."
            }
        }
    }
}

/// A time in UTC and, if the current time is known, how long ago it was.
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

/// `3h 20m ago`; `None` for a time in the future, which another clock may give.
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
