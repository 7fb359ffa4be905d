//! The pending tasks of the running transition: those that hold it up first and open, the
//! others as one line for each group.

use livepatch_core::{
    blockers::{BlockerReport, Group, Reason, groups},
    pending_tasks::Found,
    transition::next_signals,
};
use maud::{Markup, html};

use super::{number, text::shown};

/// Tasks of a group that are described at once; the others are folded into one line.
const OPEN: usize = 5;
/// Stacks are shown open if a group has at most this many tasks.
const FEW: usize = 3;

pub(super) fn blockers(
    found: &Found,
    shown_blockers: &[BlockerReport],
    attempts: Option<u32>,
) -> Markup {
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
            }
            (next_look(attempts))
            h3 { "Tasks that hold it up" }
            @if !is_held {
                p { "No task blocks it: those below will switch at one of the next attempts." }
            }
            @for one in holding { (group(one, shown_blockers)) }
            @for one in passing { (folded(one, shown_blockers)) }
        } @else {
            p { "No task is pending." }
        }
        @if found.idle_unknown {
            p { "Idle tasks (swapper) could not be checked: they may be pending as well." }
        }
    }
}

/// When the kernel will look at the pending tasks again, and when it will signal them.
fn next_look(attempts: Option<u32>) -> Markup {
    html! {
        p class="note" {
            "The kernel looks at these tasks again about once a second"
            @match attempts {
                Some(attempts) => {
                    @let left = next_signals(attempts) - attempts;
                    ", and signals them in its attempt " (next_signals(attempts)) ", in about " (left) " s."
                },
                None => ", and signals them every 15 attempts.",
            }
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
    let described: Vec<_> = of_group(group, shown_blockers).collect();
    let hidden = group.tasks.len().saturating_sub(described.len());
    // Few stacks are read at once; many are a long page.
    let open = described.len() <= FEW;
    let (first, others) = described.split_at(described.len().min(OPEN));
    html! {
        h4 { (shown(&group.headline())) }
        (cards(first, open))
        @if !others.is_empty() {
            details {
                summary { "And " (others.len() + hidden) " more" }
                (cards(others, false))
                (not_described(hidden))
            }
        } @else {
            (not_described(hidden))
        }
    }
}

fn not_described(hidden: usize) -> Markup {
    html! {
        @if hidden > 0 {
            p { "And " (hidden) " more: " code { "livepatch-monitor blockers --all" } }
        }
    }
}

/// Tasks that hold nothing up: one line, followed by the few that are described.
fn folded(group: &Group<'_>, shown_blockers: &[BlockerReport]) -> Markup {
    let described: Vec<_> = of_group(group, shown_blockers).collect();
    let hidden = group.tasks.len().saturating_sub(described.len());
    html! {
        details {
            summary { (shown(&group.headline())) }
            (cards(&described, false))
            (not_described(hidden))
        }
    }
}

/// Tasks of one group. The detail is usually the same for all of them, and is then shown once.
fn cards(tasks: &[&BlockerReport], open: bool) -> Markup {
    let before = [None].into_iter().chain(tasks.iter().map(Some));
    html! {
        ol class="blockers" {
            @for (task, before) in tasks.iter().zip(before) {
                (blocker(task, before.is_none_or(|before| before.detail != task.detail), open))
            }
        }
    }
}

fn blocker(task: &BlockerReport, detailed: bool, open: bool) -> Markup {
    html! {
        li {
            p { strong { (task.who()) } }
            @if detailed {
                p { span class="tag" { (task.reason.name()) } " " (task.detail) }
            }
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
