//! Whether an enabled patch's functions really run, function by function.
//!
//! A patch that is `enabled` and in no transition may still not run: a patch that was loaded
//! later replaces a function, the module of an object is not loaded, or a BPF program
//! overrides the function. What the kernel shows is in tracefs's `enabled_functions`: flag
//! `I` where a livepatch redirects the function, `D` where a BPF trampoline is attached
//! (kernel/trace/ftrace.c, 5.10 to 7.2). A program may override a function only if that is
//! in debugfs's `error_injection/list`, or is a hook of BPF LSM or `security_*`
//! (check_attach_modify_return, kernel/bpf/verifier.c; bpf_override_return,
//! kernel/trace/bpf_trace.c). Which of livepatch and bpf_override_return wins is not shown
//! anywhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    patch::{Object, Patch, PatchSet, VMLINUX},
    preflight::host::{BpfProgram, Known, Kprobe, KprobeEvent, Traced, is_hook},
};

/// What the kernel shows of the functions that the loaded patches replace.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Of `enabled_functions`, the lines of these functions.
    pub traced: Known<Vec<Traced>>,
    /// Lines of other functions with flag `I`: the name may be an alias.
    pub redirected_elsewhere: usize,
    /// The kprobes on these functions.
    pub kprobes: Known<Vec<Kprobe>>,
    /// Those of them that are events of tracefs, which only record the call; empty where
    /// `kprobe_events` cannot be read.
    pub events: Vec<KprobeEvent>,
    /// Those of these functions that a BPF program may override.
    pub overridable: Known<BTreeSet<String>>,
    /// The loaded modules, the newest first.
    pub modules: Known<Vec<String>>,
    /// BPF programs on functions of the kernel itself; an error where they cannot be listed.
    pub programs: Known<Vec<BpfProgram>>,
}

/// Why a function is not, or not provably, in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason", content = "by")]
pub enum Why {
    /// The patch is in transition.
    InTransition,
    /// A patch that was loaded later replaces it.
    Replaced(String),
    /// Something attached to it may override it.
    MayBeOverridden(String),
    /// The module that it is in is not loaded.
    ObjectNotLoaded,
    /// `enabled_functions` does not show that it is redirected.
    NotRedirected,
    /// It cannot be determined.
    Unknown(String),
}

/// The names of the reasons, as label values and in JSON.
pub const REASONS: [&str; 6] = [
    "in_transition",
    "replaced",
    "may_be_overridden",
    "object_not_loaded",
    "not_redirected",
    "unknown",
];

impl Why {
    /// The reason as a label value and in JSON (see [`REASONS`]).
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::InTransition => "in_transition",
            Self::Replaced(_) => "replaced",
            Self::MayBeOverridden(_) => "may_be_overridden",
            Self::ObjectNotLoaded => "object_not_loaded",
            Self::NotRedirected => "not_redirected",
            Self::Unknown(_) => "unknown",
        }
    }

    /// As the end of a sentence whose subject is the function.
    #[must_use]
    pub fn described(&self) -> String {
        match self {
            Self::InTransition => "is in transition".to_owned(),
            Self::Replaced(by) => format!("is replaced by {by}, which was loaded later"),
            Self::MayBeOverridden(by) => format!("may be overridden by {by}"),
            Self::ObjectNotLoaded => "is in a module that is not loaded".to_owned(),
            Self::NotRedirected => {
                "is not redirected: enabled_functions shows no livepatch on it".to_owned()
            }
            Self::Unknown(why) => format!("cannot be checked: {why}"),
        }
    }
}

/// A function that is not, or not provably, in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutOfForce {
    /// Name of the patched function.
    pub function: String,
    /// Why it is not in force, or why that is unknown.
    #[serde(flatten)]
    pub why: Why,
}

/// How many functions of an object are in force, and which are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectInForce {
    /// The livepatch, by its module's name.
    pub patch: String,
    /// What it patches: `vmlinux` or a module.
    pub object: String,
    /// Functions that provably run as the patch has them.
    pub in_force: usize,
    /// Functions that are not, or not provably, in force.
    pub others: Vec<OutOfForce>,
}

impl ObjectInForce {
    /// The number of functions in force; `None` if that of none is known.
    #[must_use]
    pub fn known(&self) -> Option<usize> {
        let unknown = |one: &OutOfForce| matches!(one.why, Why::Unknown(_));
        let all_unknown = !self.others.is_empty() && self.others.iter().all(unknown);
        (self.in_force > 0 || !all_unknown).then_some(self.in_force)
    }

