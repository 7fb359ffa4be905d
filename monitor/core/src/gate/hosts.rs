//! Derives the state of each host from the results of the queries.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use super::answer::Host;
use super::{
    answer::Sample,
    promql::{Question, WINDOW},
};

/// All questions with their answers.
pub type Answers = BTreeMap<Question, Vec<Sample>>;

/// The criteria by which hosts are judged.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Time at which the queries were evaluated, in seconds since 1970.
    pub time: f64,
    /// How long a patch must be in force without a crash to have soaked.
    pub soak: Duration,
    /// Crashes before this time are ignored, in seconds since 1970.
    pub since: Option<f64>,
    /// A host whose last scrape is older than this is stale.
    pub stale_after: Duration,
}

/// The state of a host with respect to the patch.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The host crashed with the patch, or a crash signal implicates the patch.
    Crashed(Vec<Cause>),
    /// The host is down, and had the patch when it was last scraped.
    Silent {
        /// What it was doing then.
        seen: Seen,
        /// Whether it was scraped so recently that it may only have missed a scrape.
        blip: bool,
    },
    /// The state of the host is unknown.
    Missing(Missing),
    /// A transition of the patch is running.
    InTransition {
        /// Direction of the transition: `patch` or `unpatch`.
        direction: String,
        /// Pending tasks of a transition older than the exporter's --stuck-after; 0 if
        /// it is not stuck.
        stuck_tasks: f64,
    },
    /// The patch has been in force for the soak time.
    Soaked,
    /// The patch is in force, but not yet for the soak time.
    Soaking {
        /// Seconds until the host has soaked.
        left: f64,
    },
    /// The patch is in force since an unknown time.
    InForce,
    /// The host is up, and the patch is loaded but not enabled.
    Disabled,
    /// The host is up, could read its loaded livepatches, and does not have the patch.
    Without,
}

/// Why a host counts as crashed.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The host has crashes on record that the patch may have caused.
    Crash {
        /// Number of crashes on record.
        count: f64,
        /// Time of the last crash, in seconds since 1970.
        last: Option<f64>,
    },
    /// A crash signal that implicates the patch.
    Signal(String),
}

/// The state of the patch when a silent host was last scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// In transition, in this direction.
    InTransition(String),
    /// The patch was enabled.
    Enabled,
}

/// Why the state of a host is unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Missing {
    /// The host is down, and did not have the patch when it was last scraped.
    Down {
        /// Whether it was scraped so recently that it may only have missed a scrape.
        blip: bool,
    },
    /// Prometheus no longer scrapes the host.
    Gone,
    /// The host was expected, and Prometheus has no data on it within the lookback.
    NeverSeen,
    /// The last scrape is too old, or its time is not plausible.
    Stale {
        /// Its age in seconds, negative if it lies in the future; `None` if it is unknown.
        age: Option<f64>,
        /// Seconds between two scrapes of the host, if it could be measured.
        interval: Option<f64>,
    },
    /// The host has the patch but does not report a crash count for it.
    NoCrashCount,
    /// The host answers, but its monitor does not know which livepatches are loaded.
    Unread {
        /// Whether the monitor reports that it cannot read them; otherwise it reports nothing.
        reported: bool,
    },
    /// The host's textfile was written this many seconds before it was scraped.
    File(f64),
    /// The host's time contradicts that of Prometheus: its clock is wrong.
    Clock(Clock),
}

impl Missing {
    /// Whether it may be over after the next scrapes.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Down { blip } => blip,
            Self::Stale { .. } | Self::Unread { .. } => true,
            Self::Gone | Self::NeverSeen | Self::NoCrashCount | Self::File(_) | Self::Clock(_) => {
                false
            }
        }
    }
}

/// How the clock of a host contradicts Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clock {
    /// The patch is in force since a time that is this many seconds in the future.
    Ahead(f64),
    /// The host says that the patch has been in force for this many seconds, but Prometheus
    /// scraped it without the patch less long ago.
    Behind(f64),
    /// The host's clock was ahead of the scrape by this many seconds; negative if behind.
    Off(f64),
}

