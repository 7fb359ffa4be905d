//! Checks what else is attached to the functions: livepatches, kprobes, tracers and BPF
//! trampolines.

use super::{Finding, Host, Module, Severity, add, known, shown};
use crate::{
    function_ref::module_of,
    patch::{Patch, VMLINUX},
    preflight::{
        host::{BpfProgram, Kprobe, KprobeEvent, ProgramKind, Traced, is_hook},
        module::Function,
    },
};

const CHECK: &str = "tracers";

pub(super) fn judge(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    if module.functions().next().is_none() {
        return;
    }
    const REMEDY: &str = "run as root, with tracefs and debugfs mounted";
    let all_traced = known(
        &host.tracers.ftrace,
        Severity::Warning,
        CHECK,
        REMEDY,
        findings,
    );
    let kprobes = known(
        &host.tracers.kprobes,
        Severity::Warning,
        CHECK,
        REMEDY,
        findings,
    );
    let patches = host.patches.as_ref().map(|set| set.patches.as_slice());
    let patches = patches.unwrap_or_default();
    for (object, function) in module.functions() {
        let on_it =
            |name: &str, module: Option<&str>| name == function.name && module == module_of(object);
        let below: Vec<&Patch> = patches
            .iter()
            .filter(|patch| replaces(patch, object, function))
            .collect();
        let place = place(object, function);
        stacked(&place, &below, module, findings);
        let probes: Vec<&Kprobe> = kprobes
            .into_iter()
            .flatten()
            .filter(|probe| on_it(&probe.name, probe.module.as_deref()))
            .collect();
        let traced: Vec<&Traced> = all_traced
            .into_iter()
            .flatten()
            .filter(|traced| on_it(&traced.name, traced.module.as_deref()))
            .collect();
        // A probe that refuses the livepatch does not continue beside it.
        let refuses = below.is_empty() && traced.iter().any(|traced| traced.ipmodify);
        let overridable = overridable(host, &function.name);
        // Where the name stands for several functions, the probes are not assigned to one.
        let users = match traced.as_slice() {
            [] if all_traced.is_some() => Some(Users::NONE),
            [one] => one.users.map(|users| Users::of(one, users, &probes)),
            _ => None,
        };
        for probe in probes.iter().filter(|probe| !(refuses && at_entry(probe))) {
            let is_armed = !probe.by_ftrace
                || probe.disabled
                || users.is_none_or(|users| users.kprobes_are_armed);
            match is_armed {
                true => kprobe(&place, probe, overridable, &host.tracers.events, findings),
                false => unarmed(&place, probe, findings),
            }
        }
        for traced in traced {
            ftrace(
                (&place, traced, users),
                &below,
                &probes,
                (host, overridable),
                findings,
            );
        }
    }
}

/// What the number of users in `enabled_functions` shows.
#[derive(Clone, Copy)]
struct Users {
    /// The kprobes that use ftrace are among them.
    kprobes_are_armed: bool,
    /// There are others than livepatches, kprobes and BPF trampolines.
    has_others: bool,
}

impl Users {
    const NONE: Self = Self {
        kprobes_are_armed: false,
        has_others: false,
    };

    /// The one user that may redirect the function (flag `I`) is a livepatch, or refuses one; the
    /// trampolines are one user (flag `D`).
    fn of(traced: &Traced, users: u32, probes: &[&Kprobe]) -> Self {
        let uses_ftrace = |probe: &&&Kprobe| probe.by_ftrace && !probe.disabled;
        let kprobes = u32::from(probes.iter().any(|probe| uses_ftrace(&probe)));
        let apart = u32::from(traced.ipmodify) + u32::from(traced.direct);
        Self {
            kprobes_are_armed: users > apart,
            has_others: users > apart + kprobes,
        }
    }
}

/// A kprobe that is registered, and not disabled, and that ftrace does not call: all are disarmed
/// (disarm_all_kprobes, kernel/kprobes.c, 5.10 to 7.2), or arming it has failed.
fn unarmed(place: &str, probe: &Kprobe, findings: &mut Vec<Finding>) {
    let kind = kind(probe);
    add(
        findings,
        Severity::Warning,
        CHECK,
        format!(
            "a {kind} is registered on {place}+{:#x} and not armed: enabled_functions does not \
             have it, so it does not fire",
            probe.offset
        ),
        "look whether /sys/kernel/debug/kprobes/enabled is 0; once armed it fires beside a livepatch",
    );
}

