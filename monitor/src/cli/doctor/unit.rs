//! Drop-ins of the systemd unit that take away what the monitor needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::bounded_read;
use livepatch_core::doctor::{Check, Status};

const CHECK: &str = "unit";
const UNIT: &str = "livepatch-monitor.service";
/// Where systemd looks for units and drop-ins, the most important first: a file hides those
/// of its name further down (systemd.unit(5)).
const DIRECTORIES: [&str; 7] = [
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// The directories of drop-ins for this unit, the most general first.
const FOLDERS: [&str; 3] = [
    "service.d",
    "livepatch-.service.d",
    "livepatch-monitor.service.d",
];
/// Drop-ins read in one directory.
const MAX_FILES: usize = 64;

/// A setting that costs something, unless it has one of these values, and what it costs.
const HARMFUL: [(&str, &[&str], &str); 10] = [
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
    (
        "RootDirectory",
        &["/"],
        "it hides the host's packages and dumps",
    ),
    ("RootImage", &[], "it hides the host's packages and dumps"),
];
/// What systemd takes for no (`parse_boolean`, src/basic/parse-util.c).
const OFF: &[&str] = &["no", "n", "false", "f", "0", "off"];
/// The lists from which a drop-in can take what the unit needs, and that.
const LISTS: [(&str, &[&str]); 4] = [
    ("CapabilityBoundingSet", CAPABILITIES),
    ("AmbientCapabilities", CAPABILITIES),
    ("SystemCallFilter", &["bpf", "perf_event_open"]),
    ("DeviceAllow", &["/dev/kmsg"]),
];
const CAPABILITIES: &[&str] = &[
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_DAC_READ_SEARCH",
];
/// What the monitor reads and a drop-in could hide.
const READ: [&str; 5] = [
    "/dev/kmsg",
    "/proc",
    "/proc/kallsyms",
    "/sys",
    "/sys/kernel",
];

/// An assignment in a drop-in.
struct Assignment {
    file: PathBuf,
    key: String,
    value: String,
}

pub(super) fn checks(root: &Path) -> Vec<Check> {
    let is_installed = DIRECTORIES
        .iter()
        .any(|directory| root.join(directory).join(UNIT).exists());
    if !is_installed {
        let what = format!("{UNIT} is not installed: nothing to check");
        return vec![Check::ok(CHECK, what)];
    }
    let mut checks = Vec::new();
    let mut assignments = Vec::new();
    for folder in FOLDERS {
        for file in drop_ins(root, folder) {
            match bounded_read::read_text(&file, bounded_read::VALUE) {
                Ok(text) => assignments.extend(parse(&file, &text)),
                Err(error) => checks.push(Check::new(
                    CHECK,
                    Status::Unknown,
                    format!("cannot read {}: {error}", file.display()),
                    "run as root",
                )),
            }
        }
    }
    checks.extend(harmful(&assignments).into_iter().map(|(setting, cost)| {
        Check::new(
            CHECK,
            Status::Warning,
            format!(
                "{} sets {}={}: {cost}",
                setting.file.display(),
                setting.key,
                setting.value
            ),
            "remove the line, then systemctl daemon-reload and systemctl restart \
             livepatch-monitor",
        )
    }));
    if root.join("etc/systemd/system").join(UNIT).exists() {
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

/// The drop-ins that systemd reads, in its order: by name, whichever directory they are in.
fn drop_ins(root: &Path, folder: &str) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for directory in DIRECTORIES {
        let Ok(entries) = fs::read_dir(root.join(directory).join(folder)) else {
            continue;
        };
        let files = entries.flatten().map(|entry| entry.path());
        let conf = files.filter(|path| path.extension().is_some_and(|end| end == "conf"));
        for file in conf.take(MAX_FILES) {
            if let Some(name) = file.file_name() {
                by_name.entry(name.to_owned()).or_insert(file);
            }
        }
    }
    // One that is masked.
    let is_masked =
        |file: &PathBuf| fs::read_link(file).is_ok_and(|to| to == Path::new("/dev/null"));
    by_name
        .into_values()
        .filter(|file| !is_masked(file))
        .collect()
}

/// The assignments of a drop-in's section [Service] (systemd.syntax(7)).
fn parse(file: &Path, text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut in_service = false;
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            in_service = line == "[Service]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| in_service) {
            found.push(Assignment {
                file: file.to_owned(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            });
        }
    }
    found
}

/// The assignments that cost something in the end, and what: a later one counts.
fn harmful(assignments: &[Assignment]) -> Vec<(&Assignment, String)> {
    let mut found = Vec::new();
    for (key, harmless, cost) in HARMFUL {
        let last = assignments.iter().rfind(|one| one.key == key);
        let harm = last.filter(|one| {
            let value = one.value.to_ascii_lowercase();
            !value.is_empty() && !harmless.contains(&value.as_str())
        });
        found.extend(harm.map(|one| (one, cost.to_owned())));
    }
    for (key, needed) in LISTS {
        let mut taken: BTreeMap<&str, &Assignment> = BTreeMap::new();
        for one in assignments.iter().filter(|one| one.key == key) {
            let (takes, words) = match one.value.strip_prefix('~') {
                Some(words) => (true, words),
                None => (false, one.value.as_str()),
            };
            let words: BTreeSet<&str> = words.split_whitespace().collect();
            for need in needed {
                // An empty value empties the list; a list without ~ adds to it.
                match (takes, one.value.is_empty(), words.contains(need)) {
                    (_, true, _) | (true, _, true) => _ = taken.insert(need, one),
                    (false, _, true) => _ = taken.remove(need),
                    (_, false, false) => {}
                }
            }
        }
        let mut by_line: Vec<(&Assignment, Vec<&str>)> = Vec::new();
        for (need, one) in taken {
            match by_line
                .iter_mut()
                .find(|(known, _)| std::ptr::eq(*known, one))
            {
                Some((_, needs)) => needs.push(need),
                None => by_line.push((one, vec![need])),
            }
        }
        let lines = by_line.into_iter();
        found
            .extend(lines.map(|(one, needs)| (one, format!("it takes {} away", needs.join(", ")))));
    }
    for one in assignments {
        let hides = matches!(
            one.key.as_str(),
            "InaccessiblePaths" | "TemporaryFileSystem"
        );
        let mut paths = one.value.split_whitespace();
        let hidden = paths.find(|path| {
            let path = path.trim_start_matches(['-', '+']);
            let path = path.split(':').next().unwrap_or(path);
            READ.contains(&path.trim_end_matches('/'))
        });
        if let Some(hidden) = hidden.filter(|_| hides) {
            found.push((one, format!("it hides {hidden}")));
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
            let is_said = |(status, what): &(Status, String)| {
                *status == Status::Warning && what.contains(words)
            };
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
                    (format!("{all}/9.conf"), "ProtectProc=invisible"),
                    (a("1.conf"), "ProtectProc=default"),
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
                vec!["it takes bpf away"],
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
}
