//! Reads the tasks that a transition waits for from /proc, for hosts without BPF.
//!
//! `PID/task/TID/patch_state` (mode 0400) decides whether a task is pending; `stat`, `stack` (needs
//! CAP_SYS_ADMIN) and `wchan` describe it. Idle tasks (swapper) are not in /proc. Reading `stack`
//! and `wchan` blocks while the task is in `execve` (`lock_trace` and `ptrace_may_access`,
//! fs/proc/base.c): call this where blocking does no harm.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::bounded_read;
use livepatch_core::{function_ref::CodePlace, transition::BootTime};

#[cfg(test)]
mod tests;

/// Most pending tasks that are described; the rest are only counted. At the start of a transition
/// every task is pending.
pub const MAX_TASKS: usize = 4096;

/// Most frames kept of a stack; the kernel prints at most 64 (`MAX_STACK_TRACE_DEPTH`).
const MAX_FRAMES: usize = 100;
/// Most bytes read of a file: more than a stack of 64 long names.
const MAX_FILE: u64 = 64 << 10;
/// Flag of kernel threads: `PF_KTHREAD` (include/linux/sched.h, 5.10 to 7.2).
const PF_KTHREAD: u32 = 0x0020_0000;
/// `patch_state` of a task without a transition (`KLP_UNDEFINED`, -1; `KLP_TRANSITION_IDLE` since
/// 6.12).
const IDLE: i32 = -1;

/// The tasks could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// A file or directory could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// There are tasks, but they have no `patch_state`.
    #[error("no task under {} has a patch_state: the kernel is built without CONFIG_LIVEPATCH", path.display())]
    NoPatchState {
        /// The root of procfs.
        path: PathBuf,
    },
    /// The content of a file is not what the kernel writes there.
    #[error("{} does not hold {expected}", path.display())]
    Malformed {
        /// The file whose content is not what the kernel writes.
        path: PathBuf,
        /// What the kernel writes.
        expected: &'static str,
    },
}

/// The result of a walk over all tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The first [`MAX_TASKS`] tasks that have not reached the target state.
    pub tasks: Vec<ProcTask>,
    /// Number of pending tasks, described or not.
    pub pending: usize,
    /// Number of tasks whose `patch_state` was read.
    pub visited: usize,
    /// How many of those have no transition (-1). If all of them do, the transition has ended.
    pub idle: usize,
    /// Number of tasks whose `patch_state` may not be read. If it is not 0, the walk may have
    /// missed pending tasks.
    pub denied: usize,
    /// Number of described tasks whose stack may not be read.
    pub stack_denied: usize,
}

/// A task that has not reached the target state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcTask {
    /// Thread id of the task.
    pub tid: u32,
    /// Process id: the same for all threads of a process.
    pub tgid: u32,
    /// Its name, any bytes. A kernel thread's may be longer than 15 bytes (since 5.17), and a
    /// worker's includes its work queue.
    pub comm: Vec<u8>,
    /// Whether it is a kernel thread.
    pub kthread: bool,
    /// The state's letter (`R`, `S`, `D`, `I`, …).
    pub state: char,
    /// 0 unpatched, 1 patched.
    pub patch_state: i32,
    /// When it started, in clock ticks (`sysconf(_SC_CLK_TCK)`) since boot.
    pub start_ticks: u64,
    /// Its kernel stack, innermost first; empty if it could not be read.
    pub frames: Vec<CodePlace>,
    /// The function it sleeps in, seen from outside the scheduler; `None` while it runs and if it
    /// may not be read.
    pub wchan: Option<String>,
}

/// The result of reading a file of a task.
enum Reading<T> {
    Got(T),
    /// The task or this file does not exist (any more).
    Absent,
    Denied,
}

impl<T> Reading<T> {
    fn value(self) -> Option<T> {
        match self {
            Self::Got(value) => Some(value),
            Self::Absent | Self::Denied => None,
        }
    }
}

/// Finds all threads whose `patch_state` is not `target_patch_state` (0 unpatched, 1 patched).
/// Tasks that exit meanwhile are skipped; tasks without a transition (-1) are counted but not
/// pending.
///
/// # Errors
/// [`ProcError::Read`] if the list of processes cannot be read, or a file cannot be read for
/// another reason than missing permission; [`ProcError::NoPatchState`] on a kernel without
/// livepatch.
pub fn pending_tasks(procfs: &Path, target_patch_state: i32) -> Result<Walk, ProcError> {
    walk(procfs, |patch_state| {
        patch_state != IDLE && patch_state != target_patch_state
    })
}

/// Walks all threads and describes each.
///
/// # Errors
/// Like [`pending_tasks`].
pub fn every_task(procfs: &Path) -> Result<Walk, ProcError> {
    walk(procfs, |_| true)
}

