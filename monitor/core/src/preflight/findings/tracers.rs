//! Who else sits on the functions.

use super::{Finding, Host, Module, Severity, add, shown, told};
use crate::{
    patch::{Patch, VMLINUX},
    preflight::{
        host::{Kprobe, KprobeEvent, Traced, module_of},
        module::Function,
    },
};

const CHECK: &str = "tracers";

pub(super) fn judge(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    if module.functions().next().is_none() {
        return;
    }
    const REMEDY: &str = "run as root, with tracefs and debugfs mounted";
    let traced = told(
        &host.tracers.ftrace,
        Severity::Warning,
        CHECK,
        REMEDY,
        findings,
    );
    let kprobes = told(
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
        let events = &host.tracers.events;
        for probe in &probes {
            kprobe(&place, probe, events, findings);
        }
        let traced = traced
            .into_iter()
            .flatten()
            .filter(|traced| on_it(&traced.name, traced.module.as_deref()));
        for traced in traced {
            ftrace(&place, traced, &below, &probes, host, findings);
        }
    }
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
        Some(true) => "this one takes its place",
        _ => "this one goes on top, and what is in force now is what tasks must leave",
    };
    add(
        findings,
        Severity::Info,
        "stacked",
        format!("{place} is patched already by {}: {how}", names.join(", ")),
        "",
    );
}

fn kprobe(place: &str, probe: &Kprobe, events: &[KprobeEvent], findings: &mut Vec<Finding>) {
    let kind = if probe.on_return {
        "kretprobe"
    } else {
        "kprobe"
    };
    let names: Vec<String> = events
        .iter()
        .filter(|event| {
            event.name == probe.name && (event.module.is_none() || event.module == probe.module)
        })
        .map(|event| shown(&event.event))
        .collect();
    let state = if probe.disabled { ", switched off" } else { "" };
    let effect = match probe.by_ftrace || probe.offset == 0 {
        true => "it goes on firing at the function's entry",
        false => "inside the function: it never fires again, for the old code no longer runs",
    };
    let (whose, remedy) = match names.as_slice() {
        [] => (
            String::new(),
            "find its owner (bpftool perf, perf, bpftrace, SystemTap) and end it for the time of \
             the load"
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
            "a {kind}{whose} sits on {place}+{:#x}{state}: {effect}",
            probe.offset
        ),
        remedy,
    );
}

fn ftrace(
    place: &str,
    traced: &Traced,
    below: &[&Patch],
    probes: &[&Kprobe],
    host: &Host,
    findings: &mut Vec<Finding>,
) {
    let who = match traced.who.as_str() {
        "" => String::new(),
        who => format!(" [{}]", shown(who)),
    };
    // Only one may redirect a function; livepatches share theirs.
    if traced.ipmodify && below.is_empty() {
        let what = match probes {
            [] => "somebody",
            _ => "a kprobe with a post-handler",
        };
        add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "{what} may redirect {place} (I in enabled_functions){who}: the kernel refuses a \
                 livepatch beside it (EBUSY)"
            ),
            "end the tracer that holds it",
        );
    }
    if traced.direct {
        direct(place, &who, host, findings);
    } else if !traced.ipmodify && probes.is_empty() {
        add(
            findings,
            Severity::Info,
            CHECK,
            format!("ftrace calls somebody from {place}{who}: works beside a livepatch"),
            "",
        );
    }
}

fn direct(place: &str, who: &str, host: &Host, findings: &mut Vec<Finding>) {
    const OWNER: &str = "bpftool link and bpftool prog name its owner";
    match host.trampolines_share {
        Some(true) => add(
            findings,
            Severity::Warning,
            CHECK,
            format!(
                "a BPF trampoline sits on {place}{who}: it goes on working, but an fmod_ret \
                 program overrides what the patch returns"
            ),
            OWNER,
        ),
        Some(false) => add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "a BPF trampoline sits on {place}{who}: before 6.0 the kernel refuses a livepatch \
                 beside it (EBUSY)"
            ),
            format!("detach it for good: {OWNER}"),
        ),
        None => add(
            findings,
            Severity::Warning,
            CHECK,
            format!(
                "a BPF trampoline sits on {place}{who}; whether this kernel lets a livepatch \
                 beside it (6.0 and later) is not known without BTF"
            ),
            OWNER,
        ),
    }
}
