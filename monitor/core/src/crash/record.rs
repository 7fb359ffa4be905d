//! Everything known about one crash. Strings are as in the log, with invalid UTF-8 replaced and cut
//! to a limit; they are for JSON, or for a terminal after [`crate::blockers::printable`].

use serde::{Deserialize, Serialize};

pub use super::when::{Precision, When};
use super::{
    patch_transition::{self, PatchTransition},
    signal::{Kind, Signal},
};
pub use crate::function_ref::CodePlace as Function;
use crate::{phase::Phase, updates::run::UpdateRun};

/// One line of a call trace, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function, with offset and module if the line has them.
    #[serde(flatten)]
    pub function: Function,
    /// False for those marked `?`: found on the stack, not known to be a caller.
    pub reliable: bool,
}

/// State of a module according to the module list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Marker {
    /// It is in use.
    Live,
    /// `+`: its init has not returned.
    Loading,
    /// `-`: it is being unloaded.
    Unloading,
}

/// An entry of `Modules linked in:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// The module's name, without its taint letters.
    pub name: String,
    /// Its taint letters, such as `OEK`.
    pub taints: String,
    /// Whether it is being loaded or unloaded.
    pub state: Marker,
}

/// A livepatch that the log knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Its name, which is its module's.
    pub name: String,
    /// From the module list at the time of the crash; `None` if the log has no list or the list
    /// does not contain the patch.
    pub state: Option<Marker>,
    /// Whether it belongs to the out-of-tree kpatch core (kernels before 4.0 and around it), which
    /// has no transitions.
    pub kpatch: bool,
}

/// Whether the evidence implicates a livepatch in the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Implicated {
    /// There is evidence that implicates a livepatch.
    Yes,
    /// The fault or its stack is known, what is loaded is known, and neither lies
    /// in a livepatch or the livepatch core.
    No,
    /// The text does not show it.
    Unknown,
}

impl Implicated {
    /// The answer as label `implicated` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// Evidence that implicates a livepatch, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// The faulting instruction lies in a livepatch module.
    FaultInPatch,
    /// The faulting instruction lies in a function that a patch replaces.
    FaultInReplaced,
    /// The faulting instruction lies in the livepatch core.
    FaultInCore,
    /// A caller on the stack lies in a livepatch module.
    StackInPatch,
    /// A caller on the stack is a function that a patch replaces.
    StackInReplaced,
    /// A caller on the stack lies in the livepatch core.
    StackInCore,
    /// A livepatch module had not finished loading.
    PatchLoading,
}

impl EvidenceKind {
    /// The kind of evidence as JSON and the commands show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FaultInPatch => "fault_in_patch",
            Self::FaultInReplaced => "fault_in_replaced",
            Self::FaultInCore => "fault_in_core",
            Self::StackInPatch => "stack_in_patch",
            Self::StackInReplaced => "stack_in_replaced",
            Self::StackInCore => "stack_in_core",
            Self::PatchLoading => "patch_loading",
        }
    }
}

/// One reason to suspect a livepatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The kind of place that implicates a livepatch, or that one was loading.
    pub kind: EvidenceKind,
    /// Which patch, if known.
    pub patch: Option<String>,
    /// The place in the code; `None` for [`EvidenceKind::PatchLoading`].
    pub function: Option<Function>,
}

/// A signal that did not crash the machine by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonFatalSignal {
    /// Which signal the kernel reported.
    pub signal: Signal,
    /// When the kernel reported it, as far as the log dates it.
    pub when: When,
    /// The first line of the kernel's report.
    pub headline: String,
    /// The function that the report names; `None` if it names none.
    pub function: Option<Function>,
    /// The phase of a patch's life that it falls in.
    pub phase: Phase,
    /// Whether a livepatch is implicated.
    pub implicated: Implicated,
    /// What implicates a livepatch; empty unless `implicated` is yes.
    pub evidence: Vec<Evidence>,
    /// The name of the report, if it is more precise than its signal, such as `kasan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// How often it was reported.
    #[serde(default = "once")]
    pub reports: u32,
}

