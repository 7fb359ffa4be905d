//! Drop-ins of the systemd unit that take away what the monitor needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
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
/// The directories of drop-ins for this unit by its name, the most specific first.
const BY_NAME: [&str; 2] = ["livepatch-monitor.service.d", "livepatch-.service.d"];
/// That of the drop-ins for every service: it comes after all of those by name.
const BY_TYPE: [&str; 1] = ["service.d"];
/// Entries of one directory that are looked at.
const MAX_FILES: usize = 1024;

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
const LISTS: [(&str, &[&str]); 3] = [
    ("CapabilityBoundingSet", CAPABILITIES),
    ("AmbientCapabilities", CAPABILITIES),
    ("DeviceAllow", &["/dev/kmsg"]),
];
/// The system calls that the unit needs, each with the groups that have it (src/shared/seccomp-util.c
/// of systemd 257; those that the monitor shares with every service are left out).
const SYSTEM_CALLS: [(&str, &[&str]); 2] = [
    ("bpf", &["@privileged", "@known"]),
    ("perf_event_open", &["@debug", "@known"]),
];
const CAPABILITIES: &[&str] = &[
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_DAC_READ_SEARCH",
];
/// What the monitor reads or writes and a drop-in could hide.
const READ: [&str; 14] = [
    "/dev/kmsg",
    "/proc/kallsyms",
    "/proc/sys/kernel",
    "/sys/kernel/livepatch",
    "/sys/kernel/btf",
    "/sys/kernel/tracing",
    "/sys/module",
    "/sys/fs/bpf",
    "/var/lib/livepatch-monitor",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/usr/lib/sysimage/rpm",
    "/var/lib/systemd/pstore",
    "/var/crash",
];

/// An assignment in a drop-in.
struct Assignment {
    file: PathBuf,
    key: String,
    value: String,
}

impl Assignment {
    /// The words of a list, and whether it takes them away.
    fn words(&self) -> (bool, BTreeSet<&str>) {
        let (takes, words) = match self.value.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, self.value.as_str()),
        };
        (takes, words.split_whitespace().collect())
    }
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
    let (files, problems) = drop_ins(root);
    checks.extend(
        problems
            .into_iter()
            .map(|(problem, remedy)| Check::new(CHECK, Status::Unknown, problem, remedy)),
    );
    for file in files {
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
    let own = root.join("etc/systemd/system").join(UNIT);
    if is_masked(&own) {
        checks.push(Check::new(
            CHECK,
            Status::Warning,
            format!(
                "/etc/systemd/system/{UNIT} masks the unit: systemd does not start the monitor"
            ),
            "systemctl unmask livepatch-monitor",
        ));
    } else if own.exists() {
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

/// The drop-ins that systemd reads, in its order: by file name, whichever directory they are in. Of
/// one name the first counts, in the directories by the unit's name before those by its type
/// (`unit_file_find_dropin_paths`, src/shared/dropin.c of systemd 257). Beside them what cannot be
/// read, with a remedy.
fn drop_ins(root: &Path) -> (Vec<PathBuf>, Vec<(String, &'static str)>) {
    let mut problems = Vec::new();
    let mut by_name = BTreeMap::new();
    let all = |folders: &'static [&'static str]| {
        DIRECTORIES.into_iter().flat_map(move |directory| {
            folders
                .iter()
                .map(move |folder| Path::new(directory).join(folder))
        })
    };
    for directory in all(&BY_NAME).chain(all(&BY_TYPE)) {
        let directory = root.join(directory);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                let problem = format!("cannot read {}: {error}", directory.display());
                problems.push((problem, "run as root"));
                continue;
            }
        };
        for (index, entry) in entries.flatten().enumerate() {
            if index == MAX_FILES {
                let problem = format!(
                    "{} has more than {MAX_FILES} files, and not all are checked",
                    directory.display()
                );
                problems.push((problem, "remove those that are not needed"));
                break;
            }
            let file = entry.path();
            if let Some(name) = file.file_name()
                && file.extension().is_some_and(|end| end == "conf")
            {
                by_name.entry(name.to_owned()).or_insert(file);
            }
        }
    }
    let files = by_name.into_values().filter(|file| !is_masked(file));
    (files.collect(), problems)
}

