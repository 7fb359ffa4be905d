//! The one rule for negatives: "no", "unpatched" and "no crash" are reported only if the text
//! proves them. Everything else is unknown, with the reason.

use super::{
    record::{CrashRecord, Function, Module},
    signal::Signal,
};
use crate::{
    lifecycle::{Lifecycle, Stage},
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
        // K: a livepatch was loaded; U: the out-of-tree kpatch core does so.
        Some(taint) if taint.contains(['K', 'U']) => {
            let explained = !life.patches.is_empty() && complete.modules;
            if !explained {
                reasons.push(
                    "the kernel is tainted by a livepatch (K), and the log does not name it"
                        .to_owned(),
                );
            }
        }
        Some(_) => {}
    }
    if complete.mixed {
        reasons.push(MIXED.to_owned());
    }
    reasons
}

/// A line of `livepatch:` that may be part of a name that a user chose.
pub(super) const DOUBTED_MESSAGE: &str = "a livepatch message has the same timestamp as the line before it, so it may be part of a file's \
     or a task's name";

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
        .is_some_and(|taint| !taint.contains(['K', 'U']));
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
        say(match record.kind {
            _ if record.signals.contains(&Signal::Oops) => {
                "the faulting function is not in the log"
            }
            _ => "the function it happened in is not in the log",
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
    let unexplained = record
        .taint
        .as_deref()
        .is_some_and(|taint| taint.contains('K'))
        && record.patches.is_empty();
    if unexplained {
        say("the kernel is tainted by a livepatch (K), and the log does not name it");
    }
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
