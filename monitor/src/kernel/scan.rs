//! Decodes the records of the task iterator into a [`Scan`].

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use livepatch_monitor_ebpf::{FuncRecord, RecordHeader, RecordKind, ScanStart, TaskRecord};

use super::{
    events::text,
    kallsyms::{self, Kallsyms, KallsymsError},
};
use livepatch_core::{
    blockers::{CheckedFunc, Frame, PendingTask, Scan, ScanSource, Symbol, TaskState},
    function_ref::{CodePlace, FunctionRef},
    patch::VMLINUX,
    transition::{BootTime, Direction},
};

/// `PF_KTHREAD` (include/linux/sched.h, 5.10 to 7.2).
const PF_KTHREAD: u32 = 0x0020_0000;

/// The records are not a valid scan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// A record is shorter than its size field says.
    #[error("task scan: record {number} of kind {kind} is cut short after {left} bytes")]
    Truncated {
        /// The record's number, from 0.
        number: usize,
        /// The number of its kind.
        kind: u32,
        /// Bytes that are left.
        left: usize,
    },
    /// A record of an unknown kind, or of the wrong size for its kind.
    #[error(
        "task scan: record {number} has kind {kind} and {size} bytes: the BPF programs are from another build"
    )]
    Unknown {
        /// The record's number, from 0.
        number: usize,
        /// The number of its kind.
        kind: u32,
        /// Its size in bytes.
        size: u32,
    },
    /// The first record is missing.
    #[error("task scan: the kernel wrote no start record")]
    NoStart,
}

/// Decodes a whole scan; `None` if no transition runs. `bpf_frames_reliable` says whether this
/// kernel's unwinder walks BPF frames reliably.
///
/// # Errors
/// A record is cut short, of an unknown kind, or the start is missing.
pub fn decode(bytes: &[u8], bpf_frames_reliable: bool) -> Result<Option<Scan>, ScanError> {
    let records = Records::read(bytes)?;
    let Records {
        start,
        mut funcs,
        funcs_end,
        tasks,
        idle_end,
    } = records;
    let Some(direction) = Direction::from_target_state(start.target_state) else {
        return Ok(None);
    };
    if start.active == 0 {
        return Ok(None);
    }
    // A function without an address may be on any stack.
    let located = funcs.len();
    funcs.retain(|func| func.range.as_ref().is_some_and(|range| range.start != 0));
    let funcs_lost = funcs.len() < located;
    let idle_seen = tasks
        .iter()
        .any(|task: &PendingTask| task.idle_cpu.is_some());
    Ok(Some(Scan {
        time: BootTime::from_nanos(start.time_ns),
        patch: text(&start.patch).unwrap_or_default(),
        direction,
        attempts: (start.attempts != u32::MAX).then_some(start.attempts),
        funcs: (funcs_end || !funcs.is_empty()).then_some(funcs),
        funcs_truncated: !funcs_end || funcs_lost,
        idle_unknown: !idle_end && !idle_seen,
        idle_truncated: !idle_end && idle_seen,
        source: ScanSource::Iterator,
        // Not needed: the functions have addresses.
        patches: Vec::new(),
        bpf_frames_reliable,
        tasks,
    }))
}

/// Decodes a scan of all tasks, whether or not a transition runs.
///
/// # Errors
/// Same as [`decode`].
pub fn decode_tasks(bytes: &[u8]) -> Result<Vec<PendingTask>, ScanError> {
    Ok(Records::read(bytes)?.tasks)
}

/// The records of a scan by kind.
struct Records {
    start: ScanStart,
    funcs: Vec<CheckedFunc>,
    funcs_end: bool,
    tasks: Vec<PendingTask>,
    idle_end: bool,
}

impl Records {
    fn read(bytes: &[u8]) -> Result<Self, ScanError> {
        let mut start: Option<ScanStart> = None;
        let (mut funcs, mut tasks) = (Vec::<CheckedFunc>::new(), Vec::new());
        let (mut funcs_end, mut idle_end) = (false, false);
        let mut rest = bytes;
        let mut number = 0;
        while !rest.is_empty() {
            let (header, body) = take::<RecordHeader>(rest).ok_or(ScanError::Truncated {
                number,
                kind: 0,
                left: rest.len(),
            })?;
            let size = usize::try_from(header.size).unwrap_or(usize::MAX);
            let Some((body, next)) = body.split_at_checked(size) else {
                return Err(ScanError::Truncated {
                    number,
                    kind: header.kind,
                    left: body.len(),
                });
            };
            let wrong = ScanError::Unknown {
                number,
                kind: header.kind,
                size: header.size,
            };
            match header.kind {
                k if k == RecordKind::Start as u32 => start = Some(exactly(body).ok_or(wrong)?),
                k if k == RecordKind::Func as u32 => funcs.push(func(&exactly(body).ok_or(wrong)?)),
                k if k == RecordKind::Task as u32 => tasks.push(task(&exactly(body).ok_or(wrong)?)),
                k if k == RecordKind::FuncsEnd as u32 && body.is_empty() => funcs_end = true,
                k if k == RecordKind::IdleEnd as u32 && body.is_empty() => idle_end = true,
                _ => return Err(wrong),
            }
            rest = next;
            number += 1;
        }
        Ok(Self {
            start: start.ok_or(ScanError::NoStart)?,
            funcs,
            funcs_end,
            tasks,
            idle_end,
        })
    }
}

