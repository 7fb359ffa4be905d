//! The timeline of a simulated host, and the rollout over all hosts.
//!
//! Times are in seconds on the scenario's own clock: 0 is the start of the scenario, earlier times
//! are negative. Nothing here reads a real clock.

use std::fmt;

use super::{prng, recorded::Phase};

/// The monitor's default of `--stuck-after`.
const STUCK_AFTER: f64 = 15.0;

/// The monitor's default of `--soak`.
const SOAK: f64 = 30.0 * 60.0;

/// From a crash's reboot to an exporter that answers counts as the reboot; from
/// boot to the start of a host that never crashed.
const LONG_AGO: f64 = -20.0 * 24.0 * 3600.0;

/// What happens to a host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event {
    /// The patch is loaded; its transition takes this long unless another event ends it.
    Patch {
        /// In seconds; may be infinite.
        takes: f64,
    },
    /// The task that held up the transition no longer does.
    Finish,
    /// The machine crashes and stays down.
    Crash,
    /// The machine boots or reboots, without the patch.
    Reboot,
}

/// The condition of a host at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Condition {
    Unpatched,
    Transition {
        began: f64,
    },
    /// The patch is in force.
    Patched {
        began: f64,
        completed: f64,
    },
    /// Down since a crash.
    Down {
        since: f64,
        /// What the host was doing when it crashed.
        during: Phase,
    },
    /// Up again, without the patch, with a record of the crash.
    Crashed {
        at: f64,
        /// What the host was doing when it crashed.
        during: Phase,
    },
}

impl Condition {
    /// Whether it is a transition that is old enough to count as stuck.
    pub(super) fn is_stuck(self, now: f64) -> bool {
        matches!(self, Self::Transition { began } if now - began >= STUCK_AFTER)
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unpatched => "unpatched",
            Self::Transition { .. } => "in transition",
            Self::Patched { .. } => "patched",
            Self::Down { .. } => "down",
            Self::Crashed { .. } => "up again after a crash",
        }
    }
}

/// Why an event cannot happen to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(String);

impl Refusal {
    pub(super) fn new(why: String) -> Self {
        Self(why)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The events of one host in order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline(Vec<(f64, Event)>);

impl Timeline {
    /// The condition of the host at a time.
    pub(super) fn at(&self, now: f64) -> Condition {
        self.followed(now).0
    }

    /// When the monitor that runs at this time was started.
    pub(super) fn monitor_start(&self, now: f64) -> f64 {
        self.0
            .iter()
            .filter(|(at, event)| *at <= now && *event == Event::Reboot)
            .map(|(at, _)| *at)
            .next_back()
            .unwrap_or(LONG_AGO)
    }

    /// Adds an event, which must not be earlier than the existing ones.
    pub(super) fn add(&mut self, at: f64, event: Event) -> Result<(), Refusal> {
        if self.0.last().is_some_and(|(last, _)| *last > at) {
            return Err(Refusal(
                "something is to happen to this host later, as the scenario has it".to_owned(),
            ));
        }
        let condition = self.at(at);
        if step(condition, at, event).is_none() {
            let verb = match event {
                Event::Patch { .. } => "be patched",
                Event::Finish => "finish a transition",
                Event::Crash => {
                    "crash (there is a recording of a crash in transition and soak only)"
                }
                Event::Reboot => "reboot",
            };
            return Err(Refusal(format!(
                "the host is {}, so it cannot {verb}",
                condition.word()
            )));
        }
        self.0.push((at, event));
        Ok(())
    }

    /// The condition, and how long the transition that runs will take.
    fn followed(&self, now: f64) -> (Condition, f64) {
        let mut condition = Condition::Unpatched;
        let mut takes = f64::INFINITY;
        for (at, event) in self.0.iter().take_while(|(at, _)| *at <= now) {
            condition = settled(condition, takes, *at);
            if let Some(next) = step(condition, *at, *event) {
                condition = next;
            }
            if let Event::Patch { takes: long } = event {
                takes = *long;
            }
        }
        (settled(condition, takes, now), takes)
    }
}

/// Ends a transition whose time is over.
fn settled(condition: Condition, takes: f64, now: f64) -> Condition {
    match condition {
        Condition::Transition { began } if began + takes <= now => Condition::Patched {
            began,
            completed: began + takes,
        },
        other => other,
    }
}

/// The condition after an event; `None` if the event is impossible.
fn step(condition: Condition, at: f64, event: Event) -> Option<Condition> {
    match (event, condition) {
        (Event::Patch { .. }, Condition::Unpatched) => Some(Condition::Transition { began: at }),
        (Event::Finish, Condition::Transition { began }) => Some(Condition::Patched {
            began,
            completed: at,
        }),
        (Event::Crash, Condition::Transition { .. }) => Some(Condition::Down {
            since: at,
            during: Phase::Transition,
        }),
        (Event::Crash, Condition::Patched { completed, .. }) if at - completed < SOAK => {
            Some(Condition::Down {
                since: at,
                during: Phase::Soak,
            })
        }
        (Event::Reboot, Condition::Down { since, during }) => {
            Some(Condition::Crashed { at: since, during })
        }
        (Event::Reboot, crashed @ Condition::Crashed { .. }) => Some(crashed),
        (Event::Reboot, _) => Some(Condition::Unpatched),
        _ => None,
    }
}

/// The parameters of a rollout that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Hosts of the fleet.
    pub(super) hosts: usize,
    /// The seed of the random numbers.
    pub(super) seed: u64,
    /// The scrape interval in seconds, the unit of the plan.
    pub(super) interval: f64,
    /// The fraction of hosts whose transition gets stuck.
    pub(super) stuck_ratio: f64,
}

/// A whole rollout: the events of every host, and the times that the measurement waits for.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// One for each host, in the order of their numbers.
    pub(super) timelines: Vec<Timeline>,
    /// By host: 0 for the canaries, then 1, 2, and 3, which is never started.
    pub(super) waves: Vec<usize>,
    /// The host that crashes first, and when.
    pub(super) first_crash: (usize, f64),
    /// The host that crashes second, which stops the rollout, and when.
    pub(super) second_crash: (usize, f64),
    /// When the first is up again.
    pub(super) first_reboot: f64,
    /// Nothing happens after this.
    pub(super) end: f64,
}