/// The hosts that must be known to Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// At least this many.
    Count(usize),
    /// These, each as label `instance`, with or without its port.
    Names(BTreeSet<String>),
}

/// A host and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The scrape target, by its labels.
    pub host: Host,
    /// What the gate knows of the patch on it.
    pub state: State,
    /// Whether a transition of the patch was forced on it.
    pub forced: bool,
}

/// All hosts, sorted by name, and the parts of the results that could not be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Each host that a result names or that is expected, once.
    pub hosts: Vec<Fact>,
    /// Why the results are unreliable.
    pub problems: Vec<String>,
}

/// The hosts that are down: the questions of [`Question::SILENT`] are about them.
#[must_use]
pub fn silent(answers: &Answers) -> Vec<Host> {
    let of = |question| answers.get(&question).into_iter().flatten();
    let down = of(Question::Up).filter(|sample| !is_up(sample.value));
    down.chain(of(Question::Gone)).filter_map(host).collect()
}

/// Whether the last scrape succeeded. `up` is 1 after a successful scrape and 0 after a
/// failed one; NaN counts as failed.
fn is_up(value: f64) -> bool {
    value > 0.0
}

fn host(sample: &Sample) -> Option<Host> {
    Some(Host {
        instance: sample.labels.get("instance")?.clone(),
        job: sample.labels.get("job")?.clone(),
    })
}

/// The result of one question by host and, if it has one, by one more label.
type ByHost<'a> = BTreeMap<Host, Vec<(&'a str, f64)>>;

/// Seconds between two scrapes of this host, from how often it was scraped in two windows: a
/// host that has just ended has few scrapes in the newer, a new one none in the older.
fn interval(now: Option<f64>, before: Option<f64>) -> Option<f64> {
    let scrapes = now.unwrap_or(0.0).max(before.unwrap_or(0.0));
    (scrapes >= 2.0 && scrapes.is_finite()).then(|| WINDOW.as_secs_f64() / scrapes)
}

/// How old the last scrape of a host may be: two scrape intervals, and at least 10 s more than
/// one for the delivery by remote write (5 s a batch by default), but never more than
/// `stale_after`.
fn oldest_scrape(interval: Option<f64>, stale_after: Duration) -> f64 {
    let stale_after = stale_after.as_secs_f64();
    interval.map_or(stale_after, |interval| {
        (2.0 * interval).max(interval + 10.0).min(stale_after)
    })
}

/// The longest of [`oldest_scrape`] of all hosts: a host that could be scraped within this
/// time may only have missed a scrape.
#[must_use]
pub fn blip(answers: &Answers, stale_after: Duration) -> Duration {
    let counts = |question| {
        let samples = answers.get(&question).into_iter().flatten();
        samples.filter_map(|sample| Some((host(sample)?, sample.value)))
    };
    let before: BTreeMap<Host, f64> = counts(Question::ScrapesBefore).collect();
    let limits = counts(Question::Scrapes).filter_map(|(host, now)| {
        let interval = interval(Some(now), before.get(&host).copied())?;
        Some(oldest_scrape(Some(interval), stale_after))
    });
    // A scrape interval at least as long as `stale_after` leaves no room for a blip.
    Duration::try_from_secs_f64(limits.fold(0.0, f64::max).ceil()).unwrap_or(Duration::ZERO)
}

/// Derives the state of every host from all results.
#[must_use]
pub fn read(answers: &Answers, terms: &Terms, expected: Option<&Expected>) -> Fleet {
    let mut reader = Reader {
        answers,
        terms,
        problems: Vec::new(),
    };
    let tables: BTreeMap<Question, ByHost<'_>> = answers
        .keys()
        .filter(|question| **question != Question::KnownPatches)
        .map(|&question| (question, reader.by_host(question)))
        .collect();
    // What was true a while ago says nothing about which hosts there are now.
    let current = tables.iter().filter(|(question, _)| !question.is_past());
    let hosts: BTreeSet<&Host> = current.flat_map(|(_, table)| table.keys()).collect();
    let facts = hosts.into_iter().map(|host| {
        let of = |question| {
            let table = tables.get(&question)?;
            table.get(host).map(Vec::as_slice)
        };
        Fact {
            state: reader.state(&of),
            forced: of(Question::Forced).is_some(),
            host: host.clone(),
        }
    });
    let mut hosts: Vec<Fact> = facts.collect();
    if let Some(Expected::Names(names)) = expected {
        let unseen = never_seen(names, &hosts);
        hosts.extend(unseen);
        hosts.sort_by(|one, other| one.host.cmp(&other.host));
    }
    reader.duplicates(&tables);
    Fleet {
        hosts,
        problems: reader.problems,
    }
}

