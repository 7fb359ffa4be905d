//! The checks of a module against the host, except the sampling of tasks.

mod host;
mod symbols;
#[cfg(test)]
mod tests;
mod tracers;

use super::{
    Finding, Severity,
    host::{Host, Known},
    module::{Module, Source},
};
use crate::blockers::printable;

/// Runs all checks that do not sample tasks.
#[must_use]
pub fn judge(module: &Module, host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    kind(module, &mut findings);
    kernel(module, host, &mut findings);
    host::policy(module, host, &mut findings);
    already_loaded(module, host, &mut findings);
    host::patches(module, host, &mut findings);
    depends(module, host, &mut findings);
    symbols::judge(module, host, &mut findings);
    tracers::judge(module, host, &mut findings);
    host::size(host, &mut findings);
    host::evidence(host, &mut findings);
    findings
}

fn add(
    findings: &mut Vec<Finding>,
    severity: Severity,
    check: &'static str,
    what: impl Into<String>,
    remedy: impl Into<String>,
) {
    findings.push(Finding::new(severity, check, what, remedy));
}

/// The fact if it is known; otherwise adds a finding that says why it is unknown.
fn known<'a, T>(
    fact: &'a Known<T>,
    severity: Severity,
    check: &'static str,
    remedy: &str,
    findings: &mut Vec<Finding>,
) -> Option<&'a T> {
    match fact {
        Ok(fact) => Some(fact),
        Err(why) => {
            add(findings, severity, check, why, remedy);
            None
        }
    }
}

/// Makes a name printable: it comes from a file of unknown origin.
fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

fn kind(module: &Module, findings: &mut Vec<Finding>) {
    const CHECK: &str = "livepatch";
    if !module.livepatch {
        add(
            findings,
            Severity::Failure,
            CHECK,
            "it is not a livepatch: .modinfo has no livepatch=Y",
            "check that this is the right file",
        );
    } else if module.source == Source::Nowhere {
        add(
            findings,
            Severity::Unknown,
            CHECK,
            "cannot determine which functions it replaces: its data has no struct klp_patch, and \
            it was not built by kpatch-build or klp-build",
            "ask its author for the list of functions",
        );
    } else if module.functions().next().is_none() {
        add(
            findings,
            Severity::Warning,
            CHECK,
            "it replaces no function",
            "check that this is the right file",
        );
    }
}

fn kernel(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "kernel";
    let Some(release) = known(
        &host.release,
        Severity::Unknown,
        CHECK,
        "check --path.procfs",
        findings,
    ) else {
        return;
    };
    match module.release() {
        None => add(
            findings,
            Severity::Failure,
            CHECK,
            "it has no vermagic, so the kernel it was built for is unknown: the kernel refuses it",
            "build it against this kernel",
        ),
        // With CONFIG_MODVERSIONS the kernel compares only the symbols that the module imports
        // (same_magic, kernel/module/version.c), not the functions that it replaces.
        Some(built_for) if built_for != release => add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "it was built for kernel {}, and this is {}",
                shown(built_for),
                shown(release)
            ),
            "use the livepatch for this kernel: even if a module for another build loads, its \
            functions do not match",
        ),
        Some(_) => {}
    }
}

fn already_loaded(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "loaded";
    let modules = known(
        &host.modules,
        Severity::Unknown,
        CHECK,
        "check --path.procfs",
        findings,
    );
    let Some(srcversion) = modules.and_then(|modules| modules.get(&module.name)) else {
        return;
    };
    let name = shown(&module.name);
    let in_force = host.patches.as_ref().ok().map(|set| set.get(&module.name));
    let same = module.srcversion.is_some() && module.srcversion == *srcversion;
    let (what, remedy) = match (&module.srcversion, srcversion) {
        // /sys/kernel/livepatch has no directory of a patch that was disabled or replaced
        // (klp_free_patch_start, 5.1 and later). Where it has none, `kpatch load` removes a module
        // of that name, ignoring errors, and then loads the file (load_module and remove_module of
        // the script, kpatch 0.9.10).
        _ if in_force.is_some_and(|patch| patch.is_none_or(|it| it.enabled == Some(false))) => (
            format!(
                "{name} is loaded and not in force: it was disabled or replaced{}; the kernel \
                 refuses a module of that name (EEXIST)",
                if same {
                    ""
                } else {
                    ", and it may be another build"
                }
            ),
            format!(
                "rmmod {name} first, then load the file (kpatch load does both); if \
                 rmmod says that it is in use, a transition was forced and only a reboot \
                 removes it"
            ),
        ),
        (Some(file), Some(loaded)) if file == loaded && in_force.is_some() => (
            format!(
                "{name} is already in force, from the same build (srcversion {})",
                shown(file)
            ),
            "nothing to do".to_owned(),
        ),
        (Some(file), Some(loaded)) if file == loaded => (
            format!(
                "{name} is already loaded, from the same build (srcversion {})",
                shown(file)
            ),
            "nothing to do if it is enabled: see livepatch-monitor status".to_owned(),
        ),
        (file, loaded) => {
            let version = |version: &Option<String>| match version {
                Some(version) => format!("srcversion {}", shown(version)),
                None => "no srcversion".to_owned(),
            };
            (
                format!(
                    "another module named {name} is loaded ({}; the file has {}): the \
                     kernel refuses it (EEXIST)",
                    version(loaded),
                    version(file)
                ),
                format!(
                    "write 0 to /sys/kernel/livepatch/{name}/enabled, wait for the transition, \
                     rmmod {name}; or build it under another name"
                ),
            )
        }
    };
    add(findings, Severity::Failure, CHECK, what, remedy);
}

fn depends(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    let Ok(modules) = &host.modules else {
        return;
    };
    for needed in module
        .depends
        .iter()
        .filter(|name| !modules.contains_key(*name))
    {
        let needed = shown(needed);
        add(
            findings,
            Severity::Warning,
            "depends",
            format!("it needs module {needed}, which is not loaded"),
            format!("modprobe {needed} first: insmod and kpatch do not load dependencies"),
        );
    }
}
