//! Loaded patches, their objects and their functions.

use serde::Serialize;

/// The name livepatch gives the kernel image itself among a patch's objects.
pub const VMLINUX: &str = "vmlinux";

/// Everything under /sys/kernel/livepatch at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PatchSet {
    /// Whether the kernel supports livepatching: /sys/kernel/livepatch exists.
    pub supported: bool,
    /// The loaded patches, ordered by name.
    pub patches: Vec<Patch>,
}

/// A livepatch in /sys/kernel/livepatch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Patch {
    /// Its module's name as sysfs shows it.
    pub name: String,
    /// `enabled`; `None` if it could not be read.
    pub enabled: Option<bool>,
    /// Whether it is in transition (`transition`, 4.12 and later); `None` if not readable.
    pub transition: Option<bool>,
    /// Whether it replaces all earlier patches (`replace`, 6.11 and later); `None` if not readable.
    pub replace: Option<bool>,
    /// /sys/module/NAME/srcversion, the build's fingerprint.
    pub srcversion: Option<String>,
    /// Its version: /sys/module/NAME/version, or what its name states.
    pub version: Option<String>,
    /// The module's build id, in hexadecimal.
    pub build_id: Option<String>,
    /// The objects it patches, ordered by name.
    pub objects: Vec<Object>,
}

/// Modules that belong to livepatching without being a patch in /sys/kernel/livepatch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// Livepatch modules that are loaded without being in force: they were disabled or
    /// replaced, and nobody has removed them. Ordered by name.
    pub left_over: Vec<String>,
    /// Other mechanisms that patch the running kernel.
    pub mechanisms: Vec<Mechanism>,
}

/// A mechanism other than livepatch that patches the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// Oracle's Ksplice: modules `ksplice_ID` and `ksplice_ID_OBJECT_new`.
    Ksplice,
    /// TuxCare's KernelCare: module `kcare`.
    #[serde(rename = "kernelcare")]
    KernelCare,
    /// The out-of-tree core of kpatch before the kernel had livepatch: module `kpatch`,
    /// /sys/kernel/kpatch.
    KpatchCore,
}

impl Mechanism {
    /// All mechanisms, in the order they are shown.
    pub const ALL: [Self; 3] = [Self::Ksplice, Self::KernelCare, Self::KpatchCore];

    /// The value of label `mechanism`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ksplice => "ksplice",
            Self::KernelCare => "kernelcare",
            Self::KpatchCore => "kpatch_core",
        }
    }

    /// What it is called, and the command that shows its patches.
    #[must_use]
    pub const fn described(self) -> &'static str {
        match self {
            Self::Ksplice => "Ksplice (its own command: uptrack-show, or ksplice kernel show)",
            Self::KernelCare => "KernelCare (its own command: kcarectl --info)",
            Self::KpatchCore => "the out-of-tree kpatch core (its own command: kpatch list)",
        }
    }

    /// The mechanism that a loaded module of this name belongs to.
    #[must_use]
    pub fn of_module(module: &str) -> Option<Self> {
        match module {
            "kpatch" => Some(Self::KpatchCore),
            "kcare" => Some(Self::KernelCare),
            _ if module.starts_with("ksplice_") => Some(Self::Ksplice),
            _ => None,
        }
    }

    /// Describes what the monitor cannot do about it, in a sentence.
    #[must_use]
    pub fn sentence(self) -> String {
        format!(
            "this kernel is patched by another mechanism, which this monitor cannot watch: {}",
            self.described()
        )
    }
}

/// An object (vmlinux or a module) of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Object {
    /// `vmlinux` or the module's name.
    pub name: String,
    /// Whether the object is patched now (`patched`, 6.1 and later); `None` if not readable.
    pub patched: Option<bool>,
    /// The functions it patches in this object, ordered by name and position.
    pub functions: Vec<Function>,
}

/// A function that a livepatch replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Function {
    /// The old function's name.
    pub name: String,
    /// Which of several symbols of that name, from 1; 0, in a module's file, means the
    /// only one.
    pub sympos: u64,
}

impl Patch {
    /// The patch's state as the commands and the page print it.
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
