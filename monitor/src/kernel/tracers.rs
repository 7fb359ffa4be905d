//! Reads what is attached to functions: ftrace's list of traced functions, and the list of
//! kprobes.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Seek as _},
    path::{Path, PathBuf},
};

use super::{bpf_links, modules};
use crate::bounded_read;
use livepatch_core::{
    in_force::{self, Seen},
    patch::PatchSet,
    preflight::host::{BpfProgram, Known, Kprobe, KprobeEvent, Traced, Tracers},
};

/// Most bytes read of a list. With the function tracer on, it holds all 60,000 functions.
const MAX_LIST: u64 = 64 << 20;
/// Lines read between two looks at whether to go on: the kernel makes about 50 with its lock held.
const LINES_BETWEEN_CHECKS: usize = 200;
/// Most bytes kept of a function's list of callbacks.
const MAX_WHO: usize = 300;
/// Most entries kept of each list.
const MAX_KEPT: usize = 65_536;

/// Reads the entries of functions with these names, in any object.
#[must_use]
pub fn read(procfs: &Path, sysfs: &Path, functions: &BTreeSet<&str>) -> Tracers {
    let folder = tracing_folder(sysfs);
    let mut in_use_list = InUse::default();
    let ftrace_read = for_each_line(&folder.join("enabled_functions"), |line| {
        in_use_list.line(line, functions);
    });
    let mut kprobes = Vec::new();
    let kprobes_read = for_each_line(&sysfs.join("kernel/debug/kprobes/list"), |line| {
        let kprobe = parse_kprobe(line).filter(|probe| functions.contains(probe.name.as_str()));
        kprobes.extend(kprobe.filter(|_| kprobes.len() < MAX_KEPT));
    });
    let mut events = Vec::new();
    // The list of kprobes says which ones exist; this file only gives their names.
    let _ = for_each_line(&folder.join("kprobe_events"), |line| {
        let event = parse_event(line).filter(|event| functions.contains(event.name.as_str()));
        events.extend(event.filter(|_| events.len() < MAX_KEPT));
    });
    Tracers {
        overridable: Lists::overridable(sysfs)
            .and_then(|mut list| read_overridable(list.as_mut(), functions))
            .map_err(|error| {
                format!("cannot determine which functions BPF programs may override: {error}")
            }),
        ftrace: ftrace_read
            .map(|()| in_use_list.found)
            .map_err(|error| format!("cannot determine which functions ftrace traces: {error}")),
        kprobes: kprobes_read
            .map(|()| kprobes)
            .map_err(|error| format!("cannot determine the kprobes: {error}")),
        events,
        programs: bpf_links::programs(procfs, sysfs, functions),
    }
}

fn tracing_folder(sysfs: &Path) -> PathBuf {
    let [tracing, old] =
        ["kernel/tracing", "kernel/debug/tracing"].map(|folder| sysfs.join(folder));
    // Before 4.1 or where only debugfs is mounted.
    match tracing.join("enabled_functions").exists() {
        true => tracing,
        false => old,
    }
}

/// The lists that say what is attached to functions, open: the kernel checks permission
/// when they are opened, not when they are read.
#[derive(Debug)]
pub struct Lists {
    enabled: Result<List, String>,
    kprobes: Result<List, String>,
    events: Result<List, String>,
    /// `None` where this kernel lets no program override a function
    /// (CONFIG_FUNCTION_ERROR_INJECTION).
    overridable: Result<Option<List>, String>,
}

/// What the lists say of some functions.
#[derive(Debug)]
struct Attached {
    /// Their lines of `enabled_functions`.
    traced: Known<Vec<Traced>>,
    /// Lines of other functions with flag `I`.
    redirected_elsewhere: usize,
    /// The kprobes on them.
    kprobes: Known<Vec<Kprobe>>,
    /// The kprobes of tracefs on them; empty where they cannot be read.
    events: Vec<KprobeEvent>,
    /// Those that a BPF program may override.
    overridable: Known<BTreeSet<String>>,
}

impl Lists {
    /// Opens the lists; one that cannot be opened stays unknown.
    #[must_use]
    pub fn open(sysfs: &Path) -> Self {
        Self {
            enabled: List::open(tracing_folder(sysfs).join("enabled_functions")),
            overridable: Self::overridable(sysfs),
            kprobes: List::open(sysfs.join("kernel/debug/kprobes/list")),
            events: List::open(tracing_folder(sysfs).join("kprobe_events")),
        }
    }