/// Splits a value off the front.
fn take<T: bytemuck::Pod>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    Some((bytemuck::try_pod_read_unaligned(head).ok()?, rest))
}

/// The value, if there are exactly as many bytes as it has.
fn exactly<T: bytemuck::Pod>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes).ok()
}

fn func(record: &FuncRecord) -> CheckedFunc {
    CheckedFunc {
        function: FunctionRef {
            object: text(&record.object).unwrap_or_else(|| VMLINUX.to_owned()),
            function: text(&record.function).unwrap_or_default(),
        },
        range: Some(record.address..record.address.saturating_add(record.size)),
    }
}

fn task(record: &TaskRecord) -> PendingTask {
    let frames = usize::try_from(record.stack_len).unwrap_or(0);
    let comm = record
        .comm
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    PendingTask {
        tid: record.pid,
        tgid: record.tgid,
        comm: comm.to_vec(),
        kthread: record.flags & PF_KTHREAD != 0,
        idle_cpu: (record.idle_cpu != u32::MAX).then_some(record.idle_cpu),
        on_cpu: match record.on_cpu {
            u32::MAX => None,
            on_cpu => Some(on_cpu != 0),
        },
        state: if record.state == u32::MAX {
            TaskState::Unknown
        } else {
            TaskState::from_bits(record.state)
        },
        patch_state: record.patch_state,
        cgroup_id: (record.cgroup_id != 0).then_some(record.cgroup_id),
        start_ns: (record.start_boottime_ns != 0).then_some(record.start_boottime_ns),
        stack: record
            .stack
            .iter()
            .take(frames)
            .map(|&address| Frame {
                address: Some(address),
                symbol: None,
            })
            .collect(),
    }
}

/// Finds the names of addresses and remembers them while a transition runs: the symbol table is
/// read only for new addresses.
#[derive(Debug, Default)]
pub struct Symbols {
    table: Option<Kallsyms>,
    known: HashMap<u64, Option<CodePlace>>,
}

/// Most remembered addresses. If there are more, all are forgotten, so that memory stays bounded.
const MOST_ADDRESSES: usize = 65_536;

impl Symbols {
    /// Opens the symbol table in advance, because opening it may not be allowed later.
    ///
    /// # Errors
    /// The symbol table cannot be opened.
    pub fn open(&mut self, procfs: &Path) -> Result<&mut Kallsyms, KallsymsError> {
        match self.table.take() {
            Some(open) => Ok(self.table.insert(open)),
            None => Ok(self.table.insert(Kallsyms::open(procfs)?)),
        }
    }

    /// Adds names to the frames of a scan.
    ///
    /// # Errors
    /// The symbol table cannot be read; the frames then have only addresses.
    pub fn name_frames(&mut self, procfs: &Path, scan: &mut Scan) -> Result<(), KallsymsError> {
        let frames = || scan.tasks.iter().flat_map(|task| &task.stack);
        let fresh: BTreeSet<u64> = frames()
            .filter_map(|frame| frame.address)
            .filter(|address| !self.known.contains_key(address))
            .collect();
        if !fresh.is_empty() {
            if self.known.len() + fresh.len() > MOST_ADDRESSES {
                self.known.clear();
            }
            let mut found = kallsyms::resolve(self.open(procfs)?, &fresh)?;
            self.known.extend(
                fresh
                    .into_iter()
                    .map(|address| (address, found.remove(&address))),
            );
        }
        for frame in scan.tasks.iter_mut().flat_map(|task| &mut task.stack) {
            let Some(address) = frame.address else {
                continue;
            };
            let Some(Some(resolved)) = self.known.get(&address) else {
                continue;
            };
            frame.symbol = Some(Symbol {
                place: resolved.clone(),
                generated: kallsyms::is_generated(resolved),
            });
        }
        Ok(())
    }

