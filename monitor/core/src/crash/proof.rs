//! The one rule for negatives: "no", "unpatched" and "no crash" are reported only if the text
//! proves them. Everything else is unknown, with the reason.

use super::{
    record::{CrashRecord, Function, Module},
    signal::Signal,
};
use crate::{
    lifecycle::{Lifecycle, Stage},
    patch::Mechanism,
    phase::Phase,
};

/// How completely a report was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Completeness {
    /// The module list is there and so is the line after it, so the list does not continue.
    pub(super) modules: bool,
    /// The place is that of the instruction that failed, or of the caller of panic(),
    /// or where a blocked task sleeps.
    pub(super) place: bool,
    /// The place is that of the instruction that failed, not of a caller.
    pub(super) faulted: bool,
    /// The report continues after its call trace.
    pub(super) end: bool,
    /// A line of the trace or the list could not be parsed.
    pub(super) garbled: bool,
    /// Lines of another task or CPU are mixed in.
    pub(super) mixed: bool,
    /// The module that was unloaded last, according to the end of the list.
    pub(super) last_unloaded: Option<Module>,
    /// The header with the taint flags is there and could not be parsed.
    pub(super) taint_damaged: bool,
}

/// Why it is not proved that no livepatch is loaded; empty if it is proved.
pub(super) fn against_unpatched(
    record: &CrashRecord,
    life: &Lifecycle,
    complete: &Completeness,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let gone = |stage: Stage| match stage {
        Stage::Disabled | Stage::Refused => true,
        Stage::Enabled | Stage::Loading | Stage::Transition | Stage::Unknown => false,
    };
    for known in life.patches.iter().filter(|known| !gone(known.stage)) {
        let listed = record
            .patches
            .iter()
            .any(|patch| patch.name == known.name && patch.state.is_some());
        if !listed && complete.modules && known.stage == Stage::Enabled {
            // It may have been removed, but the state of its functions is unknown.
            reasons.push(format!(
                "livepatch {} is not in the module list any more",
                known.name
            ));
        } else {
            reasons.push(format!(
                "the log does not say that livepatch {} is gone",
                known.name
            ));
        }
    }
    for patch in record.patches.iter().filter(|patch| patch.state.is_some()) {
        reasons.push(format!("livepatch {} is in the module list", patch.name));
    }
    if !reasons.is_empty() {
        return reasons;
    }
    if life.unnamed {
        reasons.push("a transition ran, and the log does not name its patch".to_owned());
    }
    match record.taint.as_deref() {
        None if complete.taint_damaged => {
            reasons.push("the kernel's taint flags cannot be read".to_owned());
        }
        None => reasons.push("the kernel's taint flags are not in the log".to_owned()),
        Some(taint) if is_of_livepatch(taint, record) => {
            let explained = !life.patches.is_empty() && complete.modules;
            if !explained {
                reasons.push(unnamed_patch(taint));
            }
        }
        Some(_) => {}
    }
    reasons.extend(other_mechanisms(record, complete));
    if complete.mixed {
        reasons.push(MIXED.to_owned());
    }
    reasons
}

/// K: a livepatch was loaded. U: the out-of-tree kpatch core has put one in force where the
/// kernel has no K (before 4.0); graphics drivers set it too.
fn is_of_livepatch(taint: &str, record: &CrashRecord) -> bool {
    let old = version(record).is_none_or(|version| version < (4, 0));
    taint.contains('K') || taint.contains('U') && (old || lists(record, "kpatch"))
}

fn lists(record: &CrashRecord, name: &str) -> bool {
    let mut modules = record.modules.iter().flatten();
    modules.any(|module| module.name == name)
}

fn unnamed_patch(taint: &str) -> String {
    let letter = if taint.contains('K') { 'K' } else { 'U' };
    format!("the kernel is tainted by a livepatch ({letter}), and the log does not name it")
}

