//! What the probes cannot do on this kernel or with its settings, and the remedies.

use super::Degradation;
use crate::kernel::{btf::BtfError, layout::Layout, namespace::PidNsVisibility};

pub(super) fn no_btf(error: &BtfError) -> Degradation {
    Degradation {
        what: format!(
            "no BTF ({error}): events lack the patch's name, which is read from sysfs later; tasks are read from /proc"
        ),
        remedy: "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, and let the monitor read /sys/kernel/btf/vmlinux".into(),
    }
}

/// What the layout lacks: members, variables, addresses.
pub(super) fn incomplete_layout(layout: &Layout, has_btf: bool) -> Vec<Degradation> {
    let mut degradations = Vec::new();
    if has_btf && !layout.missing_members.is_empty() {
        degradations.push(Degradation {
            what: format!(
                "this kernel's BTF lacks {}: the values read from there are left out",
                layout.missing_members.join(", ")
            ),
            remedy: "report the kernel version to the project".into(),
        });
    }
    if !layout.missing_variables.is_empty() {
        degradations.push(Degradation {
            what: format!(
                "the kernel's symbol table lacks {}",
                layout.missing_variables.join(", ")
            ),
            remedy: "use a kernel with CONFIG_KALLSYMS_ALL=y".into(),
        });
    }
    degradations.extend(layout.addresses_hidden.as_deref().map(no_addresses));
    degradations
}

fn no_addresses(why: &str) -> Degradation {
    Degradation {
        what: format!(
            "cannot locate the kernel's variables ({why}): tasks are read from /proc, idle tasks are not seen; some events lack the patch's name, which is read from sysfs later"
        ),
        remedy: "run as root or with CAP_SYSLOG, and set kernel.kptr_restrict to 1 or 0".into(),
    }
}

pub(super) fn pid_namespace(visibility: PidNsVisibility) -> Option<Degradation> {
    match visibility {
        PidNsVisibility::Whole => None,
        PidNsVisibility::ByProcfs => Some(Degradation {
            what: "the monitor does not run in the host's PID namespace, where the task iterator would show only some tasks: tasks are read from the host's /proc, idle tasks are not seen".into(),
            remedy: "run it in the host's PID namespace (hostPID: true)".into(),
        }),
        PidNsVisibility::Part => Some(Degradation {
            what: "neither the monitor nor its /proc is in the host's PID namespace: cannot determine which tasks hold up a transition".into(),
            remedy: "run it in the host's PID namespace (hostPID: true), or give the host's /proc with --path.procfs".into(),
        }),
    }
}
