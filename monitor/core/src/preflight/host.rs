//! The facts about the host that decide whether a livepatch loads, as far as they are known.

use std::collections::{BTreeMap, BTreeSet};

use crate::{crash::capture::Source, function_ref::FunctionRef, patch::PatchSet};

/// A fact, or the reason why it is unknown.
pub type Known<T> = Result<T, String>;

/// A snapshot of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Kernel release, as `uname -r` prints it.
    pub release: Known<String>,
    /// The loaded livepatches, and whether the kernel supports livepatching.
    pub patches: Known<PatchSet>,
    /// The loaded modules with their srcversion, for those that have one.
    pub modules: Known<BTreeMap<String, Option<String>>>,
    /// Addresses of the symbols that the module needs.
    pub symbols: Known<Symbols>,
    /// Tracers and kprobes attached to functions.
    pub tracers: Tracers,
    /// Whether a BPF trampoline and a livepatch may share a function (6.0 and later).
    pub trampolines_share: Option<bool>,
    /// Which modules the kernel accepts.
    pub policy: Policy,
    /// Which sources would record a crash.
    pub evidence: Vec<(Source, bool)>,
    /// Number of threads, including kernel threads.
    pub threads: Known<usize>,
    /// Number of CPUs online.
    pub cpus: Option<usize>,
}

/// Places of the requested symbols: all places of each, in the kernel's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    places: BTreeMap<FunctionRef, Vec<Place>>,
}

/// Location of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address in kernel memory.
    pub address: u64,
    /// Length in bytes, if the next symbol determines it.
    pub size: Option<u64>,
}

impl Symbols {
    /// Adds a place of a symbol; `None` as module means the kernel itself.
    pub fn add(&mut self, module: Option<&str>, name: &str, place: Place) {
        let function = FunctionRef::in_module(module, name);
        let places = self.places.entry(function).or_default();
        places.push(place);
        places.sort_by_key(|place| place.address);
    }

    /// All places of a symbol in an object.
    #[must_use]
    pub fn places(&self, object: &str, name: &str) -> &[Place] {
        let key = FunctionRef {
            object: object.to_owned(),
            function: name.to_owned(),
        };
        self.places.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// Tracers and kprobes attached to functions.
#[derive(Clone, Debug)]
pub struct Tracers {
    /// Functions with an ftrace callback.
    pub ftrace: Known<Vec<Traced>>,
    /// All kprobes of the host; an error where they cannot be listed.
    pub kprobes: Known<Vec<Kprobe>>,
    /// Names of the kprobes that were created through tracefs.
    pub events: Vec<KprobeEvent>,
    /// Functions that a BPF program may override (debugfs's `error_injection/list`).
    pub overridable: Known<BTreeSet<String>>,
    /// BPF programs on functions of the kernel itself, as their links show them.
    pub programs: Known<Vec<BpfProgram>>,
}

/// A BPF program that a trampoline calls from a function of the kernel itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfProgram {
    /// The function.
    pub function: String,
    /// The program's name, printable; BPF programs may have none.
    pub name: String,
    /// The program's id.
    pub id: u32,
    /// How it is attached.
    pub kind: ProgramKind,
    /// Processes that hold it open, as `NAME (pid)`; empty where none was found: a pinned program
    /// needs no process.
    pub holders: Vec<String>,
}

impl BpfProgram {
    /// As `guard (id 12, fmod_ret, held by agentd (411))`.
    #[must_use]
    pub fn described(&self) -> String {
        let name = match self.name.as_str() {
            "" => "without a name",
            name => name,
        };
        let holders = match self.holders.as_slice() {
            [] => String::new(),
            holders => format!(", held by {}", holders.join(" and ")),
        };
        format!("{name} (id {}, {}{holders})", self.id, self.kind.name())
    }
}

/// How a BPF program is attached to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// At the function's entry.
    Fentry,
    /// At its return.
    Fexit,
    /// At both (since 7.0).
    Fsession,
    /// In its place if it returns other than 0.
    FmodRet,
    /// On a hook of BPF LSM: in its place if it returns other than 0.
    Lsm,
}

impl ProgramKind {
    /// As BPF's tools call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Fsession => "fsession",
            Self::FmodRet => "fmod_ret",
            Self::Lsm => "lsm",
        }
    }

    /// Whether it may keep the function, and a livepatch of it, from running.
    #[must_use]
    pub const fn overrides(self) -> bool {
        matches!(self, Self::FmodRet | Self::Lsm)
    }
}

/// Functions that fmod_ret and LSM programs may attach to without being in the list:
/// `security_*`, the hooks of BPF LSM, and those registered with
/// register_btf_fmodret_id_set (include/linux/btf.h: in 6.2 and later, not in 6.1).
pub(crate) fn is_hook(name: &str) -> bool {
    const REGISTERED: [&str; 5] = [
        "bpf_rstat_flush",
        "hid_bpf_device_event",
        "hid_bpf_rdesc_fixup",
        "update_socket_protocol",
        "__hid_bpf_tail_call",
    ];
    name.starts_with("security_") || name.starts_with("bpf_lsm_") || REGISTERED.contains(&name)
}

/// A line of tracefs's `enabled_functions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// Name of the function.
    pub name: String,
    /// Module of the function; `None` for the kernel itself.
    pub module: Option<String>,
    /// How many users it has. All livepatches are one, and all kprobes, and all BPF trampolines.
    pub users: Option<u32>,
    /// Flag `I`: a callback may redirect the call, as livepatch does.
    pub ipmodify: bool,
    /// Flag `D`: a BPF trampoline is called directly.
    pub direct: bool,
    /// The callbacks, as the kernel writes them.
    pub who: String,
}

/// A line of debugfs's `kprobes/list`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kprobe {
    /// Name of the function.
    pub name: String,
    /// Module of the function; `None` for the kernel itself.
    pub module: Option<String>,
    /// Offset from the start of the function, in bytes.
    pub offset: u64,
    /// It uses the ftrace call at the function's entry, which may lie a few bytes inside.
    pub by_ftrace: bool,
    /// Whether it is a kretprobe.
    pub on_return: bool,
    /// Whether it is registered but disabled.
    pub disabled: bool,
}

/// A line of tracefs's `kprobe_events`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KprobeEvent {
    /// Name of the event, as `group/name`.
    pub event: String,
    /// Name of the function.
    pub name: String,
    /// Module of the function, if the event names one.
    pub module: Option<String>,
    /// It is at the function's entry, not at an offset or its return.
    pub at_entry: bool,
}

/// Which modules the kernel accepts; a setting is `None` if it is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `module.sig_enforce`: only signed modules load.
    pub signatures_enforced: Option<bool>,
    /// Kernel lockdown level: `integrity`, `confidentiality` or `none`.
    pub lockdown: Option<String>,
    /// `kernel.ftrace_enabled`: without it no function can be redirected.
    pub ftrace_enabled: Option<bool>,
    /// `kernel.modules_disabled`: no module loads until the next boot.
    pub modules_disabled: Option<bool>,
}
