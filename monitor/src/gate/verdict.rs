//! Whether the patch may go to more hosts, and why.

use serde::Serialize;

use super::{
    hosts::{Cause, Fact, Fleet, Host, Missing, Seen, State},
    risk::Risk,
};

/// What is borne.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Hosts that may have failed.
    pub max_crashed: usize,
    /// Share of the hosts with the patch that may be stuck, from 0 to 1.
    pub max_stuck_ratio: f64,
    /// Hosts that must have soaked.
    pub min_hosts: usize,
    /// Hosts of which it may be unknown how they are.
    pub max_missing: usize,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The patch may go to more hosts.
    GoOn,
    /// It must not.
    Hold,
    /// It must not, until more is known.
    CannotTell,
}

impl Verdict {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GoOn => "go on",
            Self::Hold => "hold",
            Self::CannotTell => "cannot tell",
        }
    }

    /// The exit code of the command.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::GoOn => 0,
            Self::Hold => 1,
            Self::CannotTell => 2,
        }
    }
}

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// More hosts failed than may.
    Failed,
    /// More hosts are stuck than may.
    Stuck,
    /// Of more hosts than may be it is unknown how they are.
    Missing,
    /// Fewer hosts soaked than must.
    TooFewSoaked,
    /// No host is in the selection.
    NoHosts,
    /// No host knows the patch.
    UnknownPatch,
    /// The answers may be partial.
    Partial,
    /// The answers contradict themselves or say nothing.
    BadData,
    /// Prometheus did not answer as it should.
    Prometheus,
    /// A transition was forced; only ever a notice.
    Forced,
}

/// Whether a reason may pass if one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Passes {
    /// Somebody has to do something.
    No,
    /// If so, then as soon as every host has been scraped anew.
    Soon,
    /// In time.
    InTime,
}

/// One host, and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The host.
    #[serde(flatten)]
    pub host: HostName,
    /// What is to be said of it.
    pub detail: String,
}

/// A host's labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostName {
    /// Label `instance`.
    pub instance: String,
    /// Label `job`.
    pub job: String,
}

/// Why the verdict is not to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What this reason alone would make of it.
    pub verdict: Verdict,
    /// What it is about.
    pub kind: Kind,
    /// In words.
    pub text: String,
    /// Whether it may pass.
    pub passes: Passes,
    /// The hosts that it is about.
    pub hosts: Vec<Named>,
}

impl Reason {
    /// A reason why it cannot be told, about no host in particular.
    #[must_use]
    pub fn unknown(kind: Kind, text: String, passes: Passes) -> Self {
        Self {
            verdict: Verdict::CannotTell,
            kind,
            text,
            passes,
            hosts: Vec::new(),
        }
    }
}

/// How many hosts are in which state. Each host is counted once but for `stuck`, which
/// is part of `in_transition`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All hosts.
    pub hosts: usize,
    /// In force for as long as it has to be.
    pub soaked: usize,
    /// In force for less.
    pub soaking: usize,
    /// In force, not known since when.
    pub in_force: usize,
    /// In a transition of the patch.
    pub in_transition: usize,
    /// In one that is stuck.
    pub stuck: usize,
    /// Crashed with the patch.
    pub crashed: usize,
    /// Gone silent with the patch.
    pub silent: usize,
    /// Not known how they are.
    pub missing: usize,
    /// Up without the patch, or with the patch disabled.
    pub to_do: usize,
}

/// The answer, and all it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// Why it is not to go on; all reasons, the gravest first.
    pub reasons: Vec<Reason>,
    /// What does not stop the rollout, but should be known.
    pub notices: Vec<Reason>,
    /// How many hosts are in which state.
    pub counts: Counts,
    /// In how many seconds the next host has soaked.
    pub next_soaked_in_seconds: Option<f64>,
    /// In how many seconds enough hosts have soaked, if all goes well.
    pub enough_soaked_in_seconds: Option<f64>,
    /// The risk that is left.
    pub risk: Risk,
}

