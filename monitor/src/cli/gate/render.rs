//! The report as text. The verdict comes first, so that an operator on call sees it at once.

use std::fmt::Write as _;

use super::Report;
use livepatch_core::{
    blockers::printable,
    gate::verdict::{Decision, Reason, Verdict, date},
};

/// Most hosts named for each reason; `--json` lists all.
const NAMED: usize = 20;

pub(super) fn report(report: &Report<'_>) -> String {
    let decision = report.decision;
    let patch = shown(report.patch);
    let verdict = decision.verdict;
    let mut text = format!("{}: {patch} ", verdict.name());
    text.push_str(&match verdict {
        Verdict::GoOn => format!(
            "has soaked on {}, within the limits",
            hosts(decision.counts.soaked)
        ),
        Verdict::Hold => "must not go to more hosts".to_owned(),
        Verdict::CannotTell => "must not go to more hosts until more is known".to_owned(),
    });
    text.push('\n');
    for reason in &decision.reasons {
        let word = match reason.verdict {
            Verdict::Hold => "hold",
            Verdict::CannotTell => "unknown",
            Verdict::GoOn => "note",
        };
        say(&mut text, word, reason);
    }
    for notice in &decision.notices {
        say(&mut text, "note", notice);
    }
    if decision.counts.hosts > 0 {
        table(&mut text, report);
        risk(&mut text, decision);
    }
    text
}

/// One line of progress for `--wait`.
pub(super) fn progress(decision: &Decision) -> String {
    let reasons: Vec<String> = decision
        .reasons
        .iter()
        .map(|reason| shown(&reason.text))
        .collect();
    reasons.join("; ")
}

fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

fn hosts(count: usize) -> String {
    format!("{count} host{}", if count == 1 { "" } else { "s" })
}

fn say(text: &mut String, word: &str, reason: &Reason) {
    let _ = writeln!(text, "  {word}: {}", shown(&reason.text));
    let named = reason.hosts.iter().take(NAMED);
    let width = named.clone().map(|one| shown(&one.host.instance).len());
    let width = width.max().unwrap_or(0);
    for one in named {
        let (instance, detail) = (shown(&one.host.instance), shown(&one.detail));
        let _ = writeln!(text, "    {instance:width$}  {detail}");
    }
    let hidden = reason.hosts.len().saturating_sub(NAMED);
    if hidden > 0 {
        let _ = writeln!(text, "    and {hidden} more (--json lists all)");
    }
}

/// A rare state: its line is left out when no host is in it.
const UNDATED: &str = "in force since an unknown time";

fn table(text: &mut String, report: &Report<'_>) {
    let counts = &report.decision.counts;
    let at = report
        .evaluated_at
        .and_then(date)
        .map_or_else(String::new, |at| format!(" at {at}"));
    let _ = writeln!(text, "\nup{{{}}}{at}", shown(report.selector));
    let soak =
        livepatch_core::transition::age(std::time::Duration::from_secs_f64(report.soak_seconds));
    let stuck = format!("in transition, {} of them stuck", counts.stuck);
    let soaked = format!("soaked: in force for {soak} or more");
    let rows = [
        (counts.soaked, soaked.as_str()),
        (counts.soaking, "soaking"),
        (counts.in_force, UNDATED),
        (counts.in_transition, stuck.as_str()),
        (counts.crashed, "crashed"),
        (counts.silent, "silent"),
        (counts.missing, "missing"),
        (counts.to_do, "without the patch"),
        (counts.hosts, "in all"),
    ];
    let width = counts.hosts.to_string().len();
    for (count, meaning) in rows {
        if count == 0 && meaning == UNDATED {
            continue;
        }
        let _ = writeln!(text, "  {count:>width$}  {meaning}");
    }
}

fn risk(text: &mut String, decision: &Decision) {
    let risk = &decision.risk;
    let mut words = String::from("risk: ");
    if risk.known == 0 {
        words.push_str("unknown, no host has soaked or failed with this patch yet.");
    } else {
        let _ = write!(
            words,
            "the outcome with this patch is known for {}, of which {} failed. With 95 % \
            confidence no more than {} of hosts fail",
            hosts(usize::try_from(risk.known).unwrap_or(usize::MAX)),
            risk.failed,
            percent(risk.upper_bound),
        );
        if risk.to_do > 0 {
            let _ = write!(
                words,
                ": up to {:.0} of the {} to do",
                risk.to_do_failing_at_bound.ceil(),
                risk.to_do
            );
        }
        if risk.next != risk.to_do {
            let _ = write!(
                words,
                ", up to {:.0} of the next {}",
                risk.next_failing_at_bound.ceil(),
                risk.next
            );
        }
        words.push('.');
    }
    words.push_str(" The results of earlier patches say nothing about this one.");
    text.push('\n');
    wrap(text, &words);
}

/// Width to which paragraphs are wrapped, in characters.
const WIDTH: usize = 80;

fn wrap(text: &mut String, words: &str) {
    let mut column = 0;
    for word in words.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

/// A percentage with two significant digits, rounded up: an upper bound must not shrink.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 10.0 {
        format!("{:.0} %", percent.ceil())
    } else if percent >= 1.0 {
        format!("{:.1} %", (percent * 10.0).ceil() / 10.0)
    } else {
        format!("{:.3} %", (percent * 1000.0).ceil() / 1000.0)
    }
}