    /// Functions that are not in force, by reason: every reason, with 0.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<_, _> = REASONS.into_iter().map(|name| (name, 0)).collect();
        for one in &self.others {
            *counts.entry(one.why.name()).or_default() += 1;
        }
        counts
    }
}

/// The names of all functions that enabled patches replace: those that [`Seen`] is about.
#[must_use]
pub fn functions(set: &PatchSet) -> BTreeSet<&str> {
    let objects = enabled(set).flat_map(|patch| &patch.objects);
    let functions = objects.flat_map(|object| &object.functions);
    functions.map(|function| function.name.as_str()).collect()
}

fn enabled(set: &PatchSet) -> impl Iterator<Item = &Patch> {
    set.patches
        .iter()
        .filter(|patch| patch.enabled == Some(true))
}

/// What is in force of every object of every enabled patch.
#[must_use]
pub fn judge(set: &PatchSet, seen: &Seen) -> Vec<ObjectInForce> {
    enabled(set)
        .flat_map(|patch| patch.objects.iter().map(move |object| (patch, object)))
        .map(|(patch, object)| {
            let mut in_force = 0;
            let mut others = Vec::new();
            for function in &object.functions {
                match function_of(set, seen, patch, object, &function.name) {
                    None => in_force += 1,
                    Some(why) => others.push(OutOfForce {
                        function: function.name.clone(),
                        why,
                    }),
                }
            }
            ObjectInForce {
                patch: patch.name.clone(),
                object: object.name.clone(),
                in_force,
                others,
            }
        })
        .collect()
}

/// Why a function is not in force; `None` if it is.
fn function_of(
    set: &PatchSet,
    seen: &Seen,
    patch: &Patch,
    object: &Object,
    name: &str,
) -> Option<Why> {
    match patch.transition {
        Some(false) => {}
        Some(true) => return Some(Why::InTransition),
        None => return Some(Why::Unknown("`transition` cannot be read".to_owned())),
    }
    let modules = match &seen.modules {
        Ok(modules) => modules,
        Err(why) => return Some(Why::Unknown(why.clone())),
    };
    let is_loaded = object.name == VMLINUX || modules.contains(&object.name);
    if object.patched == Some(false) || !is_loaded {
        return Some(Why::ObjectNotLoaded);
    }
    if let Some(why) = replaced(set, modules, patch, object, name) {
        return Some(why);
    }
    let traced = match &seen.traced {
        Ok(traced) => traced,
        Err(why) => return Some(Why::Unknown(why.clone())),
    };
    let is_here = |module: Option<&str>| module.unwrap_or(VMLINUX) == object.name;
    let lines: Vec<&Traced> = traced
        .iter()
        .filter(|line| line.name == name && is_here(line.module.as_deref()))
        .collect();
    let redirected = lines.iter().filter(|line| line.ipmodify).count();
    let wanted = positions(set, &object.name, name);
    if redirected < wanted {
        return Some(match (redirected, seen.redirected_elsewhere) {
            (0, 0) => Why::NotRedirected,
            (0, _) => Why::Unknown(
                "enabled_functions shows a livepatch under a name that no patch has, perhaps an \
                 alias of this one"
                    .to_owned(),
            ),
            _ => Why::Unknown("several functions have this name".to_owned()),
        });
    }
    let has_trampoline = lines.iter().any(|line| line.direct);
    // All livepatches are one user, and all kprobes another.
    let is_alone = lines.iter().all(|line| line.users == Some(1));
    overridden(seen, object, name, has_trampoline, is_alone)
}

/// How many functions of this name the patches replace in an object.
fn positions(set: &PatchSet, object: &str, name: &str) -> usize {
    let objects = enabled(set).flat_map(|patch| &patch.objects);
    let functions = objects
        .filter(|other| other.name == object)
        .flat_map(|other| &other.functions);
    let positions: BTreeSet<u64> = functions
        .filter(|function| function.name == name)
        .map(|function| function.sympos)
        .collect();
    positions.len()
}