/// The expected hosts that Prometheus has no data about.
fn never_seen(names: &BTreeSet<String>, hosts: &[Fact]) -> Vec<Fact> {
    let without_port = |instance: &str| match instance.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host.to_owned(),
        _ => instance.to_owned(),
    };
    let seen: BTreeSet<&str> = hosts.iter().map(|fact| &*fact.host.instance).collect();
    let seen_hosts: BTreeSet<String> = seen.iter().copied().map(without_port).collect();
    let job = hosts.first().map_or("", |fact| &fact.host.job);
    let unseen = names
        .iter()
        .filter(|name| !seen.contains(name.as_str()) && !seen_hosts.contains(*name));
    unseen
        .map(|name| Fact {
            host: Host {
                instance: name.clone(),
                job: job.to_owned(),
            },
            state: State::Missing(Missing::NeverSeen),
            forced: false,
        })
        .collect()
}

/// By how many seconds the clock of a host may differ from Prometheus's. A clock that is ahead
/// makes a host soak longer by as much, one that is behind makes it soak shorter.
const CLOCK: f64 = 60.0;

struct Reader<'a> {
    answers: &'a Answers,
    terms: &'a Terms,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn by_host(&mut self, question: Question) -> ByHost<'a> {
        let mut table = ByHost::new();
        let (mut nameless, mut numberless) = (0_usize, None);
        for sample in self.answers.get(&question).map_or(&[][..], Vec::as_slice) {
            let Some(host) = host(sample) else {
                nameless += 1;
                continue;
            };
            if !sample.value.is_finite() {
                numberless = Some((host.instance.clone(), sample.value));
            }
            let label = sample
                .labels
                .get("direction")
                .or_else(|| sample.labels.get("signal"));
            let label = label.map_or("", String::as_str);
            table.entry(host).or_default().push((label, sample.value));
        }
        let metric = question.metric();
        if nameless > 0 {
            self.problems.push(format!(
                "{nameless} series of {metric} lack the label job or instance: \
                 the gate needs both to tell hosts apart"
            ));
        }
        if let Some((instance, value)) = numberless {
            self.problems.push(format!(
                "{metric} of {instance:?} has the invalid value {value}"
            ));
        }
        table
    }

    /// Reports series of `up` that share job and instance: two hosts, or one host scraped
    /// twice.
    fn duplicates(&mut self, tables: &BTreeMap<Question, ByHost<'_>>) {
        let twice: Vec<&str> = tables
            .get(&Question::Up)
            .into_iter()
            .flatten()
            .filter(|(_, series)| series.len() > 1)
            .map(|(host, _)| host.instance.as_str())
            .collect();
        if let Some(first) = twice.first() {
            self.problems.push(format!(
                "{} hosts have more than one series of up with the same job and instance, \
                starting with {first:?}: narrow --selector to one source, or let Thanos \
                deduplicate its replicas",
                twice.len()
            ));
        }
    }

    fn state<'t>(&self, of: &impl Fn(Question) -> Option<&'t [(&'t str, f64)]>) -> State {
        let first = |question| of(question).and_then(|series| series.first()).copied();
        let value = |question| first(question).map(|(_, value)| value);
        let causes = self.causes(of);
        if !causes.is_empty() {
            return State::Crashed(causes);
        }
        let up = value(Question::Up);
        let down = up.is_some_and(|up| !is_up(up));
        let gone = up.is_none();
        if down || gone {
            let blip = down && value(Question::UpRecently).is_some_and(is_up);
            if let Some((direction, _)) = first(Question::LastTransition) {
                let seen = Seen::InTransition(direction.to_owned());
                return State::Silent { seen, blip };
            }
            // A host that was removed from service discovery after its transition has most
            // likely been retired.
            if down && value(Question::LastEnabled).is_some_and(|enabled| enabled > 0.0) {
                let seen = Seen::Enabled;
                return State::Silent { seen, blip };
            }
            return State::Missing(if down {
                Missing::Down { blip }
            } else {
                Missing::Gone
            });
        }
        let age = value(Question::Scraped).map(|scraped| self.terms.time - scraped);
        let interval = interval(value(Question::Scrapes), value(Question::ScrapesBefore));
        let limit = oldest_scrape(interval, self.terms.stale_after);
        if !age.is_some_and(|age| (-1.0..=limit).contains(&age)) {
            return State::Missing(Missing::Stale { age, interval });
        }
        let limit = self.terms.stale_after.as_secs_f64();
        match value(Question::FileAge) {
            Some(age) if age < -CLOCK => return State::Missing(Missing::Clock(Clock::Off(-age))),
            Some(age) if age.is_nan() || age > limit => return State::Missing(Missing::File(age)),
            _ => {}
        }
        let enabled = value(Question::Enabled);
        let is_enabled = enabled.is_some_and(|enabled| enabled > 0.0);
        if is_enabled && value(Question::Crashes).is_none() {
            return State::Missing(Missing::NoCrashCount);
        }
        if let Some((direction, _)) = first(Question::Transition) {
            return State::InTransition {
                direction: direction.to_owned(),
                stuck_tasks: value(Question::Stuck).unwrap_or(0.0),
            };
        }
        let behind = value(Question::Behind).filter(|behind| behind.abs() > CLOCK);
        match enabled {
            // If sysfs could not be read, an absent patch proves nothing.
            None => match value(Question::SysfsRead) {
                Some(read) if read > 0.0 => State::Without,
                read => State::Missing(Missing::Unread {
                    reported: read.is_some(),
                }),
            },
            Some(_) if is_enabled && let Some(behind) = behind => {
                State::Missing(Missing::Clock(Clock::Off(-behind)))
            }
            Some(_) if is_enabled => {
                value(Question::PatchingComplete).map_or(State::InForce, |completed| {
                    let unseen_before = value(Question::UpBefore).is_some_and(is_up)
                        && !value(Question::EnabledBefore).is_some_and(|enabled| enabled > 0.0);
                    self.in_force_since(completed, unseen_before)
                })
            }
            Some(_) => State::Disabled,
        }
    }

    /// The state of a host on which the patch is in force, as the host dates it.
    /// `unseen_before`: Prometheus scraped it without the patch at a time at which it must have
    /// had it to have soaked.
    fn in_force_since(&self, completed: f64, unseen_before: bool) -> State {
        let age = self.terms.time - completed;
        let left = self.terms.soak.as_secs_f64() - age;
        if age < -CLOCK {
            State::Missing(Missing::Clock(Clock::Ahead(-age)))
        } else if left > 0.0 {
            State::Soaking { left }
        } else if unseen_before {
            State::Missing(Missing::Clock(Clock::Behind(age)))
        } else {
            State::Soaked
        }
    }

    fn causes<'t>(&self, of: &impl Fn(Question) -> Option<&'t [(&'t str, f64)]>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let counts = |last: Option<f64>| match (self.terms.since, last) {
            (Some(since), Some(last)) => last >= since,
            _ => true,
        };
        let first = |one, other| {
            let series = of(one).or_else(|| of(other))?;
            series.first().map(|(_, value)| *value)
        };
        let last = first(Question::LastCrash, Question::LastCrashTime);
        if let Some(count) = first(Question::Crashes, Question::LastCrashes)
            && count > 0.0
            && counts(last)
        {
            causes.push(Cause::Crash { count, last });
        }
        let signals = of(Question::Signals).or_else(|| of(Question::LastSignals));
        for (signal, _) in signals.unwrap_or_default() {
            let when = of(Question::LastSignal)
                .unwrap_or_default()
                .iter()
                .find(|(name, _)| name == signal);
            if counts(when.map(|(_, when)| *when)) {
                causes.push(Cause::Signal((*signal).to_owned()));
            }
        }
        causes
    }
}

#[cfg(test)]
mod tests;