/// The kernel's version, from its release.
fn version(record: &CrashRecord) -> Option<(u32, u32)> {
    let mut numbers = record.release.as_deref()?.split(['.', '-']);
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

/// Why a mechanism beside the kernel's own may have patched it. Ksplice and KernelCare
/// never set K, the kpatch core does so only when its patch is in force, kGraft since
/// 2016; all of them come in out-of-tree modules, which the kernel marks with O since 3.2
/// (`TAINT_OOT_MODULE`). So either the list shows that there is none, or the absence of O.
fn other_mechanisms(record: &CrashRecord, complete: &Completeness) -> Vec<String> {
    let mut reasons = Vec::new();
    for module in record.modules.iter().flatten() {
        let name = module.name.as_str();
        let is_patch = |patch: &str| record.patches.iter().any(|known| known.name == patch);
        match Mechanism::of_module(name) {
            // Its patches are modules of the list.
            Some(Mechanism::KpatchCore) if record.patches.iter().any(|patch| patch.kpatch) => {}
            Some(mechanism) => reasons.push(format!(
                "module {name} belongs to {}, and the log does not show what it has patched",
                mechanism.described()
            )),
            None if PATCH_NAMES.iter().any(|start| name.starts_with(start)) && !is_patch(name) => {
                reasons.push(format!("module {name} has the name of a livepatch"));
            }
            None => {}
        }
    }
    if record.modules.is_some() && complete.modules && !record.cut {
        let of_tree = |module: &Module| module.taints.contains('O');
        let mut modules = record.modules.iter().flatten();
        let shown = modules.any(of_tree) || complete.last_unloaded.as_ref().is_some_and(of_tree);
        if !shown
            && record
                .taint
                .as_deref()
                .is_some_and(|taint| taint.contains('O'))
        {
            // It was unloaded, or a console that cuts lines shows less of the list.
            reasons.push(
                "the module list does not have the out-of-tree module that was loaded (O)"
                    .to_owned(),
            );
        }
        return reasons;
    }
    // What the log says of a livepatch explains O.
    let named = !record.patches.is_empty();
    let list = match record.modules {
        None => "the module list is not in the log",
        Some(_) => "the module list may be incomplete",
    };
    match record.taint.as_deref() {
        Some(taint) if taint.contains('O') && !named => reasons.push(OUT_OF_TREE.to_owned()),
        Some(_) if !named && version(record).is_none_or(|version| version < (3, 2)) => {
            reasons.push(format!(
                "{list}, and the kernel is not known to mark out-of-tree modules (3.2 and later do)"
            ));
        }
        _ => {}
    }
    reasons
}

const OUT_OF_TREE: &str = "out-of-tree modules were loaded (O), and the log does not show which: they \
                           may be those of Ksplice, KernelCare or kpatch";

/// How the modules of livepatches are named: kpatch-build, SUSE, Canonical, Red Hat.
const PATCH_NAMES: [&str; 5] = ["kpatch", "livepatch", "kgraft", "klp_", "lkp_"];

/// A line of `livepatch:` that may be a name which a user chose.
pub(super) const DOUBTED_MESSAGE: &str = "a livepatch message has the same timestamp as the line before it, so it may be part of a \
     file's or a task's name";

/// Lines of two machines may be in one report.
pub(super) const TURNS: &str =
    "the log's clock goes back and forth: lines of two machines or boots may be mixed";

const MIXED: &str = "lines of another task are mixed into the report";

/// Why it is not proved that no livepatch is involved; empty if it is proved.
pub(super) fn against_no(
    record: &CrashRecord,
    life: &Lifecycle,
    complete: &Completeness,
) -> Vec<String> {
    let unpatched = against_unpatched(record, life, complete);
    let untainted = record
        .taint
        .as_deref()
        .is_some_and(|taint| !is_of_livepatch(taint, record));
    if unpatched.is_empty() && untainted {
        return Vec::new();
    }
    let mut reasons: Vec<String> = Vec::new();
    let mut say = |reason: &str| reasons.push(reason.to_owned());
    if record.taint.is_none() {
        say(match complete.taint_damaged {
            true => "the kernel's taint flags cannot be read",
            false => "the kernel's taint flags are not in the log",
        });
    }
    if !complete.place {
        say(match record.signals.contains(&Signal::Oops) {
            true => "the faulting function is not in the log",
            false => "the function it happened in is not in the log",
        });
    }
    // A patch's code lies in its module: a stack without any module needs no list.
    let mut places = record
        .function
        .iter()
        .chain(record.trace.iter().map(|frame| &frame.function));
    if places.any(|place| place.module.is_some()) {
        match record.modules {
            None => say("the module list is not in the log"),
            Some(_) if !complete.modules => say("the module list may be incomplete"),
            Some(_) => {}
        }
    }
    if record.cut {
        say("some of the trace or the module list was left out");
    }
    if !complete.end {
        say("the end of the report is not in the log");
    }
    if complete.garbled {
        say("a line of the report cannot be read");
    }
    if complete.mixed {
        say(MIXED);
    }
    if record.patches.is_empty()
        && let Some(taint) = record.taint.as_deref()
        && is_of_livepatch(taint, record)
    {
        say(&unnamed_patch(taint));
    }
    reasons.extend(other_mechanisms(record, complete));
    reasons.extend(recent_changes(record, life, complete));
    let places = record
        .function
        .iter()
        .chain(record.trace.iter().map(|frame| &frame.function));
    for place in places {
        let reason = about_place(place, record);
        reasons.extend(reason.filter(|reason| !reasons.contains(reason)));
    }
    reasons
}

/// Patches that are being loaded or have just been removed: their code may be in use although no
/// place on the stack has their name.
fn recent_changes(record: &CrashRecord, life: &Lifecycle, complete: &Completeness) -> Vec<String> {
    let mut reasons = Vec::new();
    if life.unnamed && record.patches.is_empty() {
        reasons.push("a transition ran, and the log does not name its patch".to_owned());
    }
    for (index, known) in life.patches.iter().enumerate() {
        let listed = record
            .patches
            .iter()
            .any(|patch| patch.name == known.name && patch.state.is_some());
        // panic() prints no module list (kernel/panic.c, lib/dump_stack.c). The last log line about
        // a patch is then valid, unless a later patch may have replaced it: the log names every
        // patch whose transition starts or ends.
        let mut later = life.patches.iter().skip(index + 1);
        let later = later.any(|later| matches!(later.stage, Stage::Transition | Stage::Enabled));
        let missing = !listed && (complete.modules || later);
        match known.stage {
            Stage::Loading => {
                reasons.push(format!("livepatch {} was being loaded", known.name));
            }
            Stage::Enabled if missing => {
                reasons.push(format!("livepatch {} may have been replaced", known.name));
            }
            Stage::Disabled if record.phase == Phase::Soak => {
                reasons.push(format!("livepatch {} has just been disabled", known.name));
            }
            Stage::Unknown => reasons.push(format!(
                "the log does not show the state of livepatch {}",
                known.name
            )),
            Stage::Enabled | Stage::Disabled | Stage::Transition | Stage::Refused => {}
        }
    }
    if let Some(module) = complete
        .last_unloaded
        .as_ref()
        .filter(|module| module.taints.contains('K'))
    {
        reasons.push(format!(
            "livepatch {} was the last module to be unloaded",
            module.name
        ));
    }
    reasons
}

fn about_place(place: &Function, record: &CrashRecord) -> Option<String> {
    if place.offset.is_none() && place.name.starts_with("0x") {
        return Some(format!(
            "{} has no name: it may be in a livepatch that is gone",
            place.name
        ));
    }
    let module = place.module.as_deref()?;
    let patch = record.patches.iter().any(|patch| patch.name == module);
    if patch {
        // A guessed frame neither implicates the patch nor clears it.
        return Some(format!(
            "{place} may be on the stack: the kernel is not certain of that frame"
        ));
    }
    let listed = record
        .modules
        .as_ref()?
        .iter()
        .any(|known| known.name == module);
    (!listed).then(|| format!("{place} is in a module that is not in the module list"))
}

/// The problem to report for a text without a crash that contains a line which only a report has,
/// but no second sign of one.
pub(super) fn lone_headline(headline: &str) -> String {
    format!(
        "cannot determine whether this is a crash, since nothing else of its report is in the \
         log: {headline}"
    )
}

/// The same, if the line may be part of a name with a newline in it.
pub(super) fn suspect_headline(headline: &str) -> String {
    format!(
        "cannot determine whether this is a crash, since it may be part of a name in the lines \
         before it, and nothing that only a crash has follows outside of what a name may hold: \
         {headline}"
    )
}

/// The same, if the line is one of the rest of a report.
pub(super) fn headless(line: &str) -> String {
    format!(
        "cannot determine whether there was a crash, since the beginning of the report to which \
         this line belongs is not in the log: {line}"
    )
}