    /// Forgets all names: modules may have been loaded and unloaded.
    pub fn clear(&mut self) {
        self.known = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::{Pod, Zeroable, bytes_of};
    use proptest::prelude::*;

    fn put<T: Pod>(bytes: &mut Vec<u8>, kind: RecordKind, body: &T) {
        let size = u32::try_from(size_of::<T>()).unwrap();
        bytes.extend_from_slice(bytes_of(&RecordHeader {
            kind: kind as u32,
            size,
        }));
        bytes.extend_from_slice(bytes_of(body));
    }

    fn mark(bytes: &mut Vec<u8>, kind: RecordKind) {
        bytes.extend_from_slice(bytes_of(&RecordHeader {
            kind: kind as u32,
            size: 0,
        }));
    }

    fn start() -> ScanStart {
        let mut start = ScanStart::zeroed();
        start.active = 1;
        start.target_state = 1;
        start.attempts = 3;
        start.patch[..3].copy_from_slice(b"fix");
        start
    }

    fn whole() -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, RecordKind::Start, &start());
        let mut func = FuncRecord::zeroed();
        (func.address, func.size) = (0x1000, 0x20);
        func.function[..4].copy_from_slice(b"hold");
        put(&mut bytes, RecordKind::Func, &func);
        mark(&mut bytes, RecordKind::FuncsEnd);
        let mut task = TaskRecord::zeroed();
        (task.pid, task.flags, task.idle_cpu, task.on_cpu) = (7, PF_KTHREAD, u32::MAX, 0);
        task.comm[..5].copy_from_slice(b"kw\"\n\xff");
        (task.stack[0], task.stack[1], task.stack_len) = (0x1010, 0x2000, 2);
        put(&mut bytes, RecordKind::Task, &task);
        mark(&mut bytes, RecordKind::IdleEnd);
        bytes
    }

    #[test]
    fn reads_a_scan() {
        let scan = decode(&whole(), false).unwrap().unwrap();
        assert_eq!(
            (scan.patch.as_str(), scan.direction, scan.attempts),
            ("fix", Direction::Patch, Some(3))
        );
        assert!(!scan.funcs_truncated && !scan.idle_unknown);
        let funcs = scan.funcs.unwrap();
        assert_eq!(funcs[0].function.object, VMLINUX);
        assert_eq!(funcs[0].range, Some(0x1000..0x1020));
        let task = &scan.tasks[0];
        assert_eq!(
            (task.tid, task.kthread, task.on_cpu, task.idle_cpu),
            (7, true, Some(false), None)
        );
        assert_eq!(task.comm, b"kw\"\n\xff");
        assert_eq!(
            task.stack
                .iter()
                .map(|frame| frame.address)
                .collect::<Vec<_>>(),
            [Some(0x1010), Some(0x2000)]
        );
    }

    #[test]
    fn no_transition_is_no_scan() {
        let mut bytes = Vec::new();
        put(
            &mut bytes,
            RecordKind::Start,
            &ScanStart {
                active: 0,
                ..start()
            },
        );
        assert_eq!(decode(&bytes, false), Ok(None));
        assert_eq!(decode(&[], false), Err(ScanError::NoStart));
    }

    #[test]
    fn all_tasks_without_a_transition() {
        let mut bytes = Vec::new();
        let idle = ScanStart {
            active: 0,
            target_state: -1,
            ..start()
        };
        put(&mut bytes, RecordKind::Start, &idle);
        let mut task = TaskRecord::zeroed();
        (task.pid, task.idle_cpu, task.patch_state) = (9, u32::MAX, -1);
        put(&mut bytes, RecordKind::Task, &task);
        assert_eq!(decode_tasks(&bytes).unwrap()[0].tid, 9);
        assert_eq!(decode(&bytes, false), Ok(None));
        assert_eq!(decode_tasks(&[]), Err(ScanError::NoStart));
    }

    #[test]
    fn a_missing_end_mark_is_said() {
        let mut bytes = Vec::new();
        put(&mut bytes, RecordKind::Start, &start());
        let scan = decode(&bytes, false).unwrap().unwrap();
        assert!(scan.funcs_truncated && scan.idle_unknown && scan.funcs.is_none());
    }

    #[test]
    fn every_cut_is_an_error_or_shorter() {
        let bytes = whole();
        let complete = decode(&bytes, false).unwrap().unwrap();
        for length in 0..bytes.len() {
            match decode(&bytes[..length], false) {
                Ok(Some(scan)) => assert!(scan != complete),
                Ok(None) => panic!("a cut scan at {length} claims that no transition runs"),
                Err(_) => {}
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = decode(&bytes, false);
        }

        #[test]
        fn never_panics_when_damaged(at in 0usize..1200, value in any::<u8>()) {
            let mut bytes = whole();
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            let _ = decode(&bytes, false);
        }
    }
}
