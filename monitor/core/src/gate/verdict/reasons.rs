//! Builds the reasons of a verdict.

use super::{Asked, Counts, HostName, Kind, Limits, Named, Passes, Reason, Verdict, date};
use crate::gate::{
    hosts::{Cause, Clock, Expected, Fact, Fleet, Host, Missing, Seen, State},
    risk::{MaxRisk, Risk},
};

/// The hosts for which `detail` returns a text, with that text.
fn named(fleet: &Fleet, say: impl Fn(&Fact) -> Option<String>) -> Vec<Named> {
    let name = |host: &Host| HostName {
        instance: host.instance.clone(),
        job: host.job.clone(),
    };
    let said = fleet.hosts.iter().filter_map(|fact| {
        Some(Named {
            detail: say(fact)?,
            host: name(&fact.host),
        })
    });
    said.collect()
}

/// `1 host`, `2 hosts`.
fn hosts(count: usize) -> String {
    format!("{count} host{}", if count == 1 { "" } else { "s" })
}

pub(super) fn failed(fleet: &Fleet, limits: &Limits, counts: &Counts) -> Option<Reason> {
    let failures = counts.crashed + counts.silent;
    if failures == 0 {
        return None;
    }
    let holds = failures > limits.max_crashed;
    Some(Reason {
        verdict: if holds { Verdict::Hold } else { Verdict::GoOn },
        kind: Kind::Failed,
        text: format!(
            "{} failed with the patch: {} crashed, {} silent; {} allowed (--max-crashed)",
            hosts(failures),
            counts.crashed,
            counts.silent,
            may_be(limits.max_crashed),
        ),
        // Once the scrapes have failed for longer, it is not a blip and the reason stays.
        passes: soon_if(fleet.hosts.iter().all(|fact| match &fact.state {
            State::Crashed(_) => false,
            State::Silent { blip, .. } => *blip,
            _ => true,
        })),
        hosts: named(fleet, |fact| match &fact.state {
            State::Crashed(causes) => {
                let causes: Vec<String> = causes.iter().map(cause).collect();
                Some(causes.join("; "))
            }
            State::Silent { seen, blip } => Some(silent(seen, *blip)),
            _ => None,
        }),
    })
}

fn soon_if(soon: bool) -> Passes {
    if soon { Passes::Soon } else { Passes::No }
}

/// What is added for a host that may only have missed a scrape.
const BLIP: &str = "; scraped less than two scrape intervals ago, so it may be a blip";

fn silent(seen: &Seen, blip: bool) -> String {
    let mut text = match seen {
        Seen::InTransition(direction) => {
            format!("silent: down, was in transition ({direction}) when last scraped")
        }
        Seen::Enabled => "silent: down, had the patch enabled when last scraped".to_owned(),
    };
    if blip {
        text.push_str(BLIP);
    }
    text
}

fn may_be(limit: usize) -> String {
    match limit {
        0 => "none".to_owned(),
        limit => format!("{limit}"),
    }
}

fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Crash { count, last } => {
            let times = if *count > 1.0 {
                format!(" {count} times")
            } else {
                String::new()
            };
            let last = last.and_then(date).map_or_else(
                || ", at an unknown time".to_owned(),
                |last| format!(", last at {last}"),
            );
            format!("crashed{times} with the patch{last}")
        }
        Cause::Signal(signal) => format!("crash signal {signal:?} implicates the patch"),
    }
}

pub(super) fn stuck(fleet: &Fleet, limits: &Limits, counts: &Counts) -> Option<Reason> {
    if counts.stuck == 0 {
        return None;
    }
    let with_patch = counts.soaked + counts.soaking + counts.in_force + counts.in_transition;
    let ratio = share(counts.stuck, with_patch);
    let holds = ratio > limits.max_stuck_ratio;
    Some(Reason {
        verdict: if holds { Verdict::Hold } else { Verdict::GoOn },
        kind: Kind::Stuck,
        text: format!(
            "{} of the {with_patch} with the patch stuck in its transition ({:.1} %); \
             {:.1} % allowed (--max-stuck-ratio); `livepatch-monitor blockers` on the host \
             names the tasks",
            hosts(counts.stuck),
            ratio * 100.0,
            limits.max_stuck_ratio * 100.0,
        ),
        passes: Passes::No,
        hosts: named(fleet, |fact| match &fact.state {
            State::InTransition {
                direction,
                stuck_tasks,
            } if *stuck_tasks > 0.0 => Some(format!(
                "stuck: {stuck_tasks} task{} hold{} up the transition ({direction})",
                if *stuck_tasks > 1.0 { "s" } else { "" },
                if *stuck_tasks > 1.0 { "" } else { "s" },
            )),
            _ => None,
        }),
    })
}

#[expect(clippy::cast_precision_loss, reason = "numbers of hosts are small")]
pub(super) fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

