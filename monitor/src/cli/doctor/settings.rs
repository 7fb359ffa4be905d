//! The sysctls that decide whether livepatches load, what the monitor sees, and what
//! happens after a crash.

use std::path::Path;

use super::value;
use livepatch_core::doctor::{Check, Status};

/// The meaning of a sysctl's value: a status other than ok, what is wrong, and the remedy.
type Judge = fn(i64) -> Option<(Status, &'static str, &'static str)>;

/// A sysctl, the message if all is well, and the function that judges its value.
const SYSCTLS: [(&str, &str, Judge); 5] = [
    // Documentation/admin-guide/sysctl/kernel.rst; kernel/trace/ftrace.c
    // (ftrace_enable_sysctl), 4.0 to 7.2.
    ("ftrace_enabled", "livepatches and probes work", |value| {
        (value == 0).then_some((
            Status::Failure,
            "no livepatch can be loaded (EBUSY), and the monitor's probes receive nothing",
            "sysctl kernel.ftrace_enabled=1, and find out who set it to 0",
        ))
    }),
    (
        "kptr_restrict",
        "kernel addresses can be read with CAP_SYSLOG",
        |value| {
            (value >= 2).then_some((
            Status::Warning,
            "kernel addresses are hidden from everybody: tasks are read from /proc, and preflight \
             cannot find functions",
            "sysctl kernel.kptr_restrict=1",
        ))
        },
    ),
    ("perf_event_paranoid", "kprobes need CAP_PERFMON", |value| {
        (value >= 3).then_some((
            Status::Warning,
            "kprobes need CAP_SYS_ADMIN: as the unit runs the monitor, the hook on panic() is \
             missing, and before 6.0 all probes",
            "sysctl kernel.perf_event_paranoid=2, or add CAP_SYS_ADMIN in a drop-in of the unit",
        ))
    }),
    ("panic", "the machine reboots after a panic", |value| {
        (value == 0).then_some((
            Status::Warning,
            "the machine hangs after a panic: nobody learns of the crash before someone resets it",
            "sysctl kernel.panic=10",
        ))
    }),
    ("panic_on_oops", "an oops is a panic", |value| {
        (value == 0).then_some((
            Status::Warning,
            "after an oops the kernel continues, perhaps with locks held and memory corrupted; \
             kdump does not run",
            "sysctl kernel.panic_on_oops=1, if the machine may reboot by itself",
        ))
    }),
];

pub(super) fn checks(procfs: &Path) -> Vec<Check> {
    SYSCTLS
        .into_iter()
        .map(|(name, well, judge)| check(procfs, name, well, judge))
        .collect()
}

fn check(procfs: &Path, name: &'static str, well: &str, judge: Judge) -> Check {
    let path = procfs.join("sys/kernel").join(name);
    let read = value(&path).and_then(|text| {
        text.parse::<i64>()
            .map_err(|_| format!("{} holds {text:?}, not a number", path.display()))
    });
    let number = match read {
        Ok(number) => number,
        Err(error) => {
            let remedy = "check --path.procfs, and that the kernel has this setting";
            return Check::new(name, Status::Unknown, error, remedy);
        }
    };
    match judge(number) {
        None => Check::ok(name, format!("kernel.{name} is {number}: {well}")),
        Some((status, what, remedy)) => Check::new(
            name,
            status,
            format!("kernel.{name} is {number}: {what}"),
            remedy,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_setting_is_judged() {
        let root = tempfile::tempdir().unwrap();
        let statuses = |values: [&str; 5]| {
            for ((name, ..), value) in SYSCTLS.iter().zip(values) {
                let path = root.path().join("sys/kernel").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, value).unwrap();
            }
            let checks = checks(root.path());
            checks.iter().map(|check| check.status).collect::<Vec<_>>()
        };
        assert_eq!(
            statuses(["1\n", "1\n", "2\n", "10\n", "1\n"]),
            [Status::Ok; 5]
        );
        assert_eq!(statuses(["1", "0", "-1", "-1", "1"]), [Status::Ok; 5]);
        let bad = statuses(["0\n", "2\n", "3\n", "0\n", "0\n"]);
        assert_eq!(bad[0], Status::Failure);
        assert_eq!(bad[1..], [Status::Warning; 4]);
        assert_eq!(
            statuses(["", "x", "1 2", "\u{1b}", "9e9"]),
            [Status::Unknown; 5]
        );
    }

    #[test]
    fn a_setting_that_is_not_there_is_unknown() {
        let root = tempfile::tempdir().unwrap();
        for check in checks(root.path()) {
            assert_eq!(check.status, Status::Unknown);
            assert!(check.what.contains(check.check), "{check:?}");
        }
    }
}