fn kind(probe: &Kprobe) -> &'static str {
    match probe.on_return {
        true => "kretprobe",
        false => "kprobe",
    }
}

/// Whether a BPF program may override the function; `None` if that is unknown.
fn overridable(host: &Host, function: &str) -> Option<bool> {
    if is_hook(function) {
        return Some(true);
    }
    let list = host.tracers.overridable.as_ref().ok()?;
    Some(list.contains(function))
}

fn at_entry(probe: &Kprobe) -> bool {
    probe.by_ftrace || probe.offset == 0
}

fn place(object: &str, function: &Function) -> String {
    let name = shown(&function.name);
    match object {
        VMLINUX => name,
        module => format!("{name} (module {})", shown(module)),
    }
}

fn replaces(patch: &Patch, object: &str, function: &Function) -> bool {
    patch.enabled != Some(false)
        && patch.objects.iter().any(|other| {
            other.name == object
                && other
                    .functions
                    .iter()
                    .any(|other| other.name == function.name)
        })
}

fn stacked(place: &str, below: &[&Patch], module: &Module, findings: &mut Vec<Finding>) {
    let others = below.iter().filter(|patch| patch.name != module.name);
    let names: Vec<String> = others.map(|patch| shown(&patch.name)).collect();
    if names.is_empty() {
        return;
    }
    let how = match module.replace {
        Some(true) => "this one replaces it",
        _ => "this one is stacked on top, and tasks must leave the code that is in force now",
    };
    add(
        findings,
        Severity::Info,
        "stacked",
        format!("{place} is already patched by {}: {how}", names.join(", ")),
        "",
    );
}

fn kprobe(
    place: &str,
    probe: &Kprobe,
    overridable: Option<bool>,
    events: &[KprobeEvent],
    findings: &mut Vec<Finding>,
) {
    let kind = kind(probe);
    let names: Vec<String> = events
        .iter()
        .filter(|event| {
            event.name == probe.name && (event.module.is_none() || event.module == probe.module)
        })
        .map(|event| shown(&event.event))
        .collect();
    let state = if probe.disabled { ", disabled" } else { "" };
    let effect = match at_entry(probe) {
        true if probe.on_return => {
            "it still fires, and its events are filed under the old name; while it is attached, \
             tasks asleep below the function hold the transition up"
        }
        true if overridable == Some(true) => {
            "it still fires, and a BPF program attached to it may override the livepatch \
             (bpf_override_return): the kernel admits both in either order, and does not show \
             which of them wins"
        }
        true if names.is_empty() => {
            "it still fires at the function's entry, and its events are filed under the old name; \
             if it is of a kernel module, its handler could redirect the call, which nothing shows"
        }
        true => {
            "it still fires at the function's entry, and its events are filed under the old name"
        }
        false => {
            "it is inside the function and will never fire again, since the old code no longer runs"
        }
    };
    let (whose, remedy) = match names.as_slice() {
        [] => (
            String::new(),
            "find its owner (bpftool perf, perf, bpftrace, SystemTap) and stop it while the livepatch \
            loads"
                .to_owned(),
        ),
        names => (
            format!(" ({})", names.join(", ")),
            names
                .iter()
                .map(|name| {
                    format!(
                        "write 0 to /sys/kernel/tracing/events/{name}/enable, then -:{name} to \
                         kprobe_events"
                    )
                })
                .collect::<Vec<_>>()
                .join("; "),
        ),
    };
    add(
        findings,
        Severity::Warning,
        CHECK,
        format!(
            "a {kind}{whose} is attached to {place}+{:#x}{state}: {effect}",
            probe.offset
        ),
        remedy,
    );
}

