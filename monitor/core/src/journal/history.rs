//! The state that the journal of a boot adds up to: one fold for the running boot and for one that
//! has ended.

use std::time::Duration;

use super::entry::{Entry, LoadedPatch, Saved, TimedEntry};
use crate::{
    crash::{PatchTransition, Replaced, Signal},
    lifecycle::{At, Lifecycle, Step},
    phase::Phase,
    transition::{BootTime, Transition},
};

/// Signals kept, the latest.
const MAX_SIGNALS: usize = 64;
/// A crash signal that was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalSeen {
    /// When it was recorded, on the boot's clock.
    pub time: BootTime,
    /// When, in seconds since 1970.
    pub unix_seconds: Option<f64>,
    /// Which signal the kernel reported.
    pub signal: Signal,
    /// The kernel's own line.
    pub headline: String,
    /// The phase of a patch's life when it was recorded.
    pub phase: Phase,
}

/// State of a boot according to the journal's entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The boot's id, once its first entry is read.
    pub boot_id: Option<String>,
    /// The kernel's release (`uname -r`), once the first entry is read.
    pub release: Option<String>,
    /// When the boot's first entry was written, in seconds since 1970.
    pub began_unix_seconds: Option<f64>,
    /// The same on the boot's own clock.
    pub began: BootTime,
    /// Time of the last entry, on the boot's clock.
    pub last_time: BootTime,
    /// The last entry, in seconds since 1970.
    pub last_unix_seconds: Option<f64>,
    /// The stage of each patch, and the running transition.
    pub life: Lifecycle,
    /// The loaded livepatches by the last list of them; `None` if there was none.
    pub patches: Option<Vec<LoadedPatch>>,
    /// Crash signals; if there are more than 64, the latest.
    pub signals: Vec<SignalSeen>,
    /// Whether something else was recorded after the last signal, so that the machine kept running.
    pub kept_running: bool,
    /// Whether the monitor was stopped cleanly, and none has started since.
    pub stopped: bool,
    /// State that a monitor continuing in this boot needs.
    pub saved: Option<Saved>,
}

impl History {
    /// Adds an entry. `soak` is how long after a transition a signal counts as in its soak phase.
    pub fn take(&mut self, recorded: &TimedEntry, soak: Duration) {
        let time = recorded.time;
        self.last_time = self.last_time.max(time);
        if recorded.unix_seconds.is_some() {
            self.last_unix_seconds = recorded.unix_seconds;
        }
        if let Entry::State(saved) = &recorded.entry {
            // It is written because of another entry, and shows nothing more about the machine.
            self.saved = Some(saved.clone());
            return;
        }
        self.stopped = matches!(recorded.entry, Entry::Stopped);
        if !matches!(recorded.entry, Entry::Signal { .. }) {
            self.kept_running = true;
        }
        let at = At {
            boot: Some(time),
            unix_seconds: recorded.unix_seconds,
        };
        if let Some(step) = step(&recorded.entry) {
            self.life.step(at, step);
        }
        match &recorded.entry {
            Entry::Boot { boot_id, release } => {
                self.boot_id = Some(boot_id.clone());
                self.release = Some(release.clone());
                self.began_unix_seconds = recorded.unix_seconds;
                self.began = time;
            }
            Entry::Patches { patches } => self.patches = Some(patches.clone()),
            Entry::Signal { signal, headline } => {
                let phase = self.phase(time, soak);
                if self.signals.len() == MAX_SIGNALS {
                    self.signals.remove(0);
                }
                self.signals.push(SignalSeen {
                    time,
                    unix_seconds: recorded.unix_seconds,
                    signal: *signal,
                    headline: headline.clone(),
                    phase,
                });
                self.kept_running = false;
            }
            Entry::Watching
            | Entry::Stopped
            | Entry::Load { .. }
            | Entry::Loaded { .. }
            | Entry::Transition { .. }
            | Entry::Ended { .. }
            | Entry::State(_) => {}
        }
    }

    /// Whether an entry repeats what is already known.
    #[must_use]
    pub fn knows(&self, entry: &TimedEntry) -> bool {
        match &entry.entry {
            Entry::Patches { patches } => {
                let mut life = self.life.clone();
                let at = At {
                    boot: Some(entry.time),
                    unix_seconds: entry.unix_seconds,
                };
                step(&entry.entry)
                    .into_iter()
                    .for_each(|step| life.step(at, step));
                self.patches.as_ref() == Some(patches) && self.life == life
            }
            Entry::Loaded { patch } => !self.is_loading(patch),
            Entry::State(saved) => self.saved.as_ref() == Some(saved),
            _ => false,
        }
    }

    /// Whether the load of this patch's module may still be in progress.
    #[must_use]
    pub fn is_loading(&self, patch: &str) -> bool {
        self.life.loads.iter().any(|load| load.patch == patch)
    }

    /// The phase that a moment falls in.
    #[must_use]
    pub fn phase(&self, now: BootTime, soak: Duration) -> Phase {
        self.life.phase(Some(now), soak)
    }

    /// The patch whose module is being loaded.
    #[must_use]
    pub fn loading(&self, now: BootTime) -> Option<&str> {
        self.life.loading(Some(now))
    }

    /// The functions that the loaded patches replace.
    #[must_use]
    pub fn replaced(&self) -> Vec<Replaced> {
        let of_patch = |patch: &LoadedPatch| {
            let name = patch.name.clone();
            let functions = patch.functions.clone().into_iter();
            functions.map(move |function| Replaced {
                patch: name.clone(),
                function,
            })
        };
        let patches = self.patches.iter().flatten();
        patches.flat_map(of_patch).collect()
    }

    /// The running transition, in the form of a crash record.
    #[must_use]
    pub fn running(&self, now: BootTime) -> Option<PatchTransition> {
        PatchTransition::running(&self.life, Some(now))
    }

    /// The last transition that ended, in the form of a crash record.
    #[must_use]
    pub fn last(&self, now: BootTime) -> Option<PatchTransition> {
        PatchTransition::ended(&self.life, Some(now))
    }
}

/// Translates an entry into a step of a patch's life.
fn step(entry: &Entry) -> Option<Step<'_>> {
    Some(match entry {
        Entry::Patches { patches } => {
            let patches = patches.iter();
            Step::Listed(patches.map(|it| (it.name.as_str(), it.enabled)).collect())
        }
        Entry::Load { patch } => Step::Load(patch),
        Entry::Loaded { patch } => Step::Loaded(patch),
        Entry::Transition {
            patch,
            direction,
            start,
        } => Step::Started(Transition {
            start: *start,
            ..Transition::new(patch.clone(), *direction)
        }),
        Entry::Ended {
            patch,
            direction,
            outcome,
            took_seconds,
        } => Step::Ended {
            patch: patch.as_deref(),
            direction: *direction,
            outcome: *outcome,
            took: took_seconds.and_then(|took| Duration::try_from_secs_f64(took).ok()),
        },
        Entry::Boot { .. }
        | Entry::Watching
        | Entry::Stopped
        | Entry::Signal { .. }
        | Entry::State(_) => return None,
    })
}

#[cfg(test)]
mod tests;
