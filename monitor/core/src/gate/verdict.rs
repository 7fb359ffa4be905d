//! Whether the patch may go to more hosts, and why.

mod reasons;

use serde::Serialize;

use super::{
    hosts::{Fleet, State},
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
    findings.extend(reasons::failed(fleet, limits, &counts));
    findings.extend(reasons::stuck(fleet, limits, &counts));
    findings.extend(reasons::missing(fleet, limits, &counts));
    findings.extend(reasons::data(fleet, asked));
    findings.extend(reasons::absent(&counts, asked));
    if counts.hosts > 0 && lacking > 0 {
        findings.push(reasons::too_few(limits, &counts, next, enough));
    }
    findings.extend(reasons::forced(fleet));
    let (notices, mut against): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|reason| reason.verdict == Verdict::GoOn);
    against.sort_by_key(|reason| reason.verdict != Verdict::Hold);
    let verdict = against
        .first()
        .map_or(Verdict::GoOn, |reason| reason.verdict);
    let failures = counts.crashed + counts.silent;
    Decision {
        verdict,
        reasons: against,
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

/// A time as `2026-11-23T16:52:47Z`; none where it is out of range.
#[must_use]
pub fn date(seconds: f64) -> Option<String> {
    let since = std::time::Duration::try_from_secs_f64(seconds.floor()).ok()?;
    let time = std::time::UNIX_EPOCH.checked_add(since)?;
    // Years beyond 9999 have no such form.
    (since.as_secs() < 253_402_300_800).then(|| humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests;
