//! What the kernel and this process's privileges allow: livepatch, BTF, lockdown, the PID
//! namespace, each probe, Landlock.

use std::path::Path;

use super::value;
use crate::kernel::{
    live_modules::LiveModules,
    lockdown,
    namespace::{self, PidNsVisibility},
    probes::{Probes, Wanted},
    sysfs,
};
use livepatch_core::{
    degradation::Degradation,
    doctor::{Check, Status},
    patch::PatchSet,
};

const MOUNT_SECURITYFS: &str =
    "mount securityfs: mount -t securityfs securityfs /sys/kernel/security";

pub(super) fn checks(procfs: &Path, sysfs: &Path) -> Vec<Check> {
    let mut checks = livepatch(sysfs);
    checks.push(btf(sysfs));
    checks.push(lockdown_level(sysfs));
    checks.push(pid_namespace(procfs));
    checks.extend(probes(procfs, sysfs));
    checks.push(landlock(sysfs));
    checks
}

fn livepatch(sysfs: &Path) -> Vec<Check> {
    const CHECK: &str = "livepatch";
    let read = sysfs::read_patches(sysfs);
    let set = read.as_ref().map(|(set, _)| set);
    let (beside, _) = LiveModules::default().beside(sysfs, set.unwrap_or(&PatchSet::default()));
    let check = match read {
        Err(error) => Check::new(
            CHECK,
            Status::Unknown,
            error.to_string(),
            "check --path.sysfs",
        ),
        Ok((set, _)) if !set.supported && beside.mechanisms.is_empty() => Check::new(
            CHECK,
            Status::Failure,
            "this kernel has no livepatch support (no /sys/kernel/livepatch)",
            "boot a kernel with CONFIG_LIVEPATCH=y",
        ),
        Ok((set, _)) if !set.supported => Check::new(
            CHECK,
            Status::Failure,
            "this kernel has no livepatch support (no /sys/kernel/livepatch), and is patched by \
             another mechanism",
            "see other_mechanism",
        ),
        Ok((_, problems)) => match problems.first() {
            Some(problem) => Check::new(CHECK, Status::Unknown, problem.to_string(), "run as root"),
            None => Check::ok(CHECK, "this kernel has livepatch support"),
        },
    };
    let mut checks = vec![check];
    for mechanism in beside.mechanisms {
        checks.push(Check::new(
            "other_mechanism",
            Status::Warning,
            mechanism.sentence(),
            "use its own command; do not mix it with livepatches on one host",
        ));
    }
    checks
}