impl Decision {
    /// That Prometheus did not answer as it should.
    #[must_use]
    pub fn no_answer(text: String, passes: Passes) -> Self {
        Self {
            verdict: Verdict::CannotTell,
            reasons: vec![Reason::unknown(Kind::Prometheus, text, passes)],
            notices: Vec::new(),
            counts: Counts::default(),
            next_soaked_in_seconds: None,
            enough_soaked_in_seconds: None,
            risk: Risk::new(0, 0, 0),
        }
    }

    /// Whether waiting may change the answer to the better, `soon` while every host may
    /// yet have to be scraped anew.
    #[must_use]
    pub fn may_pass(&self, soon: bool) -> bool {
        let passes = |reason: &Reason| match reason.passes {
            Passes::No => false,
            Passes::Soon => soon,
            Passes::InTime => true,
        };
        self.verdict == Verdict::CannotTell && self.reasons.iter().all(passes)
    }
}

/// What is known beside the hosts.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The patch.
    pub patch: &'a str,
    /// The hosts asked for, as matchers.
    pub hosts: &'a str,
    /// Warnings that came with the answers.
    pub warnings: &'a [String],
    /// Patches that hosts have loaded, where that was asked.
    pub known_patches: &'a [String],
}

/// Decides. A hold for what is known wins over what is not known; all reasons are given.
#[must_use]
pub fn decide(fleet: &Fleet, limits: &Limits, asked: &Asked<'_>) -> Decision {
    let counts = count(fleet);
    let mut soaking: Vec<f64> = fleet
        .hosts
        .iter()
        .filter_map(|fact| match fact.state {
            State::Soaking { left } => Some(left),
            _ => None,
        })
        .collect();
    soaking.sort_by(f64::total_cmp);
    let lacking = limits.min_hosts.saturating_sub(counts.soaked);
    let next = soaking.first().copied();
    let enough = match lacking {
        0 => None,
        lacking => soaking.get(lacking - 1).copied(),
    };
    let mut findings = Vec::new();
    findings.extend(failed(fleet, limits, &counts));
    findings.extend(stuck(fleet, limits, &counts));
    findings.extend(missing(fleet, limits, &counts));
    findings.extend(data(fleet, asked));
    findings.extend(absent(&counts, asked));
    if counts.hosts > 0 && lacking > 0 {
        findings.push(too_few(limits, &counts, next, enough));
    }
    findings.extend(forced(fleet));
    let (notices, mut reasons): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|reason| reason.verdict == Verdict::GoOn);
    reasons.sort_by_key(|reason| reason.verdict != Verdict::Hold);
    let verdict = reasons
        .first()
        .map_or(Verdict::GoOn, |reason| reason.verdict);
    let failures = counts.crashed + counts.silent;
    Decision {
        verdict,
        reasons,
        notices,
        next_soaked_in_seconds: next,
        enough_soaked_in_seconds: enough,
        risk: Risk::new(
            number(counts.soaked + failures),
            number(failures),
            number(counts.to_do),
        ),
        counts,
    }
}

fn number(hosts: usize) -> u64 {
    u64::try_from(hosts).unwrap_or(u64::MAX)
}

fn count(fleet: &Fleet) -> Counts {
    let mut counts = Counts {
        hosts: fleet.hosts.len(),
        ..Counts::default()
    };
    for fact in &fleet.hosts {
        let counter = match &fact.state {
            State::Crashed(_) => &mut counts.crashed,
            State::Silent(_) => &mut counts.silent,
            State::Missing(_) => &mut counts.missing,
            State::InTransition { stuck_tasks, .. } => {
                counts.stuck += usize::from(*stuck_tasks > 0.0);
                &mut counts.in_transition
            }
            State::Soaked => &mut counts.soaked,
            State::Soaking { .. } => &mut counts.soaking,
            State::InForce => &mut counts.in_force,
            State::Disabled | State::Without => &mut counts.to_do,
        };
        *counter += 1;
    }
    counts
}

/// The hosts of which there is something to say, with what.
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

