//! The pending tasks of the running transition: those that hold it up first and open, the
//! others as one line for each group.

use livepatch_core::{
    blockers::{BlockerReport, Group, Reason, groups},
    function_ref::FunctionRef,
    pending_tasks::Found,
};
use maud::{Markup, html};

use super::{number, text::shown};

pub(super) fn blockers(found: &Found, shown_blockers: &[BlockerReport]) -> Markup {
    let counts = &found.counts;
    let reasons = Reason::ALL
        .into_iter()
        .filter(|reason| counts.reason(*reason) > 0);
    let groups = groups(&found.blockers);
    let holding = groups.iter().filter(|group| group.reason.holds());
    let passing = groups.iter().filter(|group| !group.reason.holds());
    let is_held = groups.iter().any(|group| group.reason.holds());
    html! {
        @if counts.total() > 0 {
            ul class="counts" {
                @for reason in reasons {
                    li { (counts.reason(reason)) " " (reason.name()) }
                }
                @for (FunctionRef { object, function }, tasks) in counts.functions() {
                    li { (tasks) " asleep in " code { (shown(function)) } " (" (shown(object)) ")" }
                }
            }
            h3 { "Tasks that hold it up" }
            @if !is_held {
                p { "None by itself: the tasks below switch at one of the next attempts." }
            }
            @for one in holding { (group(one, shown_blockers)) }
            @for one in passing { (folded(one, shown_blockers)) }
            p class="note" { "The kernel looks at the pending tasks again about once a second, and signals them every 15 attempts." }
        } @else {
            p { "No task is pending." }
        }
        @if found.idle_unknown {
            p { "Idle tasks (swapper) could not be checked: they may be pending as well." }
        }
    }
}

/// The tasks of a group that are described.
fn of_group<'a>(
    group: &'a Group<'_>,
    shown_blockers: &'a [BlockerReport],
) -> impl Iterator<Item = &'a BlockerReport> {
    shown_blockers.iter().filter(|task| {
        group
            .tasks
            .iter()
            .any(|one| one.task.tid == task.tid && one.reason == task.reason)
    })
}

fn group(group: &Group<'_>, shown_blockers: &[BlockerReport]) -> Markup {
    let described = of_group(group, shown_blockers).count();
    let hidden = group.tasks.len().saturating_sub(described);
    // Few stacks are read at once; many are a long page.
    let open = described <= 3;
    html! {
        h4 { (shown(&group.headline())) }
        ol class="blockers" {
            @for task in of_group(group, shown_blockers) { (blocker(task, open)) }
        }
        @if hidden > 0 {
            p { "And " (hidden) " more: " code { "livepatch-monitor blockers --all" } }
        }
    }
}

/// Tasks that hold nothing up: one line, with the few that are described behind it.
fn folded(group: &Group<'_>, shown_blockers: &[BlockerReport]) -> Markup {
    let described = of_group(group, shown_blockers).count();
    let hidden = group.tasks.len().saturating_sub(described);
    html! {
        details {
            summary { (shown(&group.headline())) }
            ol class="blockers" {
                @for task in of_group(group, shown_blockers) { (blocker(task, false)) }
            }
            @if hidden > 0 {
                p { "And " (hidden) " more: " code { "livepatch-monitor blockers --all" } }
            }
        }
    }
}

fn blocker(task: &BlockerReport, open: bool) -> Markup {
    html! {
        li {
            p { strong { (task.who()) } }
            p { span class="tag" { (task.reason.name()) } " " (task.detail) }
            @if task.stack.is_empty() {
                p class="note" { "No stack is known." }
            } @else {
                details open[open] {
                    summary { "Stack, " (number(u64::try_from(task.stack.len()).unwrap_or(u64::MAX), "frame")) }
                    pre tabindex="0" {
                        @for frame in &task.stack { (shown(frame)) "\n" }
                    }
                }
            }
        }
    }
}
