//! Translates what a kernel log says about livepatches into steps of the fold
//! ([`crate::lifecycle`]).

use std::collections::BTreeSet;

use crate::{
    lifecycle::{At, Lifecycle, Stage, Step},
    message::LivepatchMessage as Message,
    transition::{BootTime, Direction, Outcome, Transition},
};

/// Patches of the out-of-tree kpatch core that are remembered.
const MAX_KPATCHES: usize = 256;

/// State from the lines so far.
#[derive(Clone, Debug, Default)]
pub(super) struct LivepatchLog {
    pub(super) life: Lifecycle,
    /// Whether a line of the out-of-tree kpatch core was seen.
    pub(super) kpatch_core: bool,
    /// Patches of the out-of-tree kpatch core, by module name.
    kpatches: BTreeSet<String>,
}

impl LivepatchLog {
    /// Whether a line may be one that [`Self::read`] uses.
    pub(super) fn concerns(text: &str) -> bool {
        text.starts_with("livepatch: ")
            || text.starts_with("kpatch: ")
            || text.trim_end().ends_with("TAINT_LIVEPATCH")
    }

    /// Whether this patch is one of the kpatch core, which has no transitions.
    pub(super) fn is_kpatch(&self, patch: &str) -> bool {
        self.kpatches.contains(patch)
    }

    /// Processes a line. `at` is its time on the log's clock.
    pub(super) fn read(&mut self, text: &str, at: Option<f64>) {
        let at = At {
            boot: moment(at),
            unix_seconds: None,
        };
        if let Some(text) = text.strip_prefix("kpatch: ") {
            self.kpatch_core = true;
            let named = |start| {
                let rest: &str = text.strip_prefix(start)?;
                rest.trim_end().strip_suffix('\'')
            };
            if let Some(patch) = named("loaded patch module '") {
                self.kpatch(at, patch, Direction::Patch);
            } else if let Some(patch) = named("unloaded patch module '") {
                self.kpatch(at, patch, Direction::Unpatch);
            }
            return;
        }
        match Message::recognise(text.trim_end()) {
            Some(Message::Signaling) => self.life.step(at, Step::Signalled),
            Some(Message::Tainting { module }) if !self.knows(&module) => {
                self.life.step(at, Step::Load(&module));
            }
            Some(Message::Enabling { patch }) => self.life.step(at, Step::Enabling(&patch)),
            Some(Message::Starting { patch, direction }) => {
                // Its init has not returned, and the log does not say when it does. The module list
                // of a crash does.
                self.life.step(at, Step::Loaded(&patch));
                let transition = Transition {
                    start: at.boot,
                    ..Transition::new(Some(patch), direction)
                };
                self.life.step(at, Step::Started(transition));
            }
            Some(Message::Complete { patch, direction }) => self.ended(at, &patch, direction),
            Some(Message::FailedToEnable { patch }) => self.life.step(at, Step::Refused(&patch)),
            _ => {}
        }
    }

    /// Whether the patch is already known. A module that is already loaded is refused only after
    /// the line about the taint is printed, so that line is news only of one that is not loaded.
    fn knows(&self, patch: &str) -> bool {
        let mut patches = self.life.patches.iter();
        patches.any(|known| known.name == patch && known.stage != Stage::Refused)
    }

    fn kpatch(&mut self, at: At, patch: &str, direction: Direction) {
        if self.kpatches.len() == MAX_KPATCHES {
            self.kpatches.pop_first();
        }
        self.kpatches.insert(patch.to_owned());
        self.ended(at, patch, direction);
    }

    fn ended(&mut self, at: At, patch: &str, direction: Direction) {
        self.life.step(
            at,
            Step::Ended {
                patch: Some(patch),
                direction: Some(direction),
                outcome: Some(Outcome::Completed),
                took: None,
            },
        );
    }
}

/// A time on the log's clock.
pub(super) fn moment(seconds: Option<f64>) -> Option<BootTime> {
    let since = std::time::Duration::try_from_secs_f64(seconds?).ok()?;
    Some(BootTime::from_duration(since))
}
