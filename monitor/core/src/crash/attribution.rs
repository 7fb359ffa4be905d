//! Which phase a crash falls in, and whether a livepatch is implicated.

use super::{
    Phase,
    parser::{
        Reading, Replaced,
        timeline::{Known, Life, Timeline},
    },
    record::{CrashRecord, Evidence, EvidenceKind, Function, Implicated, Marker, Module, Patch},
};
use crate::transition::Direction;

/// For how long an announced patch counts as being loaded if nothing more is heard.
const LOADING_SECONDS: f64 = 300.0;

/// Fills in the patches, the phase and the implication of a record whose other
/// fields are complete. `timeline` is what the log had said before the crash, `now`
/// when that was on the log's clock;
/// `faulted` that the record's function is a faulting instruction's, not a caller's.
pub(super) fn judge(
    record: &mut CrashRecord,
    timeline: &Timeline,
    now: Option<f64>,
    faulted: bool,
    reading: &Reading,
) {
    let modules = record.modules.as_deref();
    let kpatch_core = timeline.kpatch_core
        || modules.is_some_and(|modules| modules.iter().any(|module| module.name == "kpatch"));
    record.patches = patches(modules, timeline, kpatch_core);
    record.transition = timeline.running(now);
    record.last_transition = timeline.last(now);
    record.phase = phase(record, timeline, now, reading.soak_seconds);
    record.evidence = evidence(record, faulted, &reading.replaced);
    record.implicated = implicated(record);
}

/// The module is the out-of-tree kpatch core's patch: it has no taint letter of its
/// own, so its name has to do, and only where that core is loaded.
fn is_kpatch(module: &Module, kpatch_core: bool) -> bool {
    kpatch_core && (module.name.starts_with("kpatch_") || module.name.starts_with("kpatch-"))
}

fn patches(modules: Option<&[Module]>, timeline: &Timeline, kpatch_core: bool) -> Vec<Patch> {
    let listed = |name: &str| modules?.iter().find(|module| module.name == name);
    let mut patches: Vec<Patch> = timeline
        .patches
        .iter()
        .map(|known| Patch {
            name: known.name.clone(),
            state: listed(&known.name).map(|module| module.state),
            kpatch: known.kpatch,
        })
        .collect();
    for module in modules.unwrap_or_default() {
        let kpatch = is_kpatch(module, kpatch_core);
        let new = !patches.iter().any(|patch| patch.name == module.name);
        if new && (kpatch || module.taints.contains('K')) {
            patches.push(Patch {
                name: module.name.clone(),
                state: Some(module.state),
                kpatch,
            });
        }
    }
    patches
}

fn phase(record: &CrashRecord, timeline: &Timeline, now: Option<f64>, soak_seconds: f64) -> Phase {
    let loading = |patch: &Patch| patch.state == Some(Marker::Loading);
    if record.patches.iter().any(loading) {
        return Phase::Load;
    }
    if record.transition.is_some() {
        return Phase::Transition;
    }
    // Without a module list the announcement has to do, while it is fresh: some ways
    // to fail print nothing.
    let fresh = |known: &Known| {
        let age = known.age(now);
        known.life == Life::Loading && age.is_some_and(|age| age <= LOADING_SECONDS)
    };
    if record.modules.is_none() && timeline.patches.last().is_some_and(fresh) {
        return Phase::Load;
    }
    let ended = record.last_transition.as_ref();
    match ended.map(|last| last.ended_before_seconds) {
        Some(Some(ago)) if ago <= soak_seconds => return Phase::Soak,
        // A log without times.
        Some(None) => return Phase::Unknown,
        _ => {}
    }
    let mut lives = timeline.patches.iter().map(|known| known.life);
    if lives.any(|life| life == Life::Done(Direction::Patch)) {
        return Phase::Patched;
    }
    // A livepatch is listed, but how far it had come is in a part of the log that
    // is not here.
    if record.patches.iter().any(|patch| patch.state.is_some()) {
        return Phase::Unknown;
    }
    let gone = |known: &Known| matches!(known.life, Life::Done(Direction::Unpatch) | Life::Failed);
    let listed = record.modules.is_some();
    let all_gone = timeline.patches.iter().all(|known| listed || gone(known));
    if knows_no_patch(record) || (!timeline.patches.is_empty() && all_gone) {
        Phase::Unpatched
    } else {
        Phase::Unknown
    }
}

