//! What is loaded: patches, their objects, their functions.

use serde::Serialize;

/// The name livepatch gives the kernel image itself among a patch's objects.
pub const VMLINUX: &str = "vmlinux";

/// Everything under /sys/kernel/livepatch at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PatchSet {
    /// /sys/kernel/livepatch is there.
    pub supported: bool,
    /// The loaded patches, ordered by name.
    pub patches: Vec<Patch>,
}

/// A loaded patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Patch {
    /// Its module's name as sysfs shows it.
    pub name: String,
    /// `enabled`; `None` where it could not be read.
    pub enabled: Option<bool>,
    /// `transition` (4.12+).
    pub transition: Option<bool>,
    /// `replace` (6.11+).
    pub replace: Option<bool>,
    /// /sys/module/NAME/srcversion, the build's fingerprint.
    pub srcversion: Option<String>,
    /// The objects it patches, ordered by name.
    pub objects: Vec<Object>,
}

/// An object (vmlinux or a module) of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Object {
    /// `vmlinux` or the module's name.
    pub name: String,
    /// `patched` (6.1+).
    pub patched: Option<bool>,
    /// The functions it patches in this object, ordered by name and position.
    pub functions: Vec<Function>,
}

/// A patched function.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Function {
    /// The old function's name.
    pub name: String,
    /// Which of several symbols of that name, from 1; 0, in a module's file, means the
    /// only one.
    pub sympos: u64,
}

impl Patch {
    /// How it fares, in a word or two.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match (self.enabled, self.transition) {
            (_, Some(true)) => "in transition",
            (Some(true), _) => "enabled",
            (Some(false), _) => "disabled",
            (None, _) => "state not readable",
        }
    }
}

impl PatchSet {
    /// The patch whose `transition` is 1. The kernel runs one at a time.
    #[must_use]
    pub fn in_transition(&self) -> Option<&Patch> {
        self.patches
            .iter()
            .find(|patch| patch.transition == Some(true))
    }

    /// The patch of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Patch> {
        self.patches.iter().find(|patch| patch.name == name)
    }
}