fn btf(sysfs: &Path) -> Check {
    const CHECK: &str = "btf";
    let path = sysfs.join("kernel/btf/vmlinux");
    match path.metadata() {
        Ok(_) => Check::ok(
            CHECK,
            "the kernel has BTF: tasks can be read by the BPF iterator",
        ),
        Err(error) => Check::new(
            CHECK,
            Status::Warning,
            format!(
                "no BTF ({}: {error}): tasks are read from /proc, idle tasks are not seen",
                path.display()
            ),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

fn lockdown_level(sysfs: &Path) -> Check {
    const CHECK: &str = "lockdown";
    let security = sysfs.join("kernel/security");
    let file = security.join("lockdown");
    let unknown = |why: String, remedy| {
        let what = format!("cannot determine the level of kernel lockdown: {why}");
        Check::new(CHECK, Status::Unknown, what, remedy)
    };
    let level = lockdown::level(sysfs);
    match (lockdown::degradation(level.as_deref()), level) {
        (Some(Degradation { what, remedy }), _) => Check::new(CHECK, Status::Failure, what, remedy),
        (None, Some(level)) => Check::ok(CHECK, format!("kernel lockdown: {level}")),
        (None, None) if file.try_exists().is_ok_and(|exists| exists) => unknown(
            format!("{} shows none or cannot be read", file.display()),
            "run as root",
        ),
        // securityfs has the list of security modules on every kernel that has any
        // (security/inode.c, 5.4 to 7.2).
        (None, None) => match value(&security.join("lsm")) {
            Ok(modules) if modules.split(',').any(|module| module == "lockdown") => unknown(
                format!("{} does not exist", file.display()),
                MOUNT_SECURITYFS,
            ),
            Ok(_) => Check::ok(CHECK, "this kernel has no lockdown"),
            Err(error) => unknown(error, MOUNT_SECURITYFS),
        },
    }
}

fn pid_namespace(procfs: &Path) -> Check {
    const CHECK: &str = "pid_namespace";
    match namespace::visibility(procfs) {
        PidNsVisibility::Whole => Check::ok(CHECK, "all of the host's tasks are visible"),
        PidNsVisibility::ByProcfs => Check::new(
            CHECK,
            Status::Warning,
            "this is not the host's PID namespace: tasks are read from /proc, idle tasks are not seen",
            "run it in the host's PID namespace (hostPID: true)",
        ),
        PidNsVisibility::Part => Check::new(
            CHECK,
            Status::Failure,
            "only the tasks of this PID namespace are visible: the monitor cannot see what holds a \
             transition up",
            "run it in the host's PID namespace (hostPID: true), or mount the host's /proc and \
             give it with --path.procfs",
        ),
    }
}

/// Attaches the exporter's programs, and detaches them again once the result is known.
fn probes(procfs: &Path, sysfs: &Path) -> Vec<Check> {
    const CHECK: &str = "probes";
    let probes = match Probes::attach(Wanted::Everything, procfs, sysfs, false) {
        Ok(probes) => probes,
        Err(error) => {
            let Degradation { what, remedy } = error.degradation();
            return vec![Check::new(CHECK, Status::Failure, what, remedy)];
        }
    };
    let mut checks: Vec<Check> = probes
        .degradations
        .iter()
        .map(|missing| {
            let (what, remedy) = (missing.what.clone(), missing.remedy.clone());
            Check::new(CHECK, Status::Warning, what, remedy)
        })
        .collect();
    let all = probes.status.len();
    let missing: Vec<&str> = probes
        .status
        .iter()
        .filter(|status| !probes.attached(status.probe))
        .map(|status| status.probe)
        .collect();
    let attached = all - missing.len();
    checks.push(match missing.is_empty() {
        true => Check::ok(CHECK, format!("all {all} probes can be attached")),
        false => Check::new(
            CHECK,
            match probes.see_transitions() {
                true => Status::Warning,
                false => Status::Failure,
            },
            format!(
                "{attached} of {all} probes can be attached; not {}",
                missing.join(", ")
            ),
            "run as root, and see the lines above; docs/kernels.md says what each costs",
        ),
    });
    checks
}

fn landlock(sysfs: &Path) -> Check {
    const CHECK: &str = "landlock";
    match value(&sysfs.join("kernel/security/lsm")) {
        Ok(modules) if modules.split(',').any(|module| module == "landlock") => Check::ok(
            CHECK,
            "Landlock restricts the files that the exporter can open",
        ),
        Ok(_) => Check::new(
            CHECK,
            Status::Warning,
            "Landlock is not enabled: the exporter cannot give up access to files",
            "add landlock to lsm= on the kernel's command line (kernel 5.13 and later)",
        ),
        Err(error) => Check::new(
            CHECK,
            Status::Unknown,
            format!("cannot determine whether Landlock is enabled: {error}"),
            MOUNT_SECURITYFS,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Without securityfs the level is unknown; with it, a kernel without lockdown has no file.
    #[test]
    fn a_lockdown_level_that_is_not_read_is_unknown() {
        let sysfs = tempfile::tempdir().unwrap();
        let status = || lockdown_level(sysfs.path()).status;
        assert_eq!(status(), Status::Unknown);
        let security = sysfs.path().join("kernel/security");
        fs::create_dir_all(&security).unwrap();
        fs::write(security.join("lsm"), "capability,landlock\n").unwrap();
        assert_eq!(status(), Status::Ok);
        fs::write(security.join("lsm"), "lockdown,capability").unwrap();
        assert_eq!(status(), Status::Unknown);
        fs::write(
            security.join("lockdown"),
            "[none] integrity confidentiality\n",
        )
        .unwrap();
        assert_eq!(status(), Status::Ok);
    }
}
