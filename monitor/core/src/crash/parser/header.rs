//! Parses the header of a report: the task, the taint flags, the module list.

use super::{
    super::record::{Marker, Module},
    symbol::{MAX_NAME, cut},
};

/// Most modules of a list that are kept.
pub(super) const MAX_MODULES: usize = 1024;

/// Parses the words after `Modules linked in:`, or a line that continues them. `None` if one is not
/// a module, or there are more than [`MAX_MODULES`].
pub(super) fn modules(text: &str) -> Option<Vec<Module>> {
    let list = text.split_once('[').map_or(text, |(list, _)| list);
    let modules: Option<Vec<Module>> = list
        .split_ascii_whitespace()
        .take(MAX_MODULES + 1)
        .map(module)
        .collect();
    modules.filter(|modules| modules.len() <= MAX_MODULES)
}

/// `[last unloaded: name(OE)]`, which ends a list.
pub(super) fn last_unloaded(text: &str) -> Option<Module> {
    let (_, behind) = text.split_once("[last unloaded: ")?;
    module(behind.split([' ', ']']).next()?)
}

/// A module as in the list: `name`, `name(OE)`, `name(K+)`.
fn module(word: &str) -> Option<Module> {
    let (name, flags) = match word.split_once('(') {
        Some((name, flags)) => (name, flags.strip_suffix(')')?),
        None => (word, ""),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.is_empty() || !name.bytes().all(named) {
        return None;
    }
    let (taints, state) = match flags.strip_suffix(['+', '-']) {
        Some(taints) if flags.ends_with('+') => (taints, Marker::Loading),
        Some(taints) => (taints, Marker::Unloading),
        None => (flags, Marker::Live),
    };
    taints
        .bytes()
        .all(|byte| byte.is_ascii_uppercase())
        .then(|| Module {
            name: cut(name, MAX_NAME),
            taints: cut(taints, 32),
            state,
        })
}

/// The content of `CPU: … Comm: … Tainted: … RELEASE`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TaskHeader {
    pub(super) cpu: Option<u32>,
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<String>,
    pub(super) taint: Option<String>,
    pub(super) release: Option<String>,
}

/// `CPU: 1 UID: 0 PID: 1 Comm: init Not tainted 6.12.1 #1 …`; for a hung task only `      Tainted:
/// G  O K  6.12.1 #1 …`. A comm may contain anything.
pub(super) fn task_header(text: &str) -> Option<TaskHeader> {
    let text = text.trim_start();
    let mut header = TaskHeader::default();
    let state = if let Some(rest) = text.strip_prefix("CPU: ") {
        let Some((numbers, rest)) = rest.split_once(" Comm: ") else {
            return without_task(rest);
        };
        let mut words = numbers.split_ascii_whitespace();
        header.cpu = words.next()?.parse().ok();
        header.pid = words
            .skip_while(|word| *word != "PID:")
            .nth(1)
            .and_then(|pid| pid.parse().ok());
        let (comm, state) = rest.split_at_checked(taint_at(rest)?)?;
        // kernel/panic.c, if kdump's kernel is loaded (`dump_stack_print_info`, lib/dump_stack.c).
        let comm = comm.strip_suffix(" Kdump: loaded").unwrap_or(comm);
        header.comm = Some(cut(comm, MAX_NAME));
        state.trim_start()
    } else if let Some(rest) = text.strip_prefix("Pid: ") {
        // Up to 3.9, and RHEL 6.
        let (pid, rest) = rest.split_once(", comm: ")?;
        header.pid = pid.parse().ok();
        let (comm, state) = rest.split_at_checked(taint_at(rest)?)?;
        header.comm = Some(cut(comm.trim_end(), MAX_NAME));
        state.trim_start()
    } else {
        text
    };
    flags(header, state)
}

/// `CPU: 0    Not tainted  (2.6.35.3 #20)`: 32-bit ARM up to 3.10, which names the task in a
/// line of its own.
fn without_task(text: &str) -> Option<TaskHeader> {
    let (cpu, state) = text.split_once(' ')?;
    let header = TaskHeader {
        cpu: Some(cpu.parse().ok()?),
        ..TaskHeader::default()
    };
    flags(header, state.trim_start())
}

/// `Process swapper (pid: 0, stack limit = …)`, of the same and other old kernels.
pub(super) fn process(text: &str) -> Option<(String, u32)> {
    let rest = text.trim_start().strip_prefix("Process ")?;
    let (comm, rest) = rest.rsplit_once(" (pid: ")?;
    let (pid, _) = rest.split_once(',')?;
    Some((cut(comm, MAX_NAME), pid.parse().ok()?))
}

/// `CPU 1` of x86 up to 3.9, and of 32-bit x86 `EIP: 0060:[<c1>] EFLAGS: 00010202 CPU: 0`.
pub(super) fn cpu(text: &str) -> Option<u32> {
    let text = text.trim();
    let number = text.strip_prefix("CPU ").or_else(|| {
        let (_, rest) = text.strip_prefix("EIP: ")?.split_once(" EFLAGS: ")?;
        Some(rest.split_once(" CPU: ")?.1)
    });
    number?.parse().ok()
}

/// What `Tainted: [O]=OOT_MODULE, [K]=LIVEPATCH` lists: each flag that is set, since 6.12
/// (`print_tainted_verbose`, kernel/panic.c).
fn listed_flags(list: &str) -> Option<String> {
    let flag = |item: &str| {
        let (letter, name) = item.strip_prefix('[')?.split_once("]=")?;
        let letter = letter
            .parse::<char>()
            .ok()
            .filter(char::is_ascii_uppercase)?;
        let known = FLAG_NAMES.contains(&name);
        known.then_some(letter)
    };
    list.trim_end().split(", ").map(flag).collect()
}