pub(super) fn missing(fleet: &Fleet, limits: &Limits, counts: &Counts) -> Option<Reason> {
    if counts.missing == 0 {
        return None;
    }
    let too_many = counts.missing > limits.max_missing;
    let pass = |fact: &Fact| match fact.state {
        State::Missing(missing) => missing.may_pass(),
        _ => true,
    };
    Some(Reason {
        verdict: if too_many {
            Verdict::CannotTell
        } else {
            Verdict::GoOn
        },
        kind: Kind::Missing,
        text: format!(
            "{} cannot be judged; {} allowed (--max-missing): a host that crashed while the \
             patch was being loaded may never have been scraped with it",
            hosts(counts.missing),
            may_be(limits.max_missing),
        ),
        passes: soon_if(fleet.hosts.iter().all(pass)),
        hosts: named(fleet, |fact| match &fact.state {
            State::Missing(missing) => Some(why_missing(*missing)),
            _ => None,
        }),
    })
}

fn why_missing(missing: Missing) -> String {
    match missing {
        Missing::Down { blip } => {
            let blip = if blip { BLIP } else { "" };
            format!("down: no data on the patch within --lookback{blip}")
        }
        Missing::NeverSeen => "unseen: expected (--expect-hosts), but Prometheus has no data on \
        it within --lookback"
            .to_owned(),
        Missing::Clock(Clock::Ahead(seconds)) => format!(
            "clock: the patch is in force since a time that is {} in the future; run timedatectl \
            on the host",
            wait(seconds)
        ),
        Missing::Clock(Clock::Behind(seconds)) => format!(
            "clock: the host says that the patch has been in force for {}, but Prometheus scraped \
            it without the patch since then; run timedatectl on the host",
            wait(seconds)
        ),
        Missing::Clock(Clock::Off(seconds)) => format!(
            "clock: the host's clock is {} {} that of Prometheus; run timedatectl on the host",
            wait(seconds.abs()),
            if seconds > 0.0 { "ahead of" } else { "behind" },
        ),
        Missing::File(age) => format!(
            "file: its textfile was written {} before it was scraped: its monitor does not run, or \
             cannot write it",
            wait(age)
        ),
        Missing::Gone => {
            "gone: Prometheus scraped it within --lookback but no longer does".to_owned()
        }
        Missing::Stale { age, interval } => stale(age, interval),
        Missing::NoCrashCount => "mute: has the patch but serves no \
        livepatch_patch_crashes_total; its exporter may be too old, or its --state-dir \
        unreadable"
            .to_owned(),
        Missing::Unread { reported: true } => "unread: its monitor cannot read which livepatches \
        are loaded; its log and its status page say why"
            .to_owned(),
        Missing::Unread { reported: false } => "unread: answers, but serves no \
        livepatch_monitor_collector_success{collector=\"sysfs\"}: no livepatch-monitor runs there, \
        or its series are dropped at the scrape"
            .to_owned(),
    }
}

fn stale(age: Option<f64>, interval: Option<f64>) -> String {
    match (age, interval) {
        (None, _) => "stale: last scraped at an unknown time".to_owned(),
        (Some(age), _) if age < 0.0 => format!(
            "stale: last scraped {:.0} s in the future; the clocks of the servers that scrape and \
            answer differ",
            -age
        ),
        (Some(age), Some(interval)) => format!(
            "stale: last scraped {age:.0} s ago, but it is scraped every {interval:.0} s; the \
            Prometheus or agent that scrapes it may be down or behind"
        ),
        (Some(age), None) => format!(
            "stale: last scraped {age:.0} s ago; Prometheus may be behind, or --stale-after below \
            two scrape intervals"
        ),
    }
}

/// The hosts that `--expect-hosts N` expects and Prometheus does not know.
pub(super) fn unknown_hosts(
    expected: Option<&Expected>,
    limits: &Limits,
    counts: &Counts,
) -> Option<Reason> {
    let Some(Expected::Count(expected)) = expected else {
        return None;
    };
    let lacking = expected.saturating_sub(counts.hosts);
    if lacking == 0 {
        return None;
    }
    let text = format!(
        "Prometheus knows {} of the {expected} expected (--expect-hosts) within --lookback; \
         {} allowed to be missing (--max-missing)",
        hosts(counts.hosts),
        may_be(limits.max_missing),
    );
    let mut reason = Reason::unknown(Kind::Missing, text, Passes::No);
    if counts.missing + lacking <= limits.max_missing {
        reason.verdict = Verdict::GoOn;
    }
    Some(reason)
}

