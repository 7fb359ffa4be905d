//! The patches that the log speaks of, and how far each has come.

use super::super::record::{Last, Running};
use crate::{message::LivepatchMessage as Message, transition::Direction};

/// Patches that are followed; a host has a handful.
const MAX_PATCHES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Life {
    /// Its module is there, its enabling has not returned or was not heard of.
    Loading,
    Transition(Direction),
    Done(Direction),
    Failed,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Known {
    pub(in super::super) name: String,
    pub(in super::super) life: Life,
    /// Of the out-of-tree kpatch core.
    pub(in super::super) kpatch: bool,
    /// Since when, on the log's clock.
    since: Option<f64>,
}

impl Known {
    /// Seconds since its last step.
    pub(in super::super) fn age(&self, now: Option<f64>) -> Option<f64> {
        Some((now? - self.since?).max(0.0))
    }
}

/// What the log has said up to here.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Timeline {
    /// The one that something was last said of is the last.
    pub(in super::super) patches: Vec<Known>,
    /// The out-of-tree kpatch core has spoken.
    pub(in super::super) kpatch_core: bool,
    /// Tasks were signaled, so that a transition ran: the line that names its patch is
    /// in a part of the log that is not here.
    pub(in super::super) unnamed: bool,
}

impl Timeline {
    /// Whether a line may be one to [`Self::read`].
    pub(super) fn concerns(text: &str) -> bool {
        text.starts_with("livepatch: ")
            || text.starts_with("kpatch: ")
            || text.trim_end().ends_with("TAINT_LIVEPATCH")
    }

    pub(super) fn read(&mut self, text: &str, at: Option<f64>) {
        if let Some(text) = text.strip_prefix("kpatch: ") {
            self.kpatch_core = true;
            let named = |start| {
                let rest: &str = text.strip_prefix(start)?;
                Some(rest.trim_end().strip_suffix('\'')?.to_owned())
            };
            if let Some(name) = named("loaded patch module '") {
                self.set(name, Life::Done(Direction::Patch), true, at);
            } else if let Some(name) = named("unloaded patch module '") {
                self.set(name, Life::Done(Direction::Unpatch), true, at);
            }
            return;
        }
        match Message::recognise(text.trim_end()) {
            Some(Message::Signaling) => self.unnamed = self.running(at).is_none(),
            Some(Message::Tainting { module: patch })
                if !self.patches.iter().any(|known| known.name == patch) =>
            {
                self.set(patch, Life::Loading, false, at);
            }
            Some(Message::Enabling { patch }) => self.set(patch, Life::Loading, false, at),
            Some(Message::Starting { patch, direction }) => {
                self.set(patch, Life::Transition(direction), false, at);
            }
            Some(Message::Complete { patch, direction }) => {
                self.set(patch, Life::Done(direction), false, at);
            }
            Some(Message::FailedToEnable { patch }) => self.set(patch, Life::Failed, false, at),
            _ => {}
        }
    }

    fn set(&mut self, name: String, life: Life, kpatch: bool, since: Option<f64>) {
        self.unnamed = false;
        self.patches.retain(|known| known.name != name);
        if self.patches.len() == MAX_PATCHES {
            self.patches.remove(0);
        }
        self.patches.push(Known {
            name,
            life,
            kpatch,
            since,
        });
    }

    /// The transition that runs at `now`.
    pub(in super::super) fn running(&self, now: Option<f64>) -> Option<Running> {
        self.patches
            .iter()
            .rev()
            .find_map(|known| match known.life {
                Life::Transition(direction) => Some(Running {
                    patch: known.name.clone(),
                    direction,
                    running_for_seconds: known.age(now),
                }),
                _ => None,
            })
    }

    /// The one that ended last before `now`.
    pub(in super::super) fn last(&self, now: Option<f64>) -> Option<Last> {
        self.patches
            .iter()
            .rev()
            .find_map(|known| match known.life {
                Life::Done(direction) => Some(Last {
                    patch: known.name.clone(),
                    direction,
                    ended_before_seconds: known.age(now),
                }),
                _ => None,
            })
    }
}
