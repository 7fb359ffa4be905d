//! Drop-ins of the systemd unit that take away what the monitor needs.

use std::{fs, path::Path};

use crate::bounded_read;
use livepatch_core::doctor::{Check, Status};

const CHECK: &str = "unit";
const UNIT: &str = "livepatch-monitor.service";
/// Where systemd looks for drop-ins (systemd.unit(5)); those of all services apply too.
const DIRECTORIES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// Drop-ins read in one directory.
const MAX_FILES: usize = 64;

/// A setting that costs something, unless it has one of these values, and what it costs.
const HARMFUL: [(&str, &[&str], &str); 8] = [
    (
        "ProtectKernelLogs",
        OFF,
        "it hides /dev/kmsg and takes CAP_SYSLOG away",
    ),
    ("ProtectKernelTunables", OFF, "it hides /proc/kallsyms"),
    (
        "ProtectProc",
        &["default"],
        "it hides the tasks that hold up a transition",
    ),
    (
        "ProcSubset",
        &["all"],
        "it hides /proc/kallsyms and /proc/sys",
    ),
    ("PrivateDevices", OFF, "it hides /dev/kmsg"),
    ("PrivateUsers", OFF, "it takes every capability away"),
    (
        "PrivatePIDs",
        OFF,
        "it hides the tasks that hold up a transition",
    ),
    ("PrivateBPF", OFF, "it hides the host's BPF file system"),
];
const OFF: &[&str] = &["no", "false", "0", "off"];
/// Capabilities that the unit needs.
const CAPABILITIES: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG"];

pub(super) fn checks(root: &Path) -> Vec<Check> {
    let is_installed = DIRECTORIES
        .iter()
        .any(|directory| root.join(directory).join(UNIT).exists());
    if !is_installed {
        let what = format!("{UNIT} is not installed: nothing to check");
        return vec![Check::ok(CHECK, what)];
    }
    let mut checks = Vec::new();
    for directory in DIRECTORIES {
        for folder in ["service.d".to_owned(), format!("{UNIT}.d")] {
            drop_ins(&root.join(directory).join(folder), &mut checks);
        }
    }
    if root.join(DIRECTORIES[0]).join(UNIT).exists() {
        checks.push(Check::new(
            CHECK,
            Status::Warning,
            format!("/etc/systemd/system/{UNIT} replaces the package's unit, and does not change with it"),
            "move what you changed to a drop-in: systemctl edit livepatch-monitor",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::ok(
            CHECK,
            "no drop-in takes away what the monitor needs",
        ));
    }
    checks
}

fn drop_ins(folder: &Path, checks: &mut Vec<Check>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .take(MAX_FILES)
        .collect();
    files.sort();
    for file in files {
        match bounded_read::read_text(&file, bounded_read::VALUE) {
            Ok(text) => {
                for (setting, cost) in harmful(&text) {
                    checks.push(Check::new(
                        CHECK,
                        Status::Warning,
                        format!("{} sets {setting}: {cost}", file.display()),
                        "remove the line, then systemctl daemon-reload and systemctl restart \
                         livepatch-monitor",
                    ));
                }
            }
            Err(error) => checks.push(Check::new(
                CHECK,
                Status::Unknown,
                format!("cannot read {}: {error}", file.display()),
                "run as root",
            )),
        }
    }
}

/// The settings of a drop-in that cost something.
fn harmful(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        let known = HARMFUL.iter().find(|(name, ..)| *name == key);
        if let Some((_, harmless, cost)) = known
            && !value.is_empty()
            && !harmless.contains(&value.to_ascii_lowercase().as_str())
        {
            found.push((format!("{key}={value}"), (*cost).to_owned()));
        }
        // A bounding set that starts with ~ takes capabilities away.
        if key == "CapabilityBoundingSet" {
            let taken: Vec<&str> = CAPABILITIES
                .into_iter()
                .filter(|capability| match value.strip_prefix('~') {
                    Some(taken) => taken.split_whitespace().any(|one| one == *capability),
                    None => false,
                })
                .collect();
            if !taken.is_empty() {
                found.push((
                    format!("{key}={value}"),
                    format!("it takes {} away", taken.join(", ")),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
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
             CapabilityBoundingSet=~CAP_SYS_PTRACE CAP_BPF\nEnvironment=A=B\n# ProcSubset=pid\n",
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
            let is_said = |(status, what): &(Status, String)| {
                *status == Status::Warning && what.contains(words)
            };
            assert!(found.iter().any(is_said), "no {words:?} in {found:?}");
        }
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
