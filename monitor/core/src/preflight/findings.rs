//! What stands between a module and its being in force, as far as files tell it.

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

/// Everything but who sleeps where.
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

/// A finding of one of these.
fn add(
    findings: &mut Vec<Finding>,
    severity: Severity,
    check: &'static str,
    what: impl Into<String>,
    remedy: impl Into<String>,
) {
    findings.push(Finding::new(severity, check, what, remedy));
}

/// The fact; what it is not known for becomes a finding.
fn told<'a, T>(
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

/// Names come from a file that anybody may have written.
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
            "the functions it replaces cannot be told: its data has no struct klp_patch, and it \
             is not of kpatch-build or klp-build",
            "ask who built it for the list of functions",
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
    let Some(release) = told(
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
            "it does not say for which kernel it was built (no vermagic): the kernel refuses it",
            "build it against this kernel",
        ),
        // With CONFIG_MODVERSIONS the kernel itself only compares the symbols that the
        // module imports (same_magic, kernel/module/version.c): not what it replaces.
        Some(built_for) if built_for != release => add(
            findings,
            Severity::Failure,
            CHECK,
            format!(
                "it was built for kernel {}, and this is {}",
                shown(built_for),
                shown(release)
            ),
            "take the livepatch of this kernel: even where a module of another build loads, its \
             functions do not fit",
        ),
        Some(_) => {}
    }
}

fn already_loaded(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "loaded";
    let modules = told(
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
    let (what, remedy) = match (&module.srcversion, srcversion) {
        (Some(file), Some(loaded)) if file == loaded => (
            format!(
                "{name} is loaded already, this very build (srcversion {})",
                shown(file)
            ),
            "nothing to do, if it is enabled: see livepatch-monitor status".to_owned(),
        ),
        (file, loaded) => {
            let version = |version: &Option<String>| match version {
                Some(version) => format!("srcversion {}", shown(version)),
                None => "no srcversion".to_owned(),
            };
            (
                format!(
                    "another module of the name {name} is loaded ({}; the file has {}): the \
                     kernel refuses it (EEXIST)",
                    version(loaded),
                    version(file)
                ),
                format!(
                    "write 0 to /sys/kernel/livepatch/{name}/enabled, wait for the transition, \
                     rmmod {name}; or build it under a name of its own"
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
            format!("modprobe {needed} first: insmod and kpatch do not load what a module needs"),
        );
    }
}
