//! Checks the symbols that livepatch looks up when it enables the patch:
//! klp_find_object_symbol (kernel/livepatch/core.c, 5.10 to 7.2), which returns -EINVAL in
//! all of these cases.

use super::{Finding, Host, Module, Severity, add, known, shown};
use crate::{function_ref::module_of, preflight::host::Symbols};

pub(super) fn judge(module: &Module, host: &Host, findings: &mut Vec<Finding>) {
    const CHECK: &str = "symbols";
    if module.objects.is_empty() && module.needed.is_empty() {
        return;
    }
    let Some(symbols) = known(
        &host.symbols,
        Severity::Unknown,
        CHECK,
        "run as root or with CAP_SYSLOG, and with kernel.kptr_restrict below 2",
        findings,
    ) else {
        return;
    };
    let loaded = |object: &str| match (module_of(object), &host.modules) {
        (None, _) => Some(true),
        (Some(object), Ok(modules)) => Some(modules.contains_key(object)),
        (Some(_), Err(_)) => None,
    };
    for object in &module.objects {
        match loaded(&object.name) {
            Some(true) => {
                for function in &object.functions {
                    let wrong = wrong(symbols, &object.name, &function.name, function.sympos);
                    refused(findings, wrong, "enabling it fails (EINVAL)");
                }
            }
            Some(false) => add(
                findings,
                Severity::Info,
                "objects",
                format!(
                    "module {} is not loaded: it will be patched when it loads ({} of its functions)",
                    shown(&object.name),
                    object.functions.len()
                ),
                "",
            ),
            None => {}
        }
    }
    for needed in &module.needed {
        if loaded(&needed.object) == Some(true) {
            let wrong = wrong(symbols, &needed.object, &needed.name, needed.sympos);
            refused(findings, wrong, "its relocations fail");
        }
    }
}

fn refused(findings: &mut Vec<Finding>, wrong: Option<String>, so: &str) {
    if let Some(wrong) = wrong {
        add(
            findings,
            Severity::Failure,
            "symbols",
            format!("{wrong}: {so}"),
            "check that it was built from this kernel's source and configuration",
        );
    }
}

/// What is wrong with a symbol; `None` if the kernel will find it.
fn wrong(symbols: &Symbols, object: &str, name: &str, sympos: u64) -> Option<String> {
    let places = symbols.places(object, name).len();
    let who = match module_of(object) {
        Some(module) => format!("module {}", shown(module)),
        None => "the kernel".to_owned(),
    };
    let name = shown(name);
    match (places, sympos) {
        (0, _) => Some(format!("{who} has no symbol {name}")),
        (1, 0) => None,
        (_, 0) => Some(format!(
            "{who} has {places} symbols named {name}, and the patch does not say which one (sympos 0)"
        )),
        (places, sympos) if usize::try_from(sympos).is_ok_and(|sympos| sympos <= places) => None,
        _ => Some(format!(
            "{who} has {places} symbols named {name}, and the patch needs number {sympos}"
        )),
    }
}
