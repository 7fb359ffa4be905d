//! The simulated hosts: their timelines, and what each one serves at a given time.

use std::{
    sync::{PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    recorded::{Facts, Recordings, State},
    scenario::{Condition, Event, Refusal, Timeline},
};

/// Two kernel releases, as in a fleet that is being upgraded.
const RELEASES: [&str; 2] = ["6.12.95+deb12-cloud-amd64", "6.12.90+deb12-cloud-amd64"];

/// Number of digits in a host's name.
const DIGITS: usize = 5;

/// All hosts; they are read and changed by different threads.
#[derive(Debug)]
pub(crate) struct Hosts {
    recordings: Recordings,
    timelines: RwLock<Vec<Timeline>>,
    clock: RwLock<Clock>,
}

/// The scenario's clock. It stays at 0 until the scenario begins, because Prometheus needs some
/// time for the first scrape of thousands of hosts.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// The scenario's time 0, in seconds since 1970.
    epoch: f64,
    runs: bool,
}

impl Clock {
    fn now(self) -> Result<f64> {
        Ok(if self.runs {
            unix_now()? - self.epoch
        } else {
            0.0
        })
    }
}

/// What the scenario knows about a host.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    instance: String,
    state: &'static str,
}

impl Hosts {
    /// Hosts with these timelines, in their state at the start of the scenario.
    pub(super) fn new(recordings: Recordings, timelines: Vec<Timeline>) -> Result<Self> {
        Ok(Self {
            recordings,
            timelines: RwLock::new(timelines),
            clock: RwLock::new(Clock {
                epoch: unix_now()?,
                runs: false,
            }),
        })
    }

    pub(super) fn begin(&self) -> Result<()> {
        *self.clock.write().unwrap_or_else(PoisonError::into_inner) = Clock {
            epoch: unix_now()?,
            runs: true,
        };
        Ok(())
    }

    fn clock(&self) -> Clock {
        *self.clock.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of hosts.
    pub(super) fn len(&self) -> usize {
        self.timelines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The time on the scenario's clock.
    pub(super) fn now(&self) -> Result<f64> {
        self.clock().now()
    }

    /// The response of a host to a scrape; `None` while it is down.
    pub(super) fn scrape(&self, host: usize) -> Result<Option<String>> {
        let clock = self.clock();
        let timelines = self
            .timelines
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let timeline = timelines.get(host).context("no such host")?;
        Ok(self.exposition(host, timeline, clock.epoch, clock.now()?))
    }

    fn exposition(&self, host: usize, timeline: &Timeline, epoch: f64, now: f64) -> Option<String> {
        let mut facts = Facts {
            host,
            now: epoch + now,
            release: RELEASES[usize::from(host.is_multiple_of(5))],
            monitor_start: epoch + timeline.monitor_start(now),
            transition_start: None,
            complete: None,
            duration: None,
            crash: None,
        };
        let condition = timeline.at(now);
        let state = match condition {
            Condition::Down { .. } => return None,
            Condition::Unpatched => State::Unpatched,
            Condition::Transition { began } => {
                facts.transition_start = Some(epoch + began);
                if condition.is_stuck(now) {
                    State::Stuck
                } else {
                    State::Transition
                }
            }
            Condition::Patched { began, completed } => {
                facts.complete = Some(epoch + completed);
                facts.duration = Some(completed - began);
                State::Patched
            }
            Condition::Crashed { at, during } => {
                facts.crash = Some((epoch + at, during));
                State::Crashed
            }
        };
        Some(self.recordings.of(state).render(&facts))
    }

    /// Applies an event to a host now.
    pub(super) fn happen(&self, host: usize, event: Event) -> Result<(), Refusal> {
        let now = self
            .now()
            .map_err(|error| Refusal::new(format!("{error:#}")))?;
        let mut timelines = self
            .timelines
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match timelines.get_mut(host) {
            Some(timeline) => timeline.add(now, event),
            None => Err(Refusal::new("there is no such host".to_owned())),
        }
    }

    /// The present condition of each host.
    pub(super) fn accounts(&self) -> Result<Vec<Account>> {
        let now = self.now()?;
        let timelines = self
            .timelines
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(timelines
            .iter()
            .enumerate()
            .map(|(host, timeline)| Account {
                instance: instance(host),
                state: timeline.at(now).word(),
            })
            .collect())
    }

    /// The number of series of a host in the state with the most.
    pub(super) fn series_of_a_host(&self) -> usize {
        self.recordings.of(State::Patched).series()
    }
}

/// The label `instance` of a host: they are counted from 1.
pub(crate) fn instance(host: usize) -> String {
    format!("host-{}", number(host))
}

fn number(host: usize) -> String {
    format!("{:0DIGITS$}", host + 1)
}

/// The host with a name: `host-00001` or `00001`.
pub(super) fn host_of(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("host-").unwrap_or(name);
    digits.parse::<usize>().ok()?.checked_sub(1)
}

/// A file of targets for Prometheus's `file_sd_configs`.
pub(super) fn targets(port: u16, waves: &[usize]) -> serde_json::Value {
    waves
        .iter()
        .enumerate()
        .map(|(host, wave)| {
            serde_json::json!({
                "targets": [format!("127.0.0.1:{port}")],
                "labels": {
                    "__metrics_path__": metrics_path(host),
                    "instance": instance(host),
                    "env": "prod",
                    "wave": wave.to_string(),
                },
            })
        })
        .collect()
}

/// The path of a host's metrics.
pub(super) fn metrics_path(host: usize) -> String {
    format!("/host/{}/metrics", number(host))
}

fn unix_now() -> Result<f64> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs_f64())
        .context("the clock is before 1970")
}
