//! Which phase a crash falls in, and whether a livepatch is implicated.

use super::{
    Phase,
    parser::{
        Reading, Replaced,
        timeline::{Life, Timeline},
    },
    proof::{self, Completeness},
    record::{CrashRecord, Evidence, EvidenceKind, Function, Implicated, Marker, Module, Patch},
};
use crate::transition::Direction;

/// For how long an announced patch counts as being loaded if nothing more is heard.
const LOADING_SECONDS: f64 = 300.0;

/// Fills in the patches, the phase and the implication of a record whose other
/// fields are complete. `timeline` is what the log had said before the crash, `now`
/// when that was on the log's clock; `complete` how much of the report was read.
pub(super) fn judge(
    record: &mut CrashRecord,
    timeline: &Timeline,
    now: Option<f64>,
    complete: &Completeness,
    reading: &Reading,
) {
    let modules = record.modules.as_deref();
    let kpatch_core = timeline.kpatch_core
        || modules.is_some_and(|modules| modules.iter().any(|module| module.name == "kpatch"));
    record.patches = patches(modules, timeline, kpatch_core);
    if let Some(module) = &complete.last_unloaded
        && record.patches.iter().all(|patch| patch.name != module.name)
        && (module.taints.contains('K') || is_kpatch(module, kpatch_core))
        && touches(record, &module.name)
    {
        record.patches.push(Patch {
            name: module.name.clone(),
            state: None,
            kpatch: is_kpatch(module, kpatch_core),
        });
    }
    record.transition = timeline.running(now);
    record.last_transition = timeline.last(now);
    record.phase = phase(record, timeline, now, complete, reading.soak_seconds);
    record.evidence = evidence(record, complete, timeline, now, &reading.replaced);
    record.implicated = Implicated::Yes;
    if record.evidence.is_empty() {
        record.unproven = proof::against_no(record, timeline, complete);
        record.implicated = match record.unproven.is_empty() {
            true => Implicated::No,
            false => Implicated::Unknown,
        };
    }
}

/// A place on the stack lies in the module.
fn touches(record: &CrashRecord, module: &str) -> bool {
    let frames = record.trace.iter().map(|frame| &frame.function);
    let mut places = record.function.iter().chain(frames);
    places.any(|place| place.module.as_deref() == Some(module))
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

fn phase(
    record: &CrashRecord,
    timeline: &Timeline,
    now: Option<f64>,
    complete: &Completeness,
    soak_seconds: f64,
) -> Phase {
    let loading = |patch: &Patch| patch.state == Some(Marker::Loading);
    if record.patches.iter().any(loading) {
        return Phase::Load;
    }
    if record.transition.is_some() || timeline.unnamed {
        return Phase::Transition;
    }
    if loads(record, timeline, now).is_some() {
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
    match proof::against_unpatched(record, timeline, complete).is_empty() {
        true => Phase::Unpatched,
        false => Phase::Unknown,
    }
}

/// The patch that is announced and of which nothing more was heard, while that is
/// fresh: some ways to fail print nothing. A module that is being relocated is not yet
/// in the module list (`load_module`, kernel/module/main.c).
fn loads<'a>(record: &CrashRecord, timeline: &'a Timeline, now: Option<f64>) -> Option<&'a str> {
    let known = timeline.patches.last()?;
    let fresh = known.age(now).is_none_or(|age| age <= LOADING_SECONDS);
    let live = record
        .patches
        .iter()
        .any(|patch| patch.name == known.name && patch.state == Some(Marker::Live));
    (known.life == Life::Loading && fresh && !live).then_some(known.name.as_str())
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

fn evidence(
    record: &CrashRecord,
    complete: &Completeness,
    timeline: &Timeline,
    now: Option<f64>,
    replaced: &[Replaced],
) -> Vec<Evidence> {
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
    if let Some(function) = record.function.as_ref().filter(|_| complete.faulted) {
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
    if let Some(name) = loads(record, timeline, now)
        && !found
            .iter()
            .any(|found| found.kind == EvidenceKind::PatchLoading)
    {
        found.push(Evidence {
            kind: EvidenceKind::PatchLoading,
            patch: Some(name.to_owned()),
            function: None,
        });
    }
    found.sort_by_key(|evidence| evidence.kind);
    found
}
