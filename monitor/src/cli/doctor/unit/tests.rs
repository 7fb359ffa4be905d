use super::*;

#[test]
fn what_a_drop_in_takes_away_is_named() {
    let root = tempfile::tempdir().unwrap();
    let say = |checks: &[Check]| -> Vec<(Status, String)> {
        let checks = checks.iter();
        checks
            .map(|check| (check.status, check.what.clone()))
            .collect()
    };
    let none = say(&checks(root.path()));
    assert!(none[0].1.contains("not installed"), "{none:?}");
    let write = |file: &str, text: &str| {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "usr/lib/systemd/system/livepatch-monitor.service",
        "[Service]\n",
    );
    assert_eq!(
        say(&checks(root.path())),
        [(
            Status::Ok,
            "no drop-in takes away what the monitor needs".to_owned()
        )]
    );
    write(
        "etc/systemd/system/livepatch-monitor.service.d/hardening.conf",
        "[Service]\nProtectKernelLogs=yes\nProtectProc = invisible\nPrivateDevices=no\n\
         CapabilityBoundingSet=~CAP_SYS_PTRACE CAP_BPF\nEnvironment=A=B\n# ProcSubset=pid\n\
         [Unit]\nProcSubset=pid\n",
    );
    write(
        "etc/systemd/system/service.d/all.conf",
        "[Service]\nPrivateUsers=1\n",
    );
    let found = say(&checks(root.path()));
    for words in [
        "ProtectKernelLogs=yes: it hides /dev/kmsg",
        "ProtectProc=invisible: it hides the tasks",
        "it takes CAP_BPF away",
        "all.conf sets PrivateUsers=1",
    ] {
        let is_said =
            |(status, what): &(Status, String)| *status == Status::Warning && what.contains(words);
        assert!(found.iter().any(is_said), "no {words:?} in {found:?}");
    }
    assert_eq!(found.len(), 4, "{found:?}");
}

/// What counts in the end, of these drop-ins by path.
fn costs(drop_ins: &[(&str, &str)]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let unit = ("usr/lib/systemd/system/livepatch-monitor.service", "");
    for (file, text) in [unit].iter().chain(drop_ins) {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match *text {
            "masked" => std::os::unix::fs::symlink("/dev/null", &path).unwrap(),
            text => fs::write(&path, format!("[Service]\n{text}\n")).unwrap(),
        }
    }
    let checks = checks(root.path()).into_iter();
    let bad = checks.filter(|check| check.status == Status::Warning);
    bad.map(|check| check.what).collect()
}