fn failed(fleet: &Fleet, limits: &Limits, counts: &Counts) -> Option<Reason> {
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
        passes: Passes::No,
        hosts: named(fleet, |fact| match &fact.state {
            State::Crashed(causes) => {
                let causes: Vec<String> = causes.iter().map(cause).collect();
                Some(causes.join("; "))
            }
            State::Silent(Seen::InTransition(direction)) => Some(format!(
                "silent: does not answer, was in transition ({direction}) when last seen"
            )),
            State::Silent(Seen::Enabled) => {
                Some("silent: does not answer, had the patch enabled when last seen".to_owned())
            }
            _ => None,
        }),
    })
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
                || ", when is not known".to_owned(),
                |last| format!(", last at {last}"),
            );
            format!("crashed{times} with the patch{last}")
        }
        Cause::Signal(signal) => format!("crash signal {signal:?} implicates the patch"),
    }
}

/// A time as `2026-11-23T16:52:47Z`; none where it is out of range.
#[must_use]
pub fn date(seconds: f64) -> Option<String> {
    let since = std::time::Duration::try_from_secs_f64(seconds.floor()).ok()?;
    let time = std::time::UNIX_EPOCH.checked_add(since)?;
    // Years beyond 9999 have no such form.
    (since.as_secs() < 253_402_300_800).then(|| humantime::format_rfc3339_seconds(time).to_string())
}

fn stuck(fleet: &Fleet, limits: &Limits, counts: &Counts) -> Option<Reason> {
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
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn missing(fleet: &Fleet, limits: &Limits, counts: &Counts) -> Option<Reason> {
    if counts.missing == 0 {
        return None;
    }
    let too_many = counts.missing > limits.max_missing;
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
        passes: Passes::No,
        hosts: named(fleet, |fact| match &fact.state {
            State::Missing(missing) => Some(why_missing(*missing)),
            _ => None,
        }),
    })
}

fn why_missing(missing: Missing) -> String {
    match missing {
        Missing::Down => "down: does not answer, no sign of the patch within --lookback".to_owned(),
        Missing::Gone => {
            "gone: Prometheus scraped it within --lookback and does no more".to_owned()
        }
        Missing::Stale(age) => format!(
            "stale: last scraped {}; is Prometheus behind, or --stale-after below two scrape \
             intervals?",
            age.map_or_else(
                || "at a time that is not known".to_owned(),
                |age| format!("{age:.0} s ago")
            )
        ),
        Missing::NoCrashCount => "mute: has the patch and serves no \
             livepatch_patch_crashes_total; is its exporter too old, or its --state-dir \
             unreadable?"
            .to_owned(),
    }
}

fn data(fleet: &Fleet, asked: &Asked<'_>) -> Vec<Reason> {
    let problems = fleet
        .problems
        .iter()
        .map(|problem| Reason::unknown(Kind::BadData, problem.clone(), Passes::No));
    let warnings = asked.warnings.iter().map(|warning| {
        let text = format!("the answers may be partial, Prometheus warns: {warning}");
        Reason::unknown(Kind::Partial, text, Passes::InTime)
    });
    problems.chain(warnings).collect()
}

fn absent(counts: &Counts, asked: &Asked<'_>) -> Option<Reason> {
    if counts.hosts == 0 {
        let text = format!(
            "Prometheus knows no host with up{{{}}}: are --job and --selector right?",
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
    // It may have been loaded since the last scrape.
    Some(Reason::unknown(Kind::UnknownPatch, text, Passes::Soon))
}

/// Names shown beside an unknown one.
const NEAREST: usize = 5;

/// The known names most like this one, most alike first.
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

fn too_few(limits: &Limits, counts: &Counts, next: Option<f64>, enough: Option<f64>) -> Reason {
    let mut text = format!(
        "{} soaked, {} needed (--min-hosts): {} soaking, {} in transition",
        hosts(counts.soaked),
        limits.min_hosts,
        counts.soaking,
        counts.in_transition,
    );
    if counts.in_force > 0 {
        text.push_str(&format!(
            ", {} with the patch in force, not known since when",
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

/// `4m 10s`, rounded up to the second.
fn wait(seconds: f64) -> String {
    std::time::Duration::try_from_secs_f64(seconds.ceil()).map_or_else(
        |_| "a time that cannot be told".to_owned(),
        |left| humantime::format_duration(left).to_string(),
    )
}

fn forced(fleet: &Fleet) -> Option<Reason> {
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

#[cfg(test)]
mod tests;