impl NonFatalSignal {
    /// Turns a "no" that is not proved into "unknown".
    pub(super) fn not_proved(&mut self) {
        if self.implicated == Implicated::No {
            self.implicated = Implicated::Unknown;
        }
        if self.phase == Phase::Unpatched {
            self.phase = Phase::Unknown;
        }
    }
}

const fn once() -> u32 {
    1
}

/// One crash, merged from all lines and dumps about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// The kind of crash, determined by the signals and the panic.
    pub kind: Kind,
    /// Its signals, each once, in the order in which they were seen.
    pub signals: Vec<Signal>,
    /// How often it was reported; a lockup is reported repeatedly.
    pub reports: u32,
    /// When its first line was written.
    pub when: When,
    /// The kernel's release (`uname -r`); `None` if the log does not have it.
    pub release: Option<String>,
    /// The kernel's own line for it.
    pub headline: String,
    /// The text of the panic, if there was one. Without it the machine may have kept running, or
    /// the log ends too early.
    pub panic: Option<String>,
    /// Where it happened: the instruction pointer in the kernel, or the function
    /// that panicked or is blocked.
    pub function: Option<Function>,
    /// The CPU that reported it; `None` if the log does not say.
    pub cpu: Option<u32>,
    /// The name of the task.
    pub comm: Option<String>,
    /// The id of that task; `None` if the log does not say.
    pub pid: Option<u32>,
    /// Taint letters without `G`; empty if not tainted, `None` if the log does not say.
    pub taint: Option<String>,
    /// The module list; `None` if the log has none.
    pub modules: Option<Vec<Module>>,
    /// The call trace, innermost first.
    pub trace: Vec<Frame>,
    /// Whether some of the trace or the modules was left out because of its length.
    pub cut: bool,
    /// Livepatches that the log knows of.
    pub patches: Vec<Patch>,
    /// The phase of a patch's life that it falls in.
    pub phase: Phase,
    /// The transition that was running.
    #[serde(serialize_with = "patch_transition::as_running")]
    pub transition: Option<PatchTransition>,
    /// The last transition that ended.
    #[serde(serialize_with = "patch_transition::as_ended")]
    pub last_transition: Option<PatchTransition>,
    /// Whether a livepatch is implicated.
    pub implicated: Implicated,
    /// What implicates a livepatch; empty unless `implicated` is yes.
    pub evidence: Vec<Evidence>,
    /// Why it is not proved that no livepatch is involved, in words; empty unless the implication
    /// is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<String>,
    /// The name of the report, if it is more precise than its signal, such as `kasan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// The files that it was read from, as named by the reader.
    pub files: Vec<String>,
    /// The host, if the log names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A crash of this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostCrash {
    /// Its id as the commands show it; it never changes.
    pub id: String,
    /// The boot that it happened in, if known.
    pub boot_id: Option<String>,
    /// Whether the boot ended with it; false: the machine kept running.
    pub ended_boot: Option<bool>,
    /// When it was found, in seconds since 1970, if its own date is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_unix_seconds: Option<f64>,
    /// The package manager's run that was in progress when the machine went down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateRun>,
    /// What is known about the crash.
    #[serde(flatten)]
    pub record: CrashRecord,
}

impl CrashRecord {
    /// A record with nothing but its kind.
    #[must_use]
    pub const fn empty(kind: Kind) -> Self {
        Self {
            kind,
            signals: Vec::new(),
            reports: 0,
            when: When {
                uptime_seconds: None,
                unix_seconds: None,
                precision: Precision::Unknown,
            },
            release: None,
            headline: String::new(),
            panic: None,
            function: None,
            cpu: None,
            comm: None,
            pid: None,
            taint: None,
            modules: None,
            trace: Vec::new(),
            cut: false,
            patches: Vec::new(),
            phase: Phase::Unknown,
            transition: None,
            last_transition: None,
            implicated: Implicated::Unknown,
            evidence: Vec::new(),
            unproven: Vec::new(),
            report: None,
            files: Vec::new(),
            host: None,
        }
    }

