//! The registry: every collector, in the order in which they run.
//!
//! To add a metric, add a row and its samples to a collector's file. To add a collector,
//! add a file, a field in [`Values`] and [`Collectors`], and a place in
//! [`Collectors::all`].

pub mod crash_capture;
pub mod crashes;
pub mod expected;
pub mod in_force;
pub mod monitor;
pub mod patches;
pub mod refusals;
pub mod tasks;
pub mod transitions;
pub mod updates;

use super::collector::Collector;

// The values of label `collector`. They have been part of the metric contract since 0.1.0, when
// there were three collectors, and stay: `sysfs` covers what is loaded and what runs, `host` covers
// crashes and packages.
const SYSFS: &str = "sysfs";
const TASKS: &str = "tasks";
const HOST: &str = "host";

/// What the collectors found, as plain values. By default nothing is known.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The loaded livepatches according to sysfs.
    pub patches: patches::Values,
    /// The running transition and the last ones.
    pub transitions: transitions::Values,
    /// The tasks that the running transition waits for.
    pub tasks: tasks::Values,
    /// Crash signals and crashes.
    pub crashes: crashes::Values,
    /// Updates that were left unfinished.
    pub updates: updates::Values,
    /// Livepatches that should be in force.
    pub expected: expected::Values,
    /// Whether the functions of the patches really run.
    pub in_force: in_force::Values,
    /// Which evidence the next crash would leave.
    pub crash_capture: crash_capture::Values,
    /// Modules that were refused.
    pub refusals: refusals::Values,
    /// What the monitor reports about itself.
    pub monitor: monitor::Values,
}

#[derive(Debug)]
pub(super) struct Collectors {
    pub(super) patches: patches::Patches,
    pub(super) transitions: transitions::Transitions,
    pub(super) tasks: tasks::Tasks,
    pub(super) crashes: crashes::Crashes,
    pub(super) updates: updates::Updates,
    pub(super) expected: expected::ExpectedPatches,
    pub(super) in_force: in_force::FunctionsInForce,
    pub(super) crash_capture: crash_capture::CrashCapture,
    pub(super) refusals: refusals::Refusals,
    pub(super) monitor: monitor::Monitor,
}

impl Collectors {
    /// All of them, each after those whose values it needs.
    pub(super) fn all(&self) -> [&dyn Collector<Values>; 10] {
        [
            &self.patches,
            &self.transitions,
            &self.tasks,
            &self.crashes,
            &self.updates,
            &self.expected,
            &self.in_force,
            &self.crash_capture,
            &self.refusals,
            &self.monitor,
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests;