fn walk(procfs: &Path, wanted: impl Fn(i32) -> bool) -> Result<Walk, ProcError> {
    let mut walk = Walk::default();
    let mut without = false;
    let processes = read_ids(procfs).map_err(|source| ProcError::Read {
        path: procfs.to_owned(),
        source,
    })?;
    for tgid in processes {
        let threads = procfs.join(tgid.to_string()).join("task");
        let ids = match sort_out(&threads, read_ids(&threads))? {
            Reading::Got(ids) => ids,
            Reading::Absent => continue,
            Reading::Denied => {
                walk.denied += 1;
                continue;
            }
        };
        for tid in ids {
            let directory = threads.join(tid.to_string());
            let path = directory.join("patch_state");
            let patch_state = match read(&path)? {
                Reading::Got(text) => number(text.trim_ascii()).ok_or(ProcError::Malformed {
                    path,
                    expected: "a patch state",
                })?,
                Reading::Absent => {
                    // The file is missing although its task exists.
                    without = without || directory.join("stat").exists();
                    continue;
                }
                Reading::Denied => {
                    walk.denied += 1;
                    continue;
                }
            };
            walk.visited += 1;
            walk.idle += usize::from(patch_state == IDLE);
            if wanted(patch_state) {
                walk.describe(&directory, tid, tgid, patch_state)?;
            }
        }
    }
    if walk.visited == 0 && walk.denied == 0 && without {
        return Err(ProcError::NoPatchState {
            path: procfs.to_owned(),
        });
    }
    Ok(walk)
}

impl Walk {
    fn describe(
        &mut self,
        directory: &Path,
        tid: u32,
        tgid: u32,
        patch_state: i32,
    ) -> Result<(), ProcError> {
        if self.tasks.len() >= MAX_TASKS {
            self.pending += 1;
            return Ok(());
        }
        let path = directory.join("stat");
        let Some(text) = read(&path)?.value() else {
            return Ok(());
        };
        let stat = parse_stat(&text).ok_or(ProcError::Malformed {
            path,
            expected: "a task's status line",
        })?;
        let frames = match read(&directory.join("stack"))? {
            Reading::Got(text) => parse_stack(&text),
            Reading::Absent => Vec::new(),
            Reading::Denied => {
                self.stack_denied += 1;
                Vec::new()
            }
        };
        let wchan = read(&directory.join("wchan"))?.value();
        let wchan = wchan.map(|text| lossy(text.trim_ascii()));
        self.pending += 1;
        self.tasks.push(ProcTask {
            tid,
            tgid,
            comm: stat.comm,
            kthread: stat.flags & PF_KTHREAD != 0,
            state: stat.state,
            patch_state,
            start_ticks: stat.start_ticks,
            frames,
            wchan: wchan.filter(|wchan| !wchan.is_empty() && wchan != "0"),
        });
        Ok(())
    }
}

/// The cgroup of a task: its path in the unified hierarchy, or in systemd's if that one is more
/// specific (hybrid and legacy setups). `None` if the task has exited, may not be read, or is in no
/// cgroup.
#[must_use]
pub fn cgroup_of(procfs: &Path, tid: u32) -> Option<String> {
    let text = read(&procfs.join(tid.to_string()).join("cgroup"))
        .ok()?
        .value()?;
    let lines = || {
        text.split(|byte| *byte == b'\n')
            .filter_map(|line| split_once(line, b':'))
    };
    // `hierarchy:controllers:path`
    let unified = lines()
        .filter(|(hierarchy, _)| *hierarchy == b"0")
        .find_map(|(_, rest)| cgroup_path(rest.strip_prefix(b":")?));
    let legacy = lines().find_map(|(_, rest)| cgroup_path(rest.strip_prefix(b"name=systemd:")?));
    unified
        .filter(|path| *path != b"/" || legacy.is_none())
        .or(legacy)
        .map(lossy)
}

/// The path without the suffix of a removed cgroup.
fn cgroup_path(path: &[u8]) -> Option<&[u8]> {
    Some(path.strip_suffix(b" (deleted)").unwrap_or(path)).filter(|path| !path.is_empty())
}

/// The systemd unit of a cgroup path: the last component that is named like a unit. A container's
/// is its scope.
#[must_use]
pub fn unit_of(cgroup_path: &str) -> Option<String> {
    const KINDS: [&str; 6] = ["service", "scope", "slice", "socket", "mount", "swap"];
    let unit = cgroup_path.rsplit('/').find(|component| {
        component
            .rsplit_once('.')
            .is_some_and(|(name, kind)| !name.is_empty() && KINDS.contains(&kind))
    })?;
    // systemd prefixes names that would collide with the kernel's own files (cg_escape).
    Some(unit.strip_prefix('_').unwrap_or(unit).to_owned())
}

