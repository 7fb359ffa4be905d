//! What the host has to say to a livepatch, as far as it was told.

use std::collections::BTreeMap;

use crate::{
    crash::capture::Source,
    patch::{PatchSet, VMLINUX},
};

/// A fact, or why it is not known.
pub type Known<T> = Result<T, String>;

/// The host at one moment.
#[derive(Clone, Debug)]
pub struct Host {
    /// `uname -r`.
    pub release: Known<String>,
    /// The livepatches that are loaded, and whether there can be any.
    pub patches: Known<PatchSet>,
    /// The modules that are loaded, with the fingerprint of those that have one.
    pub modules: Known<BTreeMap<String, Option<String>>>,
    /// Where the symbols that the module asks for are.
    pub symbols: Known<Symbols>,
    /// Who has hooked functions.
    pub tracers: Tracers,
    /// A BPF trampoline and a livepatch may share a function (6.0 and later).
    pub trampolines_share: Option<bool>,
    /// What the kernel asks of modules.
    pub policy: Policy,
    /// What would be kept of a crash.
    pub evidence: Vec<(Source, bool)>,
    /// Threads, kernel threads among them.
    pub threads: Known<usize>,
    /// CPUs that are up.
    pub cpus: Option<usize>,
}

/// Places of symbols: those asked for, all places of each, in the kernel's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    places: BTreeMap<(String, String), Vec<Place>>,
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: u64,
    /// Its length in bytes, where what follows tells.
    pub size: Option<u64>,
}

impl Symbols {
    /// Notes one more place of a symbol; no module is the kernel itself.
    pub fn add(&mut self, module: Option<&str>, name: &str, place: Place) {
        let object = module.unwrap_or(VMLINUX).to_owned();
        let places = self.places.entry((object, name.to_owned())).or_default();
        places.push(place);
        places.sort_by_key(|place| place.address);
    }

    /// All places of this name in this object.
    #[must_use]
    pub fn places(&self, object: &str, name: &str) -> &[Place] {
        let key = (object.to_owned(), name.to_owned());
        self.places.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// Who has hooked functions.
#[derive(Clone, Debug)]
pub struct Tracers {
    /// Functions that ftrace calls somebody from.
    pub ftrace: Known<Vec<Traced>>,
    /// Kprobes.
    pub kprobes: Known<Vec<Kprobe>>,
    /// Names of kprobes that were made through tracefs.
    pub events: Vec<KprobeEvent>,
}

/// A line of `enabled_functions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// The function.
    pub name: String,
    /// Its module; none for the kernel itself.
    pub module: Option<String>,
    /// `I`: somebody may send the call elsewhere, as livepatch does.
    pub ipmodify: bool,
    /// `D`: a BPF trampoline is called directly.
    pub direct: bool,
    /// Who, as the kernel writes it.
    pub who: String,
}

/// A line of kprobes' list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kprobe {
    /// The function.
    pub name: String,
    /// Its module; none for the kernel itself.
    pub module: Option<String>,
    /// Bytes from the function's start.
    pub offset: u64,
    /// It uses ftrace's call at the function's entry, which may lie some bytes in.
    pub by_ftrace: bool,
    /// It is a kretprobe.
    pub on_return: bool,
    /// Registered, but switched off.
    pub disabled: bool,
}

/// A line of `kprobe_events`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KprobeEvent {
    /// `group/name`.
    pub event: String,
    /// The function.
    pub name: String,
    /// Its module, where the event names one.
    pub module: Option<String>,
}

/// What the kernel asks of modules; `None` where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `module.sig_enforce`: only signed ones.
    pub signatures_enforced: Option<bool>,
    /// The kernel is locked down: `integrity`, `confidentiality`, or `none`.
    pub lockdown: Option<String>,
    /// `kernel.modules_disabled`: none at all until the next boot.
    pub modules_disabled: Option<bool>,
}

/// The module of an object.
#[must_use]
pub(crate) fn module_of(object: &str) -> Option<&str> {
    (object != VMLINUX).then_some(object)
}
