//! What a kernel or its settings keep from the probes, and how to mend that.

use super::Degradation;
use crate::kernel::{btf::BtfError, namespace::PidNsVisibility};

pub(super) fn no_btf(error: &BtfError) -> Degradation {
    Degradation {
        what: format!(
            "no BTF ({error}): events come without the patch's name, which sysfs gives later; tasks are read from /proc"
        ),
        remedy: "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, and let the monitor read /sys/kernel/btf/vmlinux".into(),
    }
}

pub(super) fn no_addresses(why: &str) -> Degradation {
    Degradation {
        what: format!(
            "the kernel's variables cannot be located ({why}): tasks are read from /proc, idle tasks not at all; some events come without the patch's name, which sysfs gives later"
        ),
        remedy: "run as root or with CAP_SYSLOG, and set kernel.kptr_restrict to 1 or 0".into(),
    }
}

pub(super) fn narrow_sight(sight: PidNsVisibility) -> Option<Degradation> {
    match sight {
        PidNsVisibility::Whole => None,
        PidNsVisibility::ByProcfs => Some(Degradation {
            what: "this is a PID namespace of its own, and the task iterator would show its tasks only: tasks are read from the host's /proc, idle tasks not at all".into(),
            remedy: "run it in the host's PID namespace (hostPID: true)".into(),
        }),
        PidNsVisibility::Part => Some(Degradation {
            what: "this is a PID namespace of its own, and so is its /proc: who holds a transition up cannot be told".into(),
            remedy: "run it in the host's PID namespace (hostPID: true), or name the host's /proc with --path.procfs".into(),
        }),
    }
}