/// The random id of this boot (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// [`ProcError::Read`], and [`ProcError::Malformed`] if it is not a UUID.
pub fn boot_id(procfs: &Path) -> Result<String, ProcError> {
    let path = procfs.join("sys/kernel/random/boot_id");
    let failed = |source| ProcError::Read {
        path: path.clone(),
        source,
    };
    let id = lossy(read_bytes(&path).map_err(failed)?.trim_ascii());
    let dashes = [8, 13, 18, 23];
    let is_uuid = id.len() == 36
        && id
            .bytes()
            .enumerate()
            .all(|(index, byte)| match dashes.contains(&index) {
                true => byte == b'-',
                false => byte.is_ascii_hexdigit(),
            });
    if is_uuid {
        Ok(id)
    } else {
        Err(ProcError::Malformed {
            path,
            expected: "a UUID",
        })
    }
}

/// When a process started; `None` if it has exited, may not be read, or the kernel's clock ticks
/// are unknown.
#[must_use]
pub fn start_time(procfs: &Path, process: u32) -> Option<BootTime> {
    let path = procfs.join(process.to_string()).join("stat");
    let text = bounded_read::read(&path, bounded_read::VALUE).ok()?;
    let ticks = parse_stat(&text)?.start_ticks;
    let nanos = 1_000_000_000_u64.checked_div(rustix::param::clock_ticks_per_second())?;
    Some(BootTime::from_nanos(ticks.saturating_mul(nanos)))
}

/// The fields of a task's `stat` that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    comm: Vec<u8>,
    state: char,
    flags: u32,
    start_ticks: u64,
}

/// Parses `pid (comm) state ppid …` (do_task_stat, fs/proc/array.c). The name may contain
/// parentheses and spaces, so it ends at the last parenthesis.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let comm = unescape(text.get(open + 1..close)?);
    let rest = text.get(close + 1..)?.trim_ascii();
    // The state is field 3, flags field 9, starttime field 22.
    let mut fields = rest.split(|byte| *byte == b' ');
    let state = match fields.next()? {
        [state] => char::from(*state),
        _ => return None,
    };
    let flags = number(fields.nth(5)?)?;
    let start_ticks = number(fields.nth(12)?)?;
    Some(Stat {
        comm,
        state,
        flags,
        start_ticks,
    })
}

/// Decodes `\n` and `\\`, which the kernel writes for newlines and backslashes in a name.
fn unescape(comm: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(comm.len());
    let mut rest = comm;
    loop {
        rest = match rest {
            [b'\\', b'n', rest @ ..] => {
                plain.push(b'\n');
                rest
            }
            [b'\\', b'\\', rest @ ..] => {
                plain.push(b'\\');
                rest
            }
            [byte, rest @ ..] => {
                plain.push(*byte);
                rest
            }
            [] => return plain,
        };
    }
}

/// Parses lines of the form `[<0>] symbol+0xoffset/0xsize [module]`.
fn parse_stack(text: &[u8]) -> Vec<CodePlace> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(parse_frame).take(MAX_FRAMES).collect()
}

fn parse_frame(line: &[u8]) -> Option<CodePlace> {
    let (address, text) = split_once(line.strip_prefix(b"[<")?, b']')?;
    // Kernels before 4.12 or so end a stack with this.
    if address == b"ffffffffffffffff>" || !address.ends_with(b">") {
        return None;
    }
    let text = text.trim_ascii();
    let (place, module) = match text.strip_suffix(b"]").and_then(|text| {
        let open = text.windows(2).rposition(|pair| pair == b" [")?;
        Some((text.get(..open)?, text.get(open + 2..)?))
    }) {
        Some((place, module)) => (place, Some(lossy(module))),
        None => (text, None),
    };
    if place.is_empty() {
        return None;
    }
    let bounds = place
        .iter()
        .rposition(|byte| *byte == b'+')
        .and_then(|plus| {
            let (offset, size) = split_once(place.get(plus + 1..)?, b'/')?;
            Some((place.get(..plus)?, hexadecimal(offset)?, hexadecimal(size)?))
        });
    Some(match bounds {
        Some((symbol, offset, size)) => CodePlace {
            name: lossy(symbol),
            offset: Some(offset),
            size: Some(size),
            module,
        },
        None => CodePlace {
            name: lossy(place),
            offset: None,
            size: None,
            module,
        },
    })
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text.strip_prefix(b"0x")?).ok()?;
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|_| !digits.starts_with('+'))
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..index)?, text.get(index + 1..)?))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The directories whose names are numbers, in numeric order.
fn read_ids(directory: &Path) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bounded_read::open_unwaiting(path)?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<Reading<Vec<u8>>, ProcError> {
    sort_out(path, read_bytes(path))
}

/// Classifies the errors of reading a task's file. A task may exit at any time: ENOENT on lookup,
/// ESRCH on read. EPERM and EACCES both mean missing permission.
fn sort_out<T>(path: &Path, result: io::Result<T>) -> Result<Reading<T>, ProcError> {
    match result {
        Ok(value) => Ok(Reading::Got(value)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Reading::Absent),
        Err(source) if source.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            Ok(Reading::Absent)
        }
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => Ok(Reading::Denied),
        Err(source) => Err(ProcError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