/// The text says that there is no livepatch: the kernel was never tainted by one,
/// nor, as the out-of-tree kpatch core does, for a user's sake (`U`), or the module
/// list has none.
fn knows_no_patch(record: &CrashRecord) -> bool {
    let untainted = record
        .taint
        .as_ref()
        .is_some_and(|taint| !taint.contains(['K', 'U']));
    record.patches.is_empty() && (untainted || record.modules.is_some())
}

fn is_core(function: &Function) -> bool {
    match function.module.as_deref() {
        None => {
            let name = function.name.trim_start_matches('_');
            name.starts_with("klp_") || name.starts_with("kpatch_")
        }
        Some(module) => module == "kpatch",
    }
}

fn evidence(record: &CrashRecord, faulted: bool, replaced: &[Replaced]) -> Vec<Evidence> {
    let replacing = |function: &Function| {
        let same = |known: &&Replaced| {
            let module = function.module.as_deref();
            known.function.is_symbol(&function.name, module)
        };
        Some(replaced.iter().find(same)?.patch.clone())
    };
    let patch_of = |function: &Function| {
        let module = function.module.as_deref()?;
        let patch = record.patches.iter().find(|patch| patch.name == module)?;
        Some(patch.name.clone())
    };
    let mut found: Vec<Evidence> = Vec::new();
    let mut add = |kind, patch: Option<String>, function: Option<&Function>| {
        let known = |evidence: &Evidence| evidence.kind == kind && evidence.patch == patch;
        // The innermost of each kind says enough; the trace has the others.
        if !found.iter().any(known) {
            let function = function.cloned();
            found.push(Evidence {
                kind,
                patch,
                function,
            });
        }
    };
    let current = record
        .transition
        .as_ref()
        .map(|running| running.patch.clone());
    if let Some(function) = record.function.as_ref().filter(|_| faulted) {
        if let Some(patch) = patch_of(function) {
            add(EvidenceKind::FaultInPatch, Some(patch), Some(function));
        } else if let Some(patch) = replacing(function) {
            add(EvidenceKind::FaultInReplaced, Some(patch), Some(function));
        } else if is_core(function) {
            add(EvidenceKind::FaultInCore, current.clone(), Some(function));
        }
    }
    for frame in record.trace.iter().filter(|frame| frame.reliable) {
        let function = &frame.function;
        if let Some(patch) = patch_of(function) {
            add(EvidenceKind::StackInPatch, Some(patch), Some(function));
        } else if let Some(patch) = replacing(function) {
            add(EvidenceKind::StackInReplaced, Some(patch), Some(function));
        } else if is_core(function) {
            add(EvidenceKind::StackInCore, current.clone(), Some(function));
        }
    }
    for patch in &record.patches {
        if patch.state == Some(Marker::Loading) {
            add(EvidenceKind::PatchLoading, Some(patch.name.clone()), None);
        }
    }
    found.sort_by_key(|evidence| evidence.kind);
    found
}

fn implicated(record: &CrashRecord) -> Implicated {
    if !record.evidence.is_empty() {
        return Implicated::Yes;
    }
    if knows_no_patch(record) {
        return Implicated::No;
    }
    let told = !record.patches.is_empty() || record.modules.is_some();
    let mut places = record
        .function
        .iter()
        .chain(record.trace.iter().map(|frame| &frame.function))
        .peekable();
    let seen = places.peek().is_some();
    // Where the log has no module list, a module on the stack may be a livepatch
    // that was loaded before the log begins.
    let stranger = record.modules.is_none() && places.any(|place| place.module.is_some());
    if told && seen && !stranger && !record.cut {
        Implicated::No
    } else {
        Implicated::Unknown
    }
}
