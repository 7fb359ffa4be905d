//! The page's sections, from top to bottom. A section without content says so.

use maud::{Markup, html};

use super::{
    Page, ago, moment, number, pending,
    text::{shown, without_addresses},
};
use crate::exporter::collectors::transitions;
use livepatch_core::{
    crash::{HostCrash, counts::Counts, display},
    patch::{Beside, Object, Patch},
    transition::age,
    transition_state::Running,
};

/// Most functions of an object that are listed.
const FUNCTIONS_SHOWN: usize = 200;
/// Most packages of a package manager that are listed.
const PACKAGES_SHOWN: usize = 20;

fn section(id: &str, title: &str, content: &Markup) -> Markup {
    let heading = format!("{id}-heading");
    html! {
        section id=(id) aria-labelledby=(heading) {
            h2 id=(heading) { (title) }
            (content)
        }
    }
}

/// One row of a list of facts.
fn fact(name: &str, value: &Markup) -> Markup {
    html! {
        div { dt { (name) } dd { (value) } }
    }
}

fn text(text: &str) -> Markup {
    html! { (text) }
}

const fn yes_no(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

pub(super) fn transition(page: &Page) -> Markup {
    let totals = page.values().transitions.totals;
    let content = html! {
        @match page.running() {
            Some(running) => (running_transition(page, running)),
            None if page.patches().is_none() => p { "Whether a transition runs is unknown." },
            None => p { "No transition runs." },
        }
        @if let Some(totals) = totals {
            p class="note" {
                "Since the monitor started: attempts " (totals.attempts)
                ", rounds of signals " (totals.signals)
                ", reversals " (totals.reversals)
                ", forced " (totals.forces)
                ", failures to enable a livepatch " (totals.load_failures) "."
            }
        }
        @for refused in &page.values().refusals.refused {
            p {
                span class="tag" { "module refused" } " " code { (shown(&refused.patch)) }
                " failed for module " code { (shown(&refused.module)) }
                ", and the kernel refused to load that module, "
                (number(refused.count, "time")) ", last "
                (moment(refused.unix_seconds, page.now_unix_seconds)) "."
            }
        }
    };
    section("transition", "Transition", &content)
}

fn running_transition(page: &Page, running: &Running) -> Markup {
    let patch = running
        .patch
        .as_deref()
        .map_or_else(|| "unknown".to_owned(), shown);
    let found = page.values().tasks.found.as_deref();
    html! {
        dl {
            (fact("Patch", &html! { code { (patch) } }))
            (fact("Progress", &text(&page.progress(running))))
            @if let Some(rounds) = running.signals {
                (fact("Signals", &html! { (number(u64::from(rounds), "round")) " sent by the kernel" }))
            }
        }
        @match found {
            None => p { "Which tasks are pending is unknown." },
            Some(found) => (pending::blockers(found, &page.blockers, running.attempts)),
        }
    }
}

pub(super) fn patches(page: &Page) -> Markup {
    let content = match page.patches() {
        None => html! { p { "Unknown: sysfs cannot be read." } },
        Some(set) => html! {
            @if !set.supported {
                @if page.values().patches.beside.mechanisms.is_empty() {
                    p { "This kernel has no livepatch support." }
                }
            } @else if set.patches.is_empty() {
                p {
                    @if !page.values().patches.beside.left_over.is_empty() { "No livepatch is in force." }
                    @else if page.values().patches.beside.mechanisms.is_empty() { "No livepatch is loaded." }
                    @else { "No livepatch, but another mechanism:" }
                }
            }
            @for one in &set.patches { (patch(page, one)) }
            (beside(&page.values().patches.beside))
        },
    };
    section("patches", "Livepatches loaded", &content)
}

fn beside(beside: &Beside) -> Markup {
    html! {
        @for mechanism in &beside.mechanisms {
            p { span class="tag" { "not watched" } " This kernel is patched by another mechanism, which this monitor cannot watch: " (mechanism.described()) "." }
        }
        @if !beside.left_over.is_empty() {
            p { "Loaded and not in force, because they were disabled or replaced:" }
            ul class="names" {
                @for module in &beside.left_over {
                    li { code { (shown(module)) } }
                }
            }
        }
    }
}

fn patch(page: &Page, patch: &Patch) -> Markup {
    let in_force = transitions::in_force(&page.collected, patch);
    let resting = patch.enabled == Some(true) && patch.transition != Some(true);
    let crashes = page.values().crashes.of_patch.get(&patch.name);
    html! {
        article {
            h3 { code { (shown(&patch.name)) } " " span class="tag" { (patch.state()) } }
            dl {
                @if resting {
                    (fact("In force since", &html! {
                        (moment(in_force.and_then(|known| known.since_unix_seconds), page.now_unix_seconds))
                        @if let Some(took) = in_force.and_then(|known| known.took) {
                            ", after a transition of " (seconds(took))
                        }
                    }))
                }
                (fact("Replaces all", &text(yes_no(patch.replace))))
                (fact("Forced", &text(yes_no(page.values().transitions.forced.get(&patch.name).copied()))))
                (fact("Build", &html! {
                    @match &patch.srcversion { Some(build) => code { (shown(build)) }, None => "unknown" }
                }))
                (fact("Crashes", &html! {
                    @match crashes {
                        None => "unknown",
                        Some((0, _)) => "none",
                        Some((count, last)) => {
                            (count) ", the last " (moment(*last, page.now_unix_seconds))
                        }
                    }
                }))
            }
            (functions_in_force(page, patch))
            @if patch.objects.is_empty() {
                p class="note" { "It replaces no function." }
            }
            @for one in &patch.objects { (object(one)) }
        }
    }
}

/// How many of the patch's functions are in force, and why the others are not.
fn functions_in_force(page: &Page, patch: &Patch) -> Markup {
    let objects = page.values().in_force.objects.iter();
    let objects: Vec<_> = objects.filter(|one| one.patch == patch.name).collect();
    let all: usize = objects
        .iter()
        .map(|one| one.in_force + one.others.len())
        .sum();
    let known: Option<usize> = objects.iter().map(|one| one.known()).sum();
    let others = || objects.iter().flat_map(|one| &one.others);
    html! {
        @if all > 0 {
            p {
                @match known {
                    Some(known) => { (known) " of " (all) " functions are in force." },
                    None => "How many of its functions are in force is unknown.",
                }
            }
            ul class="names" {
                @for one in others().take(FUNCTIONS_SHOWN) {
                    li { code { (shown(&one.function)) } " " (shown(&one.why.described())) }
                }
            }
            @if others().count() > FUNCTIONS_SHOWN {
                p { "and " (others().count() - FUNCTIONS_SHOWN) " more: " code { "livepatch-monitor status --json" } }
            }
        }
    }
}

/// A duration; short ones to a tenth of a second.
fn seconds(span: std::time::Duration) -> String {
    match span.as_secs() {
        0..60 => format!("{:.1}s", span.as_secs_f64()),
        _ => age(span),
    }
}

fn object(object: &Object) -> Markup {
    let count = object.functions.len();
    let patched = match object.patched {
        Some(false) => ", not patched at present",
        _ => "",
    };
    html! {
        details {
            summary {
                (number(u64::try_from(count).unwrap_or(u64::MAX), "function"))
                " in " code { (shown(&object.name)) } (patched)
            }
            ul class="names" {
                @for function in object.functions.iter().take(FUNCTIONS_SHOWN) {
                    li { code { (shown(&function.name)) } }
                }
            }
            @if count > FUNCTIONS_SHOWN { p { "and " (count - FUNCTIONS_SHOWN) " more" } }
        }
    }
}

pub(super) fn crash(page: &Page) -> Markup {
    let crashes = &page.values().crashes;
    let totals = crashes.totals.as_ref();
    let known = totals.map(|totals| totals.values().sum::<u64>());
    let implicating = crashes
        .signals
        .iter()
        .flat_map(|counts| &counts.implicating);
    let content = html! {
        @match (&crashes.last, known) {
            (Some(crash), _) => (last_crash(page, crash)),
            (None, None) => p { "Unknown: the crash records cannot be read." },
            (None, Some(_)) => p { "No crash of this host is known." },
        }
        dl {
            @if let Some(known) = known.filter(|known| *known > 0) {
                (fact("In all", &html! { (known) ": " code { "livepatch-monitor crashes" } " lists them" }))
            }
            (fact("Boot before", &text(match crashes.boot_unclean {
                Some(true) => "ended badly",
                Some(false) => "ended in order",
                None => "how it ended is unknown",
            })))
            (fact("Signals", &text(&signals(crashes.signals.as_ref()))))
            @for ((signal, patch), count) in implicating {
                @if *count > 0 {
                    (fact("Implicating", &html! { code { (shown(patch)) } ": " (count) " " (signal.name()) }))
                }
            }
        }
    };
    section("crash", "Last crash", &content)
}

/// Describes the crash signals seen.
fn signals(counts: Option<&Counts>) -> String {
    let Some(counts) = counts else {
        return "unknown".to_owned();
    };
    let seen = counts.signals.iter().filter(|(_, count)| **count > 0);
    let seen: Vec<String> = seen
        .map(|((signal, phase), count)| {
            format!("{count} {} in phase {}", signal.name(), phase.name())
        })
        .collect();
    match seen.is_empty() {
        true => "none since the monitor started".to_owned(),
        false => format!("{} since the monitor started", seen.join(", ")),
    }
}

fn last_crash(page: &Page, crash: &HostCrash) -> Markup {
    let record = &crash.record;
    let show = format!("livepatch-monitor crashes show {}", shown(&crash.id));
    html! {
        dl {
            (fact("When", &html! {
                (display::when(&record.when))
                @if let Some(ago) = ago(record.when.unix_seconds, page.now_unix_seconds) { "; " (ago) }
            }))
            (fact("Kind", &text(record.kind.name())))
            (fact("Phase", &text(&without_addresses(&display::phase(record)))))
            (fact("Implicated", &text(&without_addresses(&display::implicated(record)))))
            @if let Some(function) = &record.function {
                (fact("Function", &html! { code { (shown(&function.to_string())) } }))
            }
            @if let Some(task) = display::task(record) {
                (fact("Task", &text(&without_addresses(&task))))
            }
            (fact("End", &text(display::end(crash))))
            (fact("Id", &html! { code { (shown(&crash.id)) } }))
            (fact("Full record", &html! { code { (show) } }))
        }
    }
}

pub(super) fn host(page: &Page) -> Markup {
    let interrupted = &page.values().updates.interrupted;
    let expected = &page.values().expected.patches;
    let half_done: Vec<_> = interrupted
        .iter()
        .filter(|found| !found.packages.is_empty())
        .collect();
    let content = html! {
        h3 { "Updates" }
        @if interrupted.is_empty() {
            p { "Whether an update was left half done is unknown." }
        } @else if half_done.is_empty() {
            p { "No update is half done." }
        }
        @for found in half_done {
            p {
                (found.manager.name()) " has left "
                (number(u64::try_from(found.packages.len()).unwrap_or(u64::MAX), "package"))
                " half done; repair it with " code { (shown(&found.remedy())) } ":"
                @if let Some(command) = found.run.as_ref().and_then(|run| run.command.as_ref()) {
                    " It was left by " code { (shown(command)) } "."
                }
            }
            ul class="names" {
                @for package in found.packages.iter().take(PACKAGES_SHOWN) {
                    li { code { (shown(&package.name)) } " " (shown(&package.state)) }
                }
            }
            @if found.packages.len() > PACKAGES_SHOWN {
                p { "and " (found.packages.len() - PACKAGES_SHOWN) " more: " code { "livepatch-monitor crashes" } }
            }
        }
        @for image in &page.values().updates.images {
            p { (shown(&image.text())) }
        }
        h3 { "Livepatches that should be in force" }
        @if page.patches().is_none() {
            p { "Whether any is missing is unknown." }
        } @else if expected.is_empty() {
            p { "None is installed for this kernel or expected by name." }
        }
        ul {
            @for one in expected {
                li {
                    code { (shown(&one.patch)) } " "
                    @if one.state.is_missing() { span class="tag" { "missing" } " " }
                    (shown(&one.state.described()))
                }
            }
        }
    };
    section("host", "Updates and missing livepatches", &content)
}

pub(super) fn evidence(page: &Page) -> Markup {
    let ready = &page.values().crash_capture.ready;
    let content = html! {
        @if ready.is_empty() {
            p { "It is unknown what would be kept of the next crash." }
        }
        ul {
            @for (source, ready) in ready {
                li {
                    code { (source.name()) } " "
                    @if *ready { "ready" } @else {
                        span class="tag" { "not ready" } " " (source.remedy())
                    }
                }
            }
        }
    };
    section("evidence", "Ready for the next crash", &content)
}

pub(super) fn degraded(page: &Page) -> Markup {
    let degradations = &page.collected.degradations;
    let probes: Vec<_> = page.values().monitor.missing().collect();
    let content = html! {
        @if degradations.is_empty() && probes.is_empty() {
            p { "Nothing: every probe is attached and every file could be read." }
        }
        ul {
            @for missing in degradations {
                li {
                    (shown(&missing.what)) "."
                    @if !missing.remedy.is_empty() {
                        " " em { "To fix it: " (shown(&missing.remedy)) "." }
                    }
                }
            }
        }
        @if !probes.is_empty() {
            details {
                summary { (number(u64::try_from(probes.len()).unwrap_or(u64::MAX), "probe")) " not attached" }
                ul class="names" {
                    @for probe in &probes {
                        li {
                            code { (probe.probe) }
                            @if let Some(problem) = &probe.problem { " " (shown(problem)) }
                        }
                    }
                }
            }
        }
    };
    section("degraded", "What the monitor does not see", &content)
}

pub(super) fn monitor(page: &Page) -> Markup {
    let monitor = &page.values().monitor;
    let given_up: Vec<&str> = monitor.sandbox.iter().map(|part| part.name()).collect();
    let content = html! {
        p {
            "Sandbox: rights dropped after the start: "
            @if given_up.is_empty() { "nothing" } @else { code { (given_up.join(", ")) } }
            "."
        }
        details {
            summary { (number(u64::try_from(monitor.probes.len()).unwrap_or(u64::MAX), "kernel signal")) }
            table {
                thead { tr { th { "signal" } th { "obtained by" } th { "events received" } } }
                tbody {
                    @for probe in &monitor.probes {
                        tr {
                            th { code { (probe.probe) } }
                            td { (probe.method.name()) }
                            td {
                                @if let Some(count) = monitor.received(probe.probe) { (count) }
                            }
                        }
                    }
                }
            }
        }
    };
    section("monitor", "The monitor", &content)
}