    fn overridable(sysfs: &Path) -> Result<Option<List>, String> {
        let debugfs = sysfs.join("kernel/debug");
        let path = debugfs.join("error_injection/list");
        match List::open(path.clone()) {
            Ok(list) => Ok(Some(list)),
            // debugfs is there, and has no such list: the kernel has none.
            Err(_) if List::open(debugfs.join("kprobes/list")).is_ok() && !path.exists() => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the kernel shows of the functions that enabled patches replace. `programs` are
    /// the BPF programs on them, where they can be listed.
    pub fn seen(
        &mut self,
        procfs: &Path,
        set: &PatchSet,
        programs: Known<Vec<BpfProgram>>,
    ) -> Seen {
        let attached = self.read(&in_force::functions(set), &|| false);
        attached.seen(procfs, programs)
    }

    /// The same, unless a module is being loaded: ftrace's lock, which the kernel holds while it
    /// makes a page of `enabled_functions`, is then left to that module.
    ///
    /// # Errors
    /// A module is being loaded, also if it comes while the list is read, or it is not known
    /// whether one is: the reason.
    pub fn seen_between_loads(
        &mut self,
        procfs: &Path,
        set: &PatchSet,
        programs: Known<Vec<BpfProgram>>,
    ) -> Known<Seen> {
        may_read(procfs)?;
        let answer = RefCell::new(Ok(()));
        let stops = || {
            let mut answer = answer.borrow_mut();
            if answer.is_ok() {
                *answer = may_read(procfs);
            }
            answer.is_err()
        };
        let attached = self.read(&in_force::functions(set), &stops);
        answer.into_inner()?;
        Ok(attached.seen(procfs, programs))
    }

    /// Reads what they say of these functions, until `stops`.
    fn read(&mut self, functions: &BTreeSet<&str>, stops: &dyn Fn() -> bool) -> Attached {
        let mut in_use = InUse::default();
        let traced = read_list(&mut self.enabled, stops, |line| {
            in_use.line(line, functions)
        });
        let mut kprobes = Vec::new();
        let kprobes_read = read_list(&mut self.kprobes, &|| false, |line| {
            let kprobe = parse_kprobe(line).filter(|probe| functions.contains(probe.name.as_str()));
            kprobes.extend(kprobe.filter(|_| kprobes.len() < MAX_KEPT));
        });
        let mut events = Vec::new();
        // Where it cannot be read, a kprobe is not known to be one of tracefs.
        let _ = read_list(&mut self.events, &|| false, |line| {
            let event = parse_event(line).filter(|event| functions.contains(event.name.as_str()));
            events.extend(event.filter(|_| events.len() < MAX_KEPT));
        });
        let overridable = match &mut self.overridable {
            Ok(list) => read_overridable(list.as_mut(), functions),
            Err(error) => Err(error.clone()),
        };
        let explain = |what: &str| {
            let what = what.to_owned();
            move |error: String| format!("{what}: {error}")
        };
        Attached {
            traced: traced
                .map(|()| in_use.found)
                .map_err(explain("which functions are redirected is unknown")),
            redirected_elsewhere: in_use.redirected_elsewhere,
            kprobes: kprobes_read
                .map(|()| kprobes)
                .map_err(explain("which kprobes there are is unknown")),
            events,
            overridable: overridable.map_err(explain(
                "which functions BPF programs may override is unknown",
            )),
        }
    }
}

/// Whether no module waits for ftrace's lock; why not, or why that is unknown.
fn may_read(procfs: &Path) -> Known<()> {
    match modules::one_is_loading(procfs) {
        Ok(false) => Ok(()),
        Ok(true) => Err("not read while a module is being loaded".to_owned()),
        Err(why) => Err(format!("not read: {why}")),
    }
}

impl Attached {
    fn seen(self, procfs: &Path, programs: Known<Vec<BpfProgram>>) -> Seen {
        Seen {
            traced: self.traced,
            redirected_elsewhere: self.redirected_elsewhere,
            kprobes: self.kprobes,
            events: self.events,
            overridable: self.overridable,
            modules: modules::newest_first(procfs),
            programs,
        }
    }
}

/// Those of these functions that the list has.
fn read_overridable(
    list: Option<&mut List>,
    functions: &BTreeSet<&str>,
) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    let Some(list) = list else {
        return Ok(found);
    };
    list.lines(&|| false, |line| {
        // `name` or `name [module]`, a tab, the type of error (lib/error-inject.c).
        let name = line.split_whitespace().next();
        let name = name.filter(|name| functions.contains(name));
        found.extend(name.map(str::to_owned));
    })?;
    Ok(found)
}

fn read_list(
    list: &mut Result<List, String>,
    stops: &dyn Fn() -> bool,
    visit: impl FnMut(&str),
) -> Result<(), String> {
    match list {
        Ok(list) => list.lines(stops, visit),
        Err(error) => Err(error.clone()),
    }
}

#[derive(Debug)]
struct List {
    path: PathBuf,
    file: File,
}

impl List {
    fn open(path: PathBuf) -> Result<Self, String> {
        match bounded_read::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(ListError { path, source }.to_string()),
        }
    }

