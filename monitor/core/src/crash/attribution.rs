//! Determines the phase that a crash falls in, and whether a livepatch is implicated.

use std::time::Duration;

use super::{
    livepatch_log::{LivepatchLog, moment},
    patch_transition::PatchTransition,
    proof::{self, Completeness},
    reading::{Reading, Replaced},
    record::{CrashRecord, Evidence, EvidenceKind, Function, Implicated, Marker, Module, Patch},
};
use crate::{
    lifecycle::{At, Lifecycle, Step},
    phase::Phase,
    transition::BootTime,
};

/// Fills in the patches, the phase and the implication of a record whose other fields are complete.
/// `log`: livepatch state from earlier log lines; `now`: the crash's time on the log's clock;
/// `complete`: how much of the report was read.
pub(super) fn judge(
    record: &mut CrashRecord,
    log: &LivepatchLog,
    now: Option<f64>,
    complete: &Completeness,
    reading: &Reading,
) {
    let now = moment(now);
    let modules = record.modules.as_deref();
    let kpatch_core = log.kpatch_core
        || modules.is_some_and(|modules| modules.iter().any(|module| module.name == "kpatch"));
    record.patches = patches(modules, log, kpatch_core);
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
    record.transition = PatchTransition::running(&log.life, now);
    record.last_transition = PatchTransition::ended(&log.life, now);
    let mut life = log.life.clone();
    with_module_list(&mut life, record);
    life.complete = proof::against_unpatched(record, &life, complete).is_empty();
    record.phase = phase(record, &life, now, reading.soak_seconds);
    record.evidence = evidence(record, complete, &life, now, &reading.replaced);
    record.implicated = Implicated::Yes;
    if record.evidence.is_empty() {
        record.unproven = proof::against_no(record, &life, complete);
        record.implicated = match record.unproven.is_empty() {
            true => Implicated::No,
            false => Implicated::Unknown,
        };
    }
}

/// Applies the module list: a module listed as live is loaded, whatever earlier log lines say. One
/// that is being relocated is not in the list yet (`load_module`, kernel/module/main.c).
fn with_module_list(life: &mut Lifecycle, record: &CrashRecord) {
    for patch in &record.patches {
        if patch.state == Some(Marker::Live) {
            life.step(At::default(), Step::Loaded(&patch.name));
        }
    }
}

/// Whether a place on the stack lies in the module.
fn touches(record: &CrashRecord, module: &str) -> bool {
    let frames = record.trace.iter().map(|frame| &frame.function);
    let mut places = record.function.iter().chain(frames);
    places.any(|place| place.module.as_deref() == Some(module))
}

/// Whether the module is a patch of the out-of-tree kpatch core. Such a patch has no taint letter,
/// so it is recognised by its name, and only if that core is loaded.
fn is_kpatch(module: &Module, kpatch_core: bool) -> bool {
    kpatch_core && (module.name.starts_with("kpatch_") || module.name.starts_with("kpatch-"))
}

fn patches(modules: Option<&[Module]>, log: &LivepatchLog, kpatch_core: bool) -> Vec<Patch> {
    let listed = |name: &str| modules?.iter().find(|module| module.name == name);
    let mut patches: Vec<Patch> = log
        .life
        .patches
        .iter()
        .map(|known| Patch {
            name: known.name.clone(),
            state: listed(&known.name).map(|module| module.state),
            kpatch: log.is_kpatch(&known.name),
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
    life: &Lifecycle,
    now: Option<BootTime>,
    soak_seconds: f64,
) -> Phase {
    let loading = |patch: &Patch| patch.state == Some(Marker::Loading);
    if record.patches.iter().any(loading) {
        return Phase::Load;
    }
    let soak = Duration::try_from_secs_f64(soak_seconds).unwrap_or_default();
    life.phase(now, soak)
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
    life: &Lifecycle,
    now: Option<BootTime>,
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
        // One place of each kind is enough; the trace has the others.
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
    if let Some(name) = life.loading(now)
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