    /// The patches in whose load, transition or soak it happened, or that it implicates, the most
    /// suspect first: those that the evidence names, the one in transition, the one in soak.
    pub fn of_patches(&self) -> Vec<&str> {
        let named = self
            .evidence
            .iter()
            .filter_map(|found| found.patch.as_deref());
        let running = self.transition.iter().map(|running| running.patch.as_str());
        let soaking = self
            .last_transition
            .iter()
            .filter(|_| self.phase == Phase::Soak);
        let soaking = soaking.map(|last| last.patch.as_str());
        let mut patches = Vec::new();
        for patch in named.chain(running).chain(soaking) {
            if !patches.contains(&patch) {
                patches.push(patch);
            }
        }
        patches
    }

    /// How complete it is, to choose between two records of one crash.
    fn weight(&self) -> (bool, bool, usize, bool, bool) {
        (
            self.panic.is_some(),
            self.phase != Phase::Unknown,
            self.trace.len(),
            self.modules.is_some(),
            self.when.precision == Precision::Dump,
        )
    }

    /// Merges another record of the same crash: the more complete one stays, with the files of
    /// both.
    pub fn absorb(&mut self, mut other: Self) {
        if other.weight() > self.weight() {
            std::mem::swap(self, &mut other);
        }
        let same = other.when.precision == self.when.precision;
        let first = other.when.unix_seconds.zip(self.when.unix_seconds);
        // Of two dumps the first was written closer to it, because firmware is slow.
        let closer = same && first.is_some_and(|(one, two)| one < two);
        if other.when.precision > self.when.precision
            || self.when.precision == Precision::Dump && closer
        {
            self.when = other.when;
        }
        // The other may have been parsed with a more complete list of replaced functions.
        self.take_evidence(other.evidence, other.implicated);
        for file in other.files {
            if !self.files.contains(&file) {
                self.files.push(file);
            }
        }
    }

    /// Turns a "no" that is not proved into "unknown", with the reason.
    pub(crate) fn not_proved(&mut self, reason: &str) {
        if self.implicated == Implicated::No {
            self.implicated = Implicated::Unknown;
        }
        if self.phase == Phase::Unpatched {
            self.phase = Phase::Unknown;
        }
        if self.implicated == Implicated::Unknown {
            self.unproven.push(reason.to_owned());
        }
    }

    /// Adds what another report of the same cause says about livepatches.
    pub(super) fn take_evidence(&mut self, evidence: Vec<Evidence>, implicated: Implicated) {
        for found in evidence {
            if !self.evidence.contains(&found) {
                self.evidence.push(found);
            }
        }
        self.evidence.sort_by_key(|found| found.kind);
        self.implicated = self.implicated.min(implicated);
        if self.implicated != Implicated::Unknown {
            self.unproven.clear();
        }
    }

    /// Whether two records have the same line at the same microsecond on the same kernel, and so
    /// are of the same crash.
    pub fn same(&self, other: &Self) -> bool {
        let release = |record: &Self| record.release.clone();
        let times = self
            .when
            .uptime_seconds
            .zip(other.when.uptime_seconds)
            .is_some_and(|(one, two)| (one - two).abs() < 1e-6);
        let releases = release(self)
            .zip(release(other))
            .is_none_or(|(one, two)| one == two);
        let boots = self.when.agrees_with(&other.when);
        let hosts = self.host.as_ref().zip(other.host.as_ref());
        let hosts = hosts.is_none_or(|(one, two)| one == two);
        times && releases && boots && hosts && self.headline == other.headline
    }
}

/// Merges records of the same crash, two at a time: a dump at the oops and another at the panic, a
/// console log and pstore. The more complete one stays, with the files of both.
#[must_use]
pub fn merge(records: Vec<CrashRecord>) -> Vec<CrashRecord> {
    let mut merged: Vec<CrashRecord> = Vec::new();
    for record in records {
        match merged.iter_mut().find(|known| known.same(&record)) {
            Some(known) => known.absorb(record),
            None => merged.push(record),
        }
    }
    merged
}
