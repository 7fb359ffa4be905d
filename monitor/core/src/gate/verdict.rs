//! Decides whether the patch may go to more hosts, and gives the reasons.

mod reasons;

use serde::Serialize;

use super::{
    hosts::{Expected, Fleet, State},
    risk::{MaxRisk, Risk},
};

/// Limits that the gate allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many hosts may have failed.
    pub max_crashed: usize,
    /// Ratio of the hosts with the patch that may be stuck, from 0 to 1.
    pub max_stuck_ratio: f64,
    /// How many hosts must have soaked.
    pub min_hosts: usize,
    /// How many hosts may be in an unknown state.
    pub max_missing: usize,
    /// How many hosts are to get the patch next; all that are up without it if not given.
    pub next: Option<u64>,
    /// The highest risk allowed for them.
    pub max_risk: Option<MaxRisk>,
}

/// The decision of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The patch may go to more hosts.
    GoOn,
    /// The patch must not go to more hosts.
    Hold,
    /// The patch must not go to more hosts until more is known.
    CannotTell,
}

impl Verdict {
    /// The verdict as the report prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GoOn => "continue",
            Self::Hold => "hold",
            Self::CannotTell => "cannot determine",
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

/// The category of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// More hosts failed than allowed.
    Failed,
    /// More hosts are stuck than allowed.
    Stuck,
    /// More hosts are in an unknown state than allowed.
    Missing,
    /// Fewer hosts soaked than required.
    TooFewSoaked,
    /// The risk that the next hosts fail is higher than allowed.
    Risk,
    /// The selector matches no host.
    NoHosts,
    /// No host has the patch loaded.
    UnknownPatch,
    /// The results may be partial.
    Partial,
    /// The results are contradictory or invalid.
    BadData,
    /// A query failed, or its response could not be used.
    Prometheus,
    /// A transition was forced; always a notice, never a reason to hold.
    Forced,
}

/// Whether a reason may go away by waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Passes {
    /// It stays until someone acts.
    No,
    /// If it goes away, then as soon as every host has been scraped again.
    Soon,
    /// It goes away with time.
    InTime,
}

/// One host with the detail that the report shows for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Labels of the host.
    #[serde(flatten)]
    pub host: HostName,
    /// What the report says about the host.
    pub detail: String,
}

/// The labels that identify a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostName {
    /// Label `instance`: the address that Prometheus scrapes.
    pub instance: String,
    /// Label `job`: the scrape job in Prometheus's configuration.
    pub job: String,
}

/// A reason why the verdict is not "continue".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The verdict that follows from this reason alone.
    pub verdict: Verdict,
    /// Category of the reason.
    pub kind: Kind,
    /// The reason as a sentence, with the remedy.
    pub text: String,
    /// Whether it may go away by waiting.
    pub passes: Passes,
    /// The hosts concerned; empty if the reason concerns the fleet as a whole.
    pub hosts: Vec<Named>,
}

impl Reason {
    /// A reason for "cannot determine" that concerns no host in particular.
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

/// Number of hosts per state. Each host is counted once, except that `stuck` is part of
/// `in_transition`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All hosts that the selector matches or that are expected.
    pub hosts: usize,
    /// Hosts on which the patch has been in force for the soak time.
    pub soaked: usize,
    /// Hosts on which the patch is in force, but not yet for the soak time.
    pub soaking: usize,
    /// Hosts on which the patch is in force since an unknown time.
    pub in_force: usize,
    /// Hosts in transition of the patch.
    pub in_transition: usize,
    /// Hosts in transition that are stuck.
    pub stuck: usize,
    /// Hosts that crashed with the patch.
    pub crashed: usize,
    /// Hosts that went silent with the patch.
    pub silent: usize,
    /// Hosts in an unknown state.
    pub missing: usize,
    /// Hosts that are up without the patch, or with the patch disabled.
    pub to_do: usize,
}

/// The verdict with everything it is based on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Whether the rollout may continue.
    pub verdict: Verdict,
    /// All reasons why the verdict is not "continue", the most severe first.
    pub reasons: Vec<Reason>,
    /// Reasons that do not stop the rollout but that an operator should know.
    pub notices: Vec<Reason>,
    /// Number of hosts per state.
    pub counts: Counts,
    /// Seconds until the next host has soaked.
    pub next_soaked_in_seconds: Option<f64>,
    /// Seconds until enough hosts have soaked, if none fails.
    pub enough_soaked_in_seconds: Option<f64>,
    /// The remaining risk of the rollout.
    pub risk: Risk,
}

impl Decision {
    /// The decision "cannot determine" because a query failed.
    #[must_use]
    pub fn no_answer(text: String, passes: Passes) -> Self {
        Self {
            verdict: Verdict::CannotTell,
            reasons: vec![Reason::unknown(Kind::Prometheus, text, passes)],
            notices: Vec::new(),
            counts: Counts::default(),
            next_soaked_in_seconds: None,
            enough_soaked_in_seconds: None,
            risk: Risk::new(0, 0, 0, None, None),
        }
    }

    /// Whether waiting may improve the verdict; `soon` is true until every host has had time
    /// to be scraped again.
    #[must_use]
    pub fn may_pass(&self, soon: bool) -> bool {
        let passes = |reason: &Reason| match reason.passes {
            Passes::No => false,
            Passes::Soon => soon,
            Passes::InTime => true,
        };
        self.verdict != Verdict::GoOn && self.reasons.iter().all(passes)
    }
}

/// The question put to the gate, and what is known besides the hosts.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Name of the patch.
    pub patch: &'a str,
    /// The label matchers that select the hosts.
    pub hosts: &'a str,
    /// Warnings that came with the results.
    pub warnings: &'a [String],
    /// Patches that hosts have loaded, if that was queried.
    pub known_patches: &'a [String],
    /// The hosts that Prometheus must know.
    pub expected: Option<&'a Expected>,
}

/// Decides. A known reason to hold takes precedence over "cannot determine"; all reasons are
/// reported.
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
    findings.extend(reasons::unknown_hosts(asked.expected, limits, &counts));
    findings.extend(reasons::data(fleet, asked));
    findings.extend(reasons::absent(&counts, asked));
    if counts.hosts > 0 && lacking > 0 {
        findings.push(reasons::too_few(limits, &counts, next, enough));
    }
    let failures = counts.crashed + counts.silent;
    let risk = Risk::new(
        number(counts.soaked + failures),
        number(failures),
        number(counts.to_do),
        limits.next,
        limits.max_risk,
    );
    if let Some(limit) = limits.max_risk
        && counts.hosts > 0
    {
        findings.extend(reasons::risk(&risk, limit, &counts));
    }
    findings.extend(reasons::forced(fleet));
    let (notices, mut against): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|reason| reason.verdict == Verdict::GoOn);
    against.sort_by_key(|reason| reason.verdict != Verdict::Hold);
    let verdict = against
        .first()
        .map_or(Verdict::GoOn, |reason| reason.verdict);
    Decision {
        verdict,
        reasons: against,
        notices,
        next_soaked_in_seconds: next,
        enough_soaked_in_seconds: enough,
        risk,
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
            State::Silent { .. } => &mut counts.silent,
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

/// Formats a time as `2026-11-23T16:52:47Z`; `None` if it is out of range.
#[must_use]
pub fn date(seconds: f64) -> Option<String> {
    let since = std::time::Duration::try_from_secs_f64(seconds.floor()).ok()?;
    let time = std::time::UNIX_EPOCH.checked_add(since)?;
    // Years beyond 9999 cannot be written in this form.
    (since.as_secs() < 253_402_300_800).then(|| humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests;
