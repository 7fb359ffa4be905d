//! Checks of the host as a whole.

use super::{Finding, Host, Module, Severity, add, known, shown};
use crate::crash::capture::Source as Evidence;

/// Above these sizes a transition is risky, since each attempt checks every task with a
/// lock held; operators avoid patching larger hosts (vpsadminos issue 90).
const MANY_THREADS: usize = 100_000;
const MANY_CPUS: usize = 128;

pub(super) fn policy(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "module_policy";
    let policy = &host.policy;
    if policy.modules_disabled == Some(true) {
        add(
            findings,
            Severity::Failure,
            CHECK,
            "this kernel does not load modules any more (kernel.modules_disabled is 1)",
            "reboot: the setting cannot be reverted",
        );
    }
    if policy.ftrace_enabled == Some(false) {
        // register_ftrace_function in kernel/trace/ftrace.c, for FTRACE_OPS_FL_PERMANENT.
        add(
            findings,
            Severity::Failure,
            "ftrace_enabled",
            "kernel.ftrace_enabled is 0: the kernel redirects no function, and refuses a livepatch \
             (EBUSY)",
            "sysctl kernel.ftrace_enabled=1",
        );
    }
    if module.signed {
        return;
    }
    let lockdown = policy
        .lockdown
        .as_deref()
        .filter(|lockdown| *lockdown != "none");
    if policy.signatures_enforced == Some(true) {
        add(
            findings,
            Severity::Failure,
            CHECK,
            "it is not signed, and this kernel loads only signed modules (module.sig_enforce)",
            "sign it with a key that this kernel trusts",
        );
    } else if let Some(lockdown) = lockdown {
        add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "it is not signed, and this kernel is locked down ({})",
                shown(lockdown)
            ),
            "sign it with a key that this kernel trusts",
        );
    }
}

pub(super) fn patches(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "transition";
    let Some(set) = known(
        &host.patches,
        Severity::Unknown,
        CHECK,
        "run as root, and check --path.sysfs",
        findings,
    ) else {
        return;
    };
    if !set.supported {
        add(
            findings,
            Severity::Failure,
            "livepatch",
            "this kernel has no livepatch support (no /sys/kernel/livepatch)",
            "boot a kernel with CONFIG_LIVEPATCH=y",
        );
        return;
    }
    if let Some(running) = set.in_transition() {
        add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "livepatch {} is in transition: until it ends the kernel refuses another one (EBUSY)",
                shown(&running.name)
            ),
            "wait until it has ended: livepatch-monitor blockers lists the tasks that block it",
        );
    }
    for patch in set
        .patches
        .iter()
        .filter(|patch| patch.transition.is_none())
    {
        let name = shown(&patch.name);
        add(
            findings,
            Severity::Unknown,
            CHECK,
            format!("cannot determine whether livepatch {name} is in transition"),
            format!("read /sys/kernel/livepatch/{name}/transition, as root"),
        );
    }
    let others: Vec<String> = set
        .patches
        .iter()
        .filter(|patch| patch.name != module.name && patch.enabled != Some(false))
        .map(|patch| shown(&patch.name))
        .collect();
    if others.is_empty() {
        return;
    }
    let others = others.join(", ");
    match module.replace {
        Some(true) => add(
            findings,
            Severity::Info,
            "replace",
            format!("it replaces all other livepatches: {others}"),
            "",
        ),
        Some(false) => {}
        None => add(
            findings,
            Severity::Info,
            "replace",
            format!(
                "whether it replaces the other livepatches ({others}) is decided by its code; modules \
                from kpatch-build and klp-build do by default"
            ),
            "",
        ),
    }
}

pub(super) fn size(host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "size";
    const REMEDY: &str = "load it at a quiet time and watch the first attempts";
    match &host.threads {
        Ok(threads) if *threads >= MANY_THREADS => add(
            findings,
            Severity::Warning,
            CHECK,
            format!("{threads} threads: each attempt checks all of them with a lock held"),
            REMEDY,
        ),
        _ => {}
    }
    if let Some(cpus) = host.cpus.filter(|cpus| *cpus > MANY_CPUS) {
        add(
            findings,
            Severity::Warning,
            CHECK,
            format!("{cpus} CPUs: on such hosts the idle tasks alone have taken seconds to switch"),
            REMEDY,
        );
    }
}

/// Checks what evidence a crash would leave: without pstore and kdump nothing; the other
/// sources are useful but optional.
pub(super) fn evidence(host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "crash_evidence";
    let ready = |source| host.evidence.contains(&(source, true));
    let mute = !ready(Evidence::Pstore) && !ready(Evidence::Kdump);
    if mute {
        add(
            findings,
            Severity::Warning,
            CHECK,
            "neither pstore nor kdump is ready: if the livepatch crashes the machine, nothing will \
            show why",
            format!(
                "{}; or {}",
                Evidence::Pstore.remedy(),
                Evidence::Kdump.remedy()
            ),
        );
    }
    for (source, ready) in &host.evidence {
        let named_above = mute && matches!(source, Evidence::Pstore | Evidence::Kdump);
        if !ready && !named_above {
            add(
                findings,
                Severity::Info,
                CHECK,
                format!("{} is not ready", source.name()),
                source.remedy(),
            );
        }
    }
}