/// Patches are enabled by their modules' init, so the newest module is on top.
fn replaced(
    set: &PatchSet,
    modules: &[String],
    patch: &Patch,
    object: &Object,
    name: &str,
) -> Option<Why> {
    let age = |module: &str| modules.iter().position(|other| other == module);
    let replaces = |other: &&Patch| {
        other
            .objects
            .iter()
            .any(|one| one.name == object.name && one.functions.iter().any(|one| one.name == name))
    };
    let others = enabled(set).filter(|other| other.name != patch.name);
    let others: Vec<&Patch> = others.filter(replaces).collect();
    let mine = age(&patch.name);
    let is_newer = |other: &&&Patch| {
        age(&other.name)
            .zip(mine)
            .is_some_and(|(one, mine)| one < mine)
    };
    let Some(newer) = others.iter().find(is_newer) else {
        let is_known = |other: &&Patch| age(&other.name).is_some() && mine.is_some();
        let unknown = others.into_iter().find(|other| !is_known(other))?;
        return Some(Why::Unknown(format!(
            "whether it was loaded before or after {} is not known",
            unknown.name
        )));
    };
    Some(match newer.transition {
        Some(false) => Why::Replaced(newer.name.clone()),
        _ => Why::InTransition,
    })
}

/// `is_alone`: the livepatch is the function's only user.
fn overridden(
    seen: &Seen,
    object: &Object,
    name: &str,
    has_trampoline: bool,
    is_alone: bool,
) -> Option<Why> {
    let overridable = match &seen.overridable {
        Ok(names) => Ok(names.contains(name) || is_hook(name)),
        Err(why) => Err(why),
    };
    if has_trampoline && let Some(why) = trampoline(seen, object, name, &overridable) {
        return Some(why);
    }
    let kprobes = match &seen.kprobes {
        Ok(kprobes) => kprobes.as_slice(),
        Err(why) if !is_alone => return Some(Why::Unknown(why.clone())),
        Err(_) => &[],
    };
    let at_entry = kprobes.iter().filter(|probe| {
        probe.name == name
            && probe.module.as_deref().unwrap_or(VMLINUX) == object.name
            && !probe.disabled
            && !probe.on_return
            && (probe.by_ftrace || probe.offset == 0)
    });
    let at_entry = at_entry.count();
    let only_record = seen.events.iter().filter(|event| {
        let is_here = |module: &String| *module == object.name;
        event.at_entry && event.name == name && event.module.as_ref().is_none_or(is_here)
    });
    let others = at_entry > only_record.count();
    match (at_entry > 0, overridable) {
        (true, Ok(true)) => Some(Why::MayBeOverridden(
            "a kprobe on it, if its BPF program calls bpf_override_return (bpftool perf shows \
             it): the kernel does not show which of the two wins"
                .to_owned(),
        )),
        (true, Err(why)) => Some(Why::Unknown(format!(
            "a kprobe is attached to it, and {why}"
        ))),
        // It may set the instruction pointer (Documentation/trace/kprobes.rst, Changing
        // Execution Path); the older one of it and the livepatch wins (seen on 6.12 and 7.2).
        (true, Ok(false)) if others => Some(Why::Unknown(
            "a kprobe on it is not an event of tracefs: if it is of a kernel module, its handler \
             may redirect the call, which the kernel does not show"
                .to_owned(),
        )),
        _ => None,
    }
}

/// What a BPF trampoline on the function may do to it.
fn trampoline(
    seen: &Seen,
    object: &Object,
    name: &str,
    overridable: &Result<bool, &String>,
) -> Option<Why> {
    // Those of functions in modules are not resolved.
    let listed = seen.programs.as_ref().ok();
    let listed = listed.filter(|_| object.name == VMLINUX);
    let mine: Vec<&BpfProgram> = listed
        .into_iter()
        .flatten()
        .filter(|one| one.function == name)
        .collect();
    let overriding: Vec<String> = mine
        .iter()
        .filter(|one| one.kind.overrides())
        .map(|one| one.described())
        .collect();
    if !overriding.is_empty() {
        let by = format!("BPF program {}", overriding.join(", "));
        return Some(Why::MayBeOverridden(by));
    }
    // All programs of a function share its trampoline, and those that were found are harmless.
    // Only a program of a cgroup on a hook of BPF LSM has no link of this kind.
    if !mine.is_empty() && !name.starts_with("bpf_lsm_") {
        return None;
    }
    match overridable {
        Ok(true) => Some(Why::MayBeOverridden(
            "a BPF trampoline on it, if that is of an fmod_ret or LSM program (bpftool link \
             shows it)"
                .to_owned(),
        )),
        Ok(false) => None,
        Err(why) => Some(Why::Unknown(format!(
            "a BPF trampoline is attached to it, and {why}"
        ))),
    }
}

#[cfg(test)]
mod tests;