/// The fraction of the hosts up to which each wave goes.
const WAVES: [f64; 3] = [0.02, 0.12, 0.62];

/// Moments of the scenario, in scrape intervals.
mod moments {
    /// The third wave begins …
    pub(super) const WAVE: f64 = 1.0;
    /// … and would have begun on its last host.
    pub(super) const WAVE_END: f64 = 8.0;
    /// How long the two hosts that crash are in transition before, so that they are scraped in it.
    pub(super) const SEEN: f64 = 2.2;
    pub(super) const FIRST_CRASH: f64 = 4.0;
    pub(super) const SECOND_CRASH: f64 = 6.5;
    pub(super) const FIRST_REBOOT: f64 = 9.0;
    pub(super) const END: f64 = 12.0;
}

impl Plan {
    /// The smallest number of hosts: two crash, and others are patched before them.
    pub(super) const MIN_HOSTS: usize = 20;

    /// Builds the rollout: which host is patched when, gets stuck or crashes.
    pub(super) fn scenario(&self) -> Scenario {
        let draw = |what: u64, host: usize| prng::uniform(self.seed.wrapping_mul(31) ^ what, host);
        let mut order: Vec<usize> = (0..self.hosts).collect();
        order.sort_by(|a, b| draw(1, *a).total_cmp(&draw(1, *b)));
        let after = |intervals: f64| intervals * self.interval;
        let mut scenario = Scenario {
            timelines: vec![Timeline::default(); self.hosts],
            waves: vec![WAVES.len(); self.hosts],
            first_crash: (0, after(moments::FIRST_CRASH)),
            second_crash: (0, after(moments::SECOND_CRASH)),
            first_reboot: after(moments::FIRST_REBOOT),
            end: after(moments::END),
        };
        let mut next_to_crash = 0;
        for (rank, host) in order.into_iter().enumerate() {
            let part = share(rank, self.hosts);
            let Some(wave) = WAVES.iter().position(|end| part < *end) else {
                continue;
            };
            let begins = match wave {
                // Both have soaked, the canaries for long.
                0 => -7_200.0 + 600.0 * draw(2, host),
                1 => -3_600.0 + 600.0 * draw(2, host),
                _ => {
                    let span = moments::WAVE_END - moments::WAVE;
                    after(moments::WAVE + span * draw(2, host))
                }
            };
            let mut timeline = vec![(begins, self.patching(draw(3, host), draw(4, host), wave))];
            if wave == WAVES.len() - 1 && next_to_crash < 2 {
                let crash = if next_to_crash == 0 {
                    &mut scenario.first_crash
                } else {
                    &mut scenario.second_crash
                };
                crash.0 = host;
                let seen = after(moments::SEEN);
                let takes = f64::INFINITY;
                timeline = vec![
                    (crash.1 - seen, Event::Patch { takes }),
                    (crash.1, Event::Crash),
                ];
                if next_to_crash == 0 {
                    timeline.push((scenario.first_reboot, Event::Reboot));
                }
                next_to_crash += 1;
            } else if begins > scenario.second_crash.1 {
                // The rollout is stopped.
                timeline.clear();
            }
            if let (Some(of_host), Some(wave_of_host)) = (
                scenario.timelines.get_mut(host),
                scenario.waves.get_mut(host),
            ) {
                *of_host = Timeline(timeline);
                *wave_of_host = wave;
            }
        }
        scenario
    }

    /// A patch event: most transitions take a few seconds; some wait for a task.
    fn patching(&self, luck: f64, length: f64, wave: usize) -> Event {
        let between = |least: f64, most: f64| least * (most / least).powf(length);
        let takes = if luck >= self.stuck_ratio {
            between(0.2, 5.0)
        } else if wave == WAVES.len() - 1 {
            between(STUCK_AFTER, 1_800.0)
        } else {
            // Some hosts of the earlier waves are still waiting.
            between(STUCK_AFTER, 20_000.0)
        };
        Event::Patch { takes }
    }
}

/// The fraction of `all` that is before `rank`.
fn share(rank: usize, all: usize) -> f64 {
    let float = |number: usize| u32::try_from(number).map_or(f64::from(u32::MAX), f64::from);
    float(rank) / float(all).max(1.0)
}

#[cfg(test)]
mod tests;