    /// Visits its lines as they are now, until `stops`.
    fn lines(&mut self, stops: &dyn Fn() -> bool, visit: impl FnMut(&str)) -> Result<(), String> {
        let rewound = self.file.rewind();
        let read = rewound.and_then(|()| visit_lines(&self.file, stops, visit));
        read.map_err(|source| {
            let path = self.path.clone();
            ListError { path, source }.to_string()
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
struct ListError {
    path: PathBuf,
    source: io::Error,
}

fn for_each_line(path: &Path, visit: impl FnMut(&str)) -> Result<(), ListError> {
    let read = bounded_read::open(path).and_then(|file| visit_lines(&file, &|| false, visit));
    read.map_err(|source| ListError {
        path: path.to_owned(),
        source,
    })
}

fn visit_lines(
    file: impl Read,
    stops: &dyn Fn() -> bool,
    mut visit: impl FnMut(&str),
) -> io::Result<()> {
    let mut reader = BufReader::new(file.take(MAX_LIST));
    let mut line = Vec::new();
    let mut read = 0_u64;
    for number in 1_usize.. {
        if number.is_multiple_of(LINES_BETWEEN_CHECKS) && stops() {
            return Err(io::Error::other("given up"));
        }
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        read += u64::try_from(length).unwrap_or(u64::MAX);
        visit(String::from_utf8_lossy(&line).trim_end_matches('\n'));
    }
    if read >= MAX_LIST {
        return Err(io::Error::other("longer than 64 MiB"));
    }
    Ok(())
}

/// The requested functions that have an ftrace callback.
#[derive(Default)]
struct InUse {
    found: Vec<Traced>,
    /// The last line was about the last of them, so further lines may list more callbacks.
    open: bool,
    /// Other functions that a callback may redirect.
    redirected_elsewhere: usize,
}

impl InUse {
    /// Parses `name [module] (users) R I D M <tab>callbacks`, with more callbacks on further
    /// lines that start with a tab (t_show, kernel/trace/ftrace.c, 5.10 to 7.2).
    fn line(&mut self, line: &str, functions: &BTreeSet<&str>) {
        if line.starts_with(char::is_whitespace) {
            if let Some(traced) = self.found.last_mut().filter(|_| self.open) {
                add_who(traced, line);
            }
            return;
        }
        let (head, rest) = line.split_once(" (").unwrap_or((line, ""));
        let (name, module) = match head.split_once(" [") {
            Some((name, module)) => (name, module.strip_suffix(']').map(str::to_owned)),
            None => (head, None),
        };
        let (flags, who) = rest.split_once('\t').unwrap_or((rest, ""));
        let (users, flags) = flags.split_once(')').unwrap_or((flags, ""));
        let set = |flag| flags.split_whitespace().any(|word| word == flag);
        self.open = functions.contains(name) && self.found.len() < MAX_KEPT;
        if !self.open {
            self.redirected_elsewhere += usize::from(set("I"));
            return;
        }
        let mut traced = Traced {
            name: name.to_owned(),
            module,
            users: users.trim().parse().ok(),
            ipmodify: set("I"),
            direct: set("D"),
            who: String::new(),
        };
        add_who(&mut traced, who);
        self.found.push(traced);
    }
}

fn add_who(traced: &mut Traced, text: &str) {
    for word in text.split_whitespace() {
        if traced.who.len() + word.len() < MAX_WHO {
            if !traced.who.is_empty() {
                traced.who.push(' ');
            }
            traced.who.push_str(word);
        }
    }
}

/// `address  k  function+0xoffset  module [FLAG][FLAG]` (report_probe, kernel/kprobes.c,
/// 5.10 to 7.2).
fn parse_kprobe(line: &str) -> Option<Kprobe> {
    let mut words = line.split_whitespace();
    let (_, kind, place) = (words.next()?, words.next()?, words.next()?);
    let (name, offset) = place.split_once('+')?;
    let offset = u64::from_str_radix(offset.strip_prefix("0x")?, 16).ok()?;
    let mut probe = Kprobe {
        name: name.to_owned(),
        module: None,
        offset,
        by_ftrace: false,
        on_return: kind == "r",
        disabled: false,
    };
    for word in words {
        if word.starts_with('[') {
            // The probed code is gone, and so is the probe.
            if word.contains("[GONE]") {
                return None;
            }
            probe.disabled = word.contains("[DISABLED]");
            probe.by_ftrace = word.contains("[FTRACE]");
        } else {
            probe.module = Some(word.to_owned());
        }
    }
    Some(probe)
}

/// `p:group/event module:function+offset argument…` (trace_kprobe_show,
/// kernel/trace/trace_kprobe.c, 5.10 to 7.2).
fn parse_event(line: &str) -> Option<KprobeEvent> {
    let mut words = line.split_whitespace();
    let (kind, event) = words.next()?.split_once(':')?;
    let place = words.next()?;
    let (module, place) = match place.split_once(':') {
        Some((module, place)) => (Some(module.to_owned()), place),
        None => (None, place),
    };
    let name = place.split(['+', '%']).next()?;
    let offset = place.strip_prefix(name).unwrap_or_default();
    Some(KprobeEvent {
        event: event.to_owned(),
        name: name.to_owned(),
        module,
        at_entry: kind == "p" && ["", "+0"].contains(&offset),
    })
}

#[cfg(test)]
mod tests;