fn is_masked(file: &Path) -> bool {
    fs::read_link(file).is_ok_and(|to| to == Path::new("/dev/null"))
}

/// The assignments of a drop-in's section [Service] (systemd.syntax(7)).
fn parse(file: &Path, text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut in_service = false;
    let mut joined = String::new();
    for line in text.lines().map(str::trim) {
        // A comment continues in no other line, and may stand between lines that belong together.
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(start) = line.strip_suffix('\\') {
            joined.push_str(start);
            joined.push(' ');
            continue;
        }
        joined.push_str(line);
        let line = std::mem::take(&mut joined);
        let line = line.trim();
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
            let (takes, words) = one.words();
            // `~` without words is all but nothing.
            if takes && words.is_empty() {
                taken.clear();
            }
            for need in needed {
                // An empty value empties the list; a list without ~ adds to it.
                match (takes, one.value.is_empty(), words.contains(need)) {
                    (_, true, _) | (true, _, true) => _ = taken.insert(need, one),
                    (false, _, true) => _ = taken.remove(need),
                    (_, false, false) => {}
                }
            }
        }
        found.extend(by_line(taken));
    }
    found.extend(by_line(refused(assignments)));
    for key in [
        "InaccessiblePaths",
        "InaccessibleDirectories",
        "TemporaryFileSystem",
    ] {
        let of_key: Vec<&Assignment> = assignments.iter().filter(|one| one.key == key).collect();
        // An empty value empties the list.
        let last = of_key.rsplit(|one| one.value.is_empty()).next();
        for one in last.unwrap_or_default() {
            let hidden = one.value.split_whitespace().find(|path| hides(path));
            found.extend(hidden.map(|hidden| (*one, format!("it hides {hidden}"))));
        }
    }
    found
}

/// What each line takes away, in a line.
fn by_line<'a>(taken: BTreeMap<&str, &'a Assignment>) -> Vec<(&'a Assignment, String)> {
    let mut lines: Vec<(&Assignment, Vec<&str>)> = Vec::new();
    for (need, one) in taken {
        match lines
            .iter_mut()
            .find(|(known, _)| std::ptr::eq(*known, one))
        {
            Some((_, needs)) => needs.push(need),
            None => lines.push((one, vec![need])),
        }
    }
    let lines = lines.into_iter();
    let costs = lines.map(|(one, needs)| (one, format!("it takes {} away", needs.join(", "))));
    costs.collect()
}

/// The system calls that are refused in the end, and by which line (systemd.exec(5),
/// `SystemCallFilter=`): an empty value allows every call, and the first line after it says
/// whether the list is of those that are allowed or refused.
fn refused(assignments: &[Assignment]) -> BTreeMap<&'static str, &Assignment> {
    let mut refused: BTreeMap<&str, &Assignment> = BTreeMap::new();
    let mut is_list = true;
    let filters = assignments.iter();
    for one in filters.filter(|one| one.key == "SystemCallFilter") {
        let (takes, words) = one.words();
        if one.value.is_empty() {
            refused.clear();
            is_list = false;
            continue;
        }
        for (call, groups) in SYSTEM_CALLS {
            // An error may stand behind a call: `bpf:EPERM`.
            let mut names = words.iter().map(|word| word.split(':').next());
            let is_named =
                names.any(|name| name.is_some_and(|name| name == call || groups.contains(&name)));
            match (takes, is_named) {
                (true, true) => _ = refused.insert(call, one),
                (false, true) => _ = refused.remove(call),
                (false, false) if !is_list => _ = refused.insert(call, one),
                (_, false) => {}
            }
        }
        is_list = true;
    }
    refused
}

/// Whether a path that is hidden has something that the monitor needs, or is a part of it.
fn hides(path: &str) -> bool {
    let path = path.trim_start_matches(['-', '+']);
    let path = Path::new(path.split(':').next().unwrap_or(path));
    let read = READ.map(Path::new);
    read.iter()
        .any(|read| read.starts_with(path) || path.starts_with(read))
}

#[cfg(test)]
mod tests;