#[test]
fn what_counts_in_the_end_is_judged() {
    let own = "etc/systemd/system/livepatch-monitor.service.d";
    let all = "usr/lib/systemd/system/service.d";
    let merged = "lib/systemd/system/service.d";
    let a = |name: &str| format!("{own}/{name}");
    for (drop_ins, expected) in [
        // A later one takes it back, and one for this unit counts more than one for all.
        (
            vec![
                (a("1.conf"), "PrivateDevices=y"),
                (a("2.conf"), "PrivateDevices=n"),
            ],
            vec![],
        ),
        (
            vec![
                (format!("{all}/1.conf"), "ProtectProc=invisible"),
                (a("9.conf"), "ProtectProc=default"),
            ],
            vec![],
        ),
        // By file name, whichever directory it is in.
        (
            vec![
                (format!("{all}/9.conf"), "ProtectProc=invisible"),
                (a("1.conf"), "ProtectProc=default"),
            ],
            vec!["9.conf sets ProtectProc=invisible"],
        ),
        // Of one name that for this unit counts, although the other directory is more important.
        (
            vec![
                (
                    "etc/systemd/system/service.d/x.conf".to_owned(),
                    "PrivateUsers=yes",
                ),
                (
                    "usr/lib/systemd/system/livepatch-monitor.service.d/x.conf".to_owned(),
                    "PrivateUsers=no",
                ),
            ],
            vec![],
        ),
        // Hidden by a file of the same name, or masked.
        (
            vec![
                (format!("{all}/9.conf"), "PrivateUsers=yes"),
                ("etc/systemd/system/service.d/9.conf".to_owned(), "masked"),
            ],
            vec![],
        ),
        // /lib is /usr/lib: once.
        (
            vec![
                (format!("{all}/9.conf"), "PrivateUsers=yes"),
                (format!("{merged}/9.conf"), "PrivateUsers=yes"),
            ],
            vec!["PrivateUsers=yes: it takes every capability away"],
        ),
        (
            vec![(
                "run/systemd/system/livepatch-.service.d/x.conf".to_owned(),
                "ProcSubset=\\\n  pid",
            )],
            vec!["ProcSubset=pid: it hides /proc/kallsyms"],
        ),
        // Lists: emptied, taken from, added to.
        (
            vec![(a("1.conf"), "AmbientCapabilities=")],
            vec![
                "AmbientCapabilities=: it takes CAP_BPF, CAP_DAC_READ_SEARCH, CAP_PERFMON, CAP_SYSLOG away",
            ],
        ),
        (
            vec![(
                a("1.conf"),
                "CapabilityBoundingSet=\nCapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_SYSLOG",
            )],
            vec!["it takes CAP_DAC_READ_SEARCH away"],
        ),
        (
            vec![(a("1.conf"), "CapabilityBoundingSet=CAP_NET_ADMIN")],
            vec![],
        ),
        (
            vec![(a("1.conf"), "SystemCallFilter=~bpf @debug")],
            vec!["it takes bpf, perf_event_open away"],
        ),
        (
            vec![(a("1.conf"), "SystemCallFilter=~@privileged:EPERM")],
            vec!["it takes bpf away"],
        ),
        // Emptied, it refuses nothing, and what follows says what it is.
        (
            vec![(a("1.conf"), "SystemCallFilter=~bpf\nSystemCallFilter=")],
            vec![],
        ),
        (
            vec![(
                a("1.conf"),
                "SystemCallFilter=\nSystemCallFilter=@system-service bpf",
            )],
            vec!["it takes perf_event_open away"],
        ),
        (
            vec![(a("1.conf"), "SystemCallFilter=\nSystemCallFilter=~@mount")],
            vec![],
        ),
        (
            vec![(a("1.conf"), "SystemCallFilter=@system-service")],
            vec![],
        ),
        (
            vec![(a("1.conf"), "DeviceAllow=")],
            vec!["it takes /dev/kmsg away"],
        ),
        (
            vec![(a("1.conf"), "InaccessiblePaths=/srv -/proc/kallsyms")],
            vec!["it hides -/proc/kallsyms"],
        ),
        (
            vec![(a("1.conf"), "TemporaryFileSystem=/sys:ro")],
            vec!["it hides /sys:ro"],
        ),
        // Above what is read, below it, beside it.
        (
            vec![(a("1.conf"), "InaccessiblePaths=/dev")],
            vec!["it hides /dev"],
        ),
        (
            vec![(a("1.conf"), "InaccessiblePaths=/sys/kernel/livepatch/fix")],
            vec!["it hides /sys/kernel/livepatch/fix"],
        ),
        (
            vec![(a("1.conf"), "InaccessiblePaths=/proc/acpi /home /developer")],
            vec![],
        ),
        (
            vec![(
                a("1.conf"),
                "InaccessiblePaths=/proc\nInaccessiblePaths=\nInaccessiblePaths=/home",
            )],
            vec![],
        ),
        // A comment does not go on in the next line, and may stand in a line that does.
        (
            vec![(
                a("1.conf"),
                "# it ends in \\\nPrivateUsers=yes\nProcSubset=\\\n# between\npid",
            )],
            vec!["ProcSubset=pid", "PrivateUsers=yes"],
        ),
        (
            vec![(
                "etc/systemd/system/livepatch-monitor.service".to_owned(),
                "masked",
            )],
            vec!["masks the unit"],
        ),
        (
            vec![(a("1.conf"), "; PrivateUsers=yes\nMemoryMax=1G")],
            vec![],
        ),
    ] {
        let given: Vec<(&str, &str)> = drop_ins
            .iter()
            .map(|(file, text)| (file.as_str(), *text))
            .collect();
        let found = costs(&given);
        assert_eq!(found.len(), expected.len(), "{drop_ins:?}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }
}