/// The risk that the next hosts fail is higher than allowed.
pub(super) fn risk(risk: &Risk, limit: MaxRisk, counts: &Counts) -> Option<Reason> {
    if risk.more_to_soak == Some(0) {
        return None;
    }
    let mut text = format!(
        "with 95 % confidence up to {} of the next {} fail; {limit} allowed (--max-risk)",
        risk.next_failing_at_bound.ceil(),
        hosts(usize::try_from(risk.next).unwrap_or(usize::MAX)),
    );
    let coming = counts.soaking + counts.in_transition;
    let coming = u64::try_from(coming).unwrap_or(u64::MAX);
    let passes = match risk.more_to_soak {
        Some(more) => {
            text.push_str(&format!(
                ": {more} more must soak without a failure, {coming} are soaking or in transition"
            ));
            if more > coming {
                text.push_str(", so choose a smaller --next or a larger --max-risk");
                Passes::No
            } else {
                Passes::InTime
            }
        }
        None => {
            text.push_str(": no number of healthy hosts would be enough");
            Passes::No
        }
    };
    Some(Reason {
        verdict: Verdict::Hold,
        kind: Kind::Risk,
        text,
        passes,
        hosts: Vec::new(),
    })
}

pub(super) fn data(fleet: &Fleet, asked: &Asked<'_>) -> Vec<Reason> {
    let problems = fleet
        .problems
        .iter()
        .map(|problem| Reason::unknown(Kind::BadData, problem.clone(), Passes::No));
    let warnings = asked.warnings.iter().map(|warning| {
        let text = format!("the results may be partial, Prometheus warns: {warning}");
        Reason::unknown(Kind::Partial, text, Passes::InTime)
    });
    problems.chain(warnings).collect()
}

pub(super) fn absent(counts: &Counts, asked: &Asked<'_>) -> Option<Reason> {
    if counts.hosts == 0 {
        let text = format!(
            "Prometheus knows no host with up{{{}}}: check --job and --selector",
            asked.hosts
        );
        return Some(Reason::unknown(Kind::NoHosts, text, Passes::No));
    }
    let without = counts.to_do + counts.missing;
    if without < counts.hosts {
        return None;
    }
    let mut text = "no host has the patch loaded".to_owned();
    if asked.known_patches.is_empty() {
        text.push_str(", nor any other livepatch");
    } else {
        text.push_str("; loaded are: ");
        text.push_str(&nearest(asked.patch, asked.known_patches).join(", "));
    }
    // The patch may have been loaded since the last scrape.
    Some(Reason::unknown(Kind::UnknownPatch, text, Passes::Soon))
}

/// Most names of known patches that are shown when the patch is unknown.
const NEAREST: usize = 5;

/// The known names most similar to this one, the most similar first.
fn nearest(name: &str, known: &[String]) -> Vec<String> {
    let alike = |other: &str| {
        let common = name.chars().zip(other.chars());
        common.take_while(|(one, other)| one == other).count()
    };
    let mut known = known.to_vec();
    known.sort_by(|one, other| alike(other).cmp(&alike(one)).then_with(|| one.cmp(other)));
    known.truncate(NEAREST);
    known.iter().map(|known| format!("{known:?}")).collect()
}

pub(super) fn too_few(
    limits: &Limits,
    counts: &Counts,
    next: Option<f64>,
    enough: Option<f64>,
) -> Reason {
    let mut text = format!(
        "{} soaked, {} needed (--min-hosts): {} soaking, {} in transition",
        hosts(counts.soaked),
        limits.min_hosts,
        counts.soaking,
        counts.in_transition,
    );
    if counts.in_force > 0 {
        text.push_str(&format!(
            ", {} with the patch in force since an unknown time",
            counts.in_force
        ));
    }
    match (next, enough) {
        (_, Some(enough)) => text.push_str(&format!("; enough in {}", wait(enough))),
        (Some(next), None) => text.push_str(&format!("; the next in {}", wait(next))),
        (None, None) => {}
    }
    let coming = counts.soaked + counts.soaking + counts.in_transition;
    let passes = if coming >= limits.min_hosts {
        Passes::InTime
    } else {
        Passes::Soon
    };
    Reason::unknown(Kind::TooFewSoaked, text, passes)
}

/// Formats a duration as `4m 10s`, rounded up to the second.
fn wait(seconds: f64) -> String {
    std::time::Duration::try_from_secs_f64(seconds.ceil()).map_or_else(
        |_| "an unknown time".to_owned(),
        |left| humantime::format_duration(left).to_string(),
    )
}

pub(super) fn forced(fleet: &Fleet) -> Option<Reason> {
    let hosts = named(fleet, |fact| {
        fact.forced
            .then(|| "forced: a task may still run the old code, until the next reboot".to_owned())
    });
    (!hosts.is_empty()).then(|| Reason {
        verdict: Verdict::GoOn,
        kind: Kind::Forced,
        text: format!(
            "{} had a transition of the patch forced",
            self::hosts(hosts.len())
        ),
        passes: Passes::No,
        hosts,
    })
}