/// kernel/panic.c, 7.2
const FLAG_NAMES: [&str; 20] = [
    "PROPRIETARY_MODULE",
    "FORCED_MODULE",
    "CPU_OUT_OF_SPEC",
    "FORCED_RMMOD",
    "MACHINE_CHECK",
    "BAD_PAGE",
    "USER",
    "DIE",
    "OVERRIDDEN_ACPI_TABLE",
    "WARN",
    "CRAP",
    "FIRMWARE_WORKAROUND",
    "OOT_MODULE",
    "UNSIGNED_MODULE",
    "SOFTLOCKUP",
    "LIVEPATCH",
    "AUX",
    "RANDSTRUCT",
    "TEST",
    "FWCTL",
];

/// Reads what a header has behind the task.
fn flags(mut header: TaskHeader, state: &str) -> Option<TaskHeader> {
    let words = if let Some(rest) = state.strip_prefix("Not tainted ") {
        header.taint = Some(String::new());
        rest
    } else {
        let rest = state.strip_prefix("Tainted: ")?;
        if let Some(letters) = listed_flags(rest) {
            header.taint = Some(letters);
            return Some(header);
        }
        // RHEL 7 has a dash for each flag that only later kernels have.
        let is_flag = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
        let (mut letters, mut release) = (String::new(), None);
        for word in rest.split_ascii_whitespace() {
            if !word.bytes().all(is_flag) {
                release = Some(word.trim_start_matches('('));
                break;
            }
            letters.extend(word.chars().filter(|letter| *letter != '-'));
        }
        let in_order = letters
            .chars()
            .try_fold(0, |from, letter| {
                let at = FLAGS.get(from..)?.find(letter)?;
                Some(from + at + 1)
            })
            .is_some();
        // The release follows the letters; otherwise they are damaged, or continue on the next
        // line.
        let digit = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        if letters.is_empty() || !in_order || !release.is_some_and(digit) {
            return damaged(header);
        }
        // Flag 0 has a letter for its absence too.
        header.taint = Some(cut(&letters.replace('G', ""), 64));
        rest
    };
    header.release = words
        .split_ascii_whitespace()
        .map(|word| word.trim_start_matches('('))
        .find(|word| is_release(word))
        .map(|release| cut(release, MAX_NAME));
    Some(header)
}

/// `6.12.0-acme`, and no address such as `0061:[<c0632871>]`.
fn is_release(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.') && !word.contains(':')
}

/// Where the kernel's own word on its taint starts: behind what a comm may say.
fn taint_at(text: &str) -> Option<usize> {
    text.rfind(" Tainted: ").max(text.rfind(" Not tainted "))
}

/// The letters in the order in which they are printed (`taint_flags`, kernel/panic.c); `G` means
/// the absence of `P`. Vendors' own letters (`X` is in the kernel) come last.
const FLAGS: &str = "GPFSRMBUDAWCIOELKXTNJVQHYZ";

/// If the taint flags of a header cannot be parsed, the task is still known.
fn damaged(header: TaskHeader) -> Option<TaskHeader> {
    (header.cpu.is_some() || header.pid.is_some()).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_their_markers() {
        let list = modules(" a b(OE) c-d(K+) e(-) [last unloaded: f(O)]").unwrap();
        let shown: Vec<_> = list
            .iter()
            .map(|module| (module.name.as_str(), module.taints.as_str(), module.state))
            .collect();
        assert_eq!(
            shown,
            [
                ("a", "", Marker::Live),
                ("b", "OE", Marker::Live),
                ("c-d", "K", Marker::Loading),
                ("e", "", Marker::Unloading),
            ]
        );
        assert_eq!(modules("CPU: 1 PID: 2"), None);
    }

    #[test]
    fn a_comm_that_lies() {
        let header = task_header(
            "CPU: 3 UID: 0 PID: 77 Comm: a Tainted: K 1 Tainted: G           OE K    6.12.9 #1 x",
        );
        let header = header.unwrap();
        assert_eq!((header.cpu, header.pid), (Some(3), Some(77)));
        assert_eq!(header.comm.as_deref(), Some("a Tainted: K 1"));
        assert_eq!(header.taint.as_deref(), Some("OEK"));
        assert_eq!(header.release.as_deref(), Some("6.12.9"));
    }

    #[test]
    fn taint_of_every_vendor() {
        let taint = |text: &str| {
            let header = task_header(&format!("CPU: 1 PID: 3 Comm: a b {text}")).unwrap();
            assert_eq!(header.comm.as_deref(), Some("a b"), "{text}");
            header.taint
        };
        for (text, expected) in [
            (
                "Kdump: loaded Tainted: G           OE K------------ T 3.10.0-1160 #1",
                Some("OEKT"),
            ),
            ("Kdump: loaded Not tainted 6.12.0 #1", Some("")),
            ("Tainted: G S         O  K    6.1.0 #1", Some("SOK")),
            ("Tainted: P        W  OE    4.4.0 #1", Some("PWOE")),
            ("Tainted: G           OE ~    4.4.0 #1", None),
            ("Tainted: G           KOE     4.4.0 #1", None),
        ] {
            assert_eq!(taint(text).as_deref(), expected, "{text}");
        }
    }
}