fn ftrace(
    (place, traced, users): (&str, &Traced, Option<Users>),
    below: &[&Patch],
    probes: &[&Kprobe],
    (host, overridable): (&Host, Option<bool>),
    findings: &mut Vec<Finding>,
) {
    let who = match traced.who.as_str() {
        "" => String::new(),
        who => format!(" [{}]", shown(who)),
    };
    // Only one ftrace_ops may redirect a function; livepatches share theirs.
    if traced.ipmodify && below.is_empty() {
        let what = match probes {
            [] => "a tracer",
            _ => "a kprobe with a post-handler, or fail_function,",
        };
        add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "{what} may redirect {place} (I in enabled_functions){who}: the kernel refuses a \
                livepatch on the same function (EBUSY)"
            ),
            "stop the tracer that is attached",
        );
    }
    if traced.direct {
        let programs = programs(host, traced);
        if host.trampolines_share == Some(true) && !programs.is_empty() {
            for program in programs {
                bpf_program(place, program, findings);
            }
        } else {
            direct(place, &who, host, overridable, findings);
        }
    }
    let has_others = match users {
        Some(users) => users.has_others,
        None => !traced.ipmodify && !traced.direct && probes.is_empty(),
    };
    let refuses = traced.ipmodify && below.is_empty();
    if has_others && !refuses {
        add(
            findings,
            Severity::Info,
            CHECK,
            format!(
                "ftrace calls a tracer from {place}{who}: this works together with a livepatch; its \
                 events are filed under the old name (on 5.10 function_graph sees none), and while \
                 it hooks the return (fprobe, function_graph) tasks asleep below the function hold the transition up"
            ),
            "",
        );
    }
}

/// The programs of the trampoline, where they are known. On hooks of BPF LSM those of cgroups are
/// not listed.
fn programs<'a>(host: &'a Host, traced: &Traced) -> Vec<&'a BpfProgram> {
    let all = host.tracers.programs.as_ref().ok().into_iter().flatten();
    let on_it = |program: &&BpfProgram| traced.module.is_none() && program.function == traced.name;
    let found: Vec<&BpfProgram> = all.filter(on_it).collect();
    let is_incomplete = traced.name.starts_with("bpf_lsm_")
        && !found.iter().any(|program| program.kind.overrides());
    match is_incomplete {
        true => Vec::new(),
        false => found,
    }
}

fn bpf_program(place: &str, program: &BpfProgram, findings: &mut Vec<Finding>) {
    let (severity, effect, remedy) = match program.kind {
        ProgramKind::Fentry => (
            Severity::Info,
            "it keeps working beside a livepatch, and its events are filed under the old name",
            String::new(),
        ),
        ProgramKind::Fexit | ProgramKind::Fsession => (
            Severity::Warning,
            "it keeps working beside a livepatch, and its events are filed under the old name; \
             while it is attached, tasks asleep below the function hold the transition up",
            format!(
                "if the transition is held up, stop who holds program {}",
                program.id
            ),
        ),
        ProgramKind::FmodRet | ProgramKind::Lsm => (
            Severity::Warning,
            "the kernel admits it beside a livepatch in either order, and where it returns other \
             than 0 the new code never runs: the patch would not be in force",
            format!(
                "ask its owner whether the patched code must run (bpftool prog show id {})",
                program.id
            ),
        ),
    };
    let described = program.described();
    add(
        findings,
        severity,
        CHECK,
        format!("BPF program {described} is attached to {place}: {effect}"),
        remedy,
    );
}

fn direct(
    place: &str,
    who: &str,
    host: &Host,
    overridable: Option<bool>,
    findings: &mut Vec<Finding>,
) {
    const OWNER: &str = "bpftool link and bpftool prog show its owner";
    match host.trampolines_share {
        Some(true) => add(
            findings,
            Severity::Warning,
            CHECK,
            match overridable {
                Some(false) => format!(
                    "a BPF trampoline is attached to {place}{who}: it keeps working, and its events \
                    are filed under the old name; tasks asleep below an fexit program hold the \
                    transition up"
                ),
                Some(true) => format!(
                    "a BPF trampoline is attached to {place}{who}, which BPF programs may override: \
                    the kernel admits both, and where an fmod_ret or LSM program returns other than \
                    0 the new code never runs"
                ),
                None => format!(
                    "a BPF trampoline is attached to {place}{who}: whether its program may override \
                    the patch (fmod_ret, LSM) is unknown"
                ),
            },
            OWNER,
        ),
        Some(false) => add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "a BPF trampoline is attached to {place}{who}: before 6.0 the kernel refuses a livepatch \
                on the same function (EBUSY)"
            ),
            format!("detach it permanently: {OWNER}"),
        ),
        None => add(
            findings,
            Severity::Warning,
            CHECK,
            format!(
                "a BPF trampoline is attached to {place}{who}; whether this kernel allows a livepatch \
                on the same function (6.0 and later do) is unknown without BTF"
            ),
            OWNER,
        ),
    }
}
