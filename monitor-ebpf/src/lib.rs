//! Types shared between the BPF programs and user space: the records of the ring buffer and of the
//! task iterator, and the kinds that index the counters.
//!
//! All of them are `repr(C)`, of fixed size and without padding, so that the BPF programs can write
//! a record as bytes and user space can read it as bytes. `Pod` refuses padding at compile time,
//! `tests::layout` checks the sizes.
#![no_std]

mod event_kind;
mod report_line;

use bytemuck::{Pod, Zeroable};

pub use event_kind::{EventKind, Hook, Site, taint};
pub use report_line::may_begin_report;

/// Longest module (and so patch) name including its NUL: `MODULE_NAME_LEN`
/// (include/linux/moduleparam.h: `64 - sizeof(unsigned long)`, 5.10 to 7.2).
pub const MODULE_NAME_LEN: usize = 56;
/// Longest function name kept. `KSYM_NAME_LEN` is 512 since 6.1, but a longer name is cut here,
/// because every function of a patch has a buffer of this size.
pub const FUNC_NAME_LEN: usize = 128;
/// `TASK_COMM_LEN` (include/linux/sched.h, 5.10 to 7.2).
pub const TASK_COMM_LEN: usize = 16;
/// Stack frames kept of a pending task; livepatch itself looks at 100 at most
/// (`MAX_STACK_ENTRIES`, kernel/livepatch/transition.c).
pub const STACK_FRAMES: usize = 100;
/// An offset that was not found in the running kernel's BTF.
pub const UNKNOWN_OFFSET: u32 = u32::MAX;
/// Functions read for each task of the iterator. The walk continues with the next task, and
/// with the next scan if there are more functions: the verifier sees a short loop whatever the
/// size of a patch. (One idle task is read for each task: every CPU has several kernel
/// threads.)
pub const FUNCS_PER_STEP: u32 = 2;

/// Longest line kept of a [`CrashEvent`]; the whole report is in the kernel's log.
pub const CRASH_TEXT_LEN: usize = 200;

/// One record of the ring buffer, of a kind that is a crash signal.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CrashEvent {
    /// `CLOCK_BOOTTIME` in nanoseconds (`bpf_ktime_get_boot_ns`).
    pub time_ns: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// The flag of [`EventKind::AddTaint`]; otherwise 0.
    pub flag: u32,
    /// The kernel's line, NUL-terminated, cut to fit; empty if there is none.
    pub text: [u8; CRASH_TEXT_LEN],
}

/// One record of the ring buffer, of a kind that is a step of a patch's life.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// `CLOCK_BOOTTIME` in nanoseconds (`bpf_ktime_get_boot_ns`).
    pub time_ns: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// `klp_target_state` or the argument of `klp_init_transition`: 1 patched, 0 unpatched, -1 none
    /// or unknown.
    pub target_state: i32,
    /// `klp_signals_cnt` at entry; `u32::MAX` if unknown.
    pub attempt: u32,
    /// Thread that made the call.
    pub pid: u32,
    /// 1 if the patch replaces the others, 0 if not, `u32::MAX` if unknown.
    pub replace: u32,
    /// Zero; keeps the record free of padding.
    pub reserved: u32,
    /// The patch (its module's name), NUL-terminated; empty if unknown.
    pub patch: [u8; MODULE_NAME_LEN],
    /// The object or module concerned; empty for vmlinux and if there is none.
    pub object: [u8; MODULE_NAME_LEN],
}

/// The kinds of record that the task iterator writes, each after a [`RecordHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// A [`ScanStart`]: always the first record.
    Start = 1,
    /// A [`FuncRecord`]: a function that the transition checks stacks for.
    Func = 2,
    /// A [`TaskRecord`]: a task that has not reached the target state.
    Task = 3,
    /// No body: every function has been written. If it is missing, the list is incomplete.
    FuncsEnd = 4,
    /// No body: every idle task has been visited. If it is missing, some idle tasks were not.
    IdleEnd = 5,
}

/// What a scan of the task iterator covers, set by user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ScanMode {
    /// The transition, its functions, and the tasks that have not switched.
    Pending = 0,
    /// More of the last scan's functions, no tasks.
    MoreFuncs = 1,
    /// Every task except the idle ones, whether or not a transition runs; no functions.
    EveryTask = 2,
}

/// Precedes every record of the task iterator.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RecordHeader {
    /// A [`RecordKind`].
    pub kind: u32,
    /// Bytes that follow this header.
    pub size: u32,
}

/// The state of the transition when a scan began.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ScanStart {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub time_ns: u64,
    /// 1 while a transition runs (`klp_transition_patch` is set).
    pub active: u32,
    /// `klp_target_state`.
    pub target_state: i32,
    /// `klp_signals_cnt`: attempts since the start or the last reversal.
    pub attempts: u32,
    /// Zero; keeps the record free of padding.
    pub reserved: u32,
    /// The patch in transition, NUL-terminated.
    pub patch: [u8; MODULE_NAME_LEN],
}

/// A function that livepatch looks for on the stacks of pending tasks: the code
/// in force that must be left (klp_check_stack_func, kernel/livepatch/transition.c).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FuncRecord {
    /// First address of the code in force; 0 where it cannot be read.
    pub address: u64,
    /// Its length in bytes.
    pub size: u64,
    /// The object, NUL-terminated; empty for vmlinux.
    pub object: [u8; MODULE_NAME_LEN],
    /// The patched function's name (`old_name`), NUL-terminated, cut to fit.
    pub function: [u8; FUNC_NAME_LEN],
}

/// A task that has not reached the target state.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TaskRecord {
    /// `task_struct.start_boottime`, nanoseconds.
    pub start_boottime_ns: u64,
    /// Id of the task's cgroup in the unified hierarchy; 0 if unknown.
    pub cgroup_id: u64,
    /// Thread id, 0 for an idle task.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// `task_struct.__state`; `u32::MAX` if unknown.
    pub state: u32,
    /// `task_struct.flags` (PF_*).
    pub flags: u32,
    /// `task_struct.patch_state`: -1 idle, 0 unpatched, 1 patched.
    pub patch_state: i32,
    /// 1 on a CPU, 0 not, `u32::MAX` if unknown.
    pub on_cpu: u32,
    /// The CPU of an idle task; `u32::MAX` for the others.
    pub idle_cpu: u32,
    /// Frames used in `stack`; 0 if the kernel gave none.
    pub stack_len: u32,
    /// `comm`, NUL-terminated: arbitrary bytes.
    pub comm: [u8; TASK_COMM_LEN],
    /// Return addresses, the innermost first.
    pub stack: [u64; STACK_FRAMES],
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    /// Sizes are the sums of the fields: no padding, so no uninitialised byte is copied.
    #[test]
    fn layout() {
        assert_eq!(size_of::<Event>(), 8 + 6 * 4 + 2 * MODULE_NAME_LEN);
        assert_eq!(offset_of!(Event, patch), 32);
        assert_eq!(offset_of!(Event, object), 88);
        assert_eq!(size_of::<CrashEvent>(), 8 + 2 * 4 + CRASH_TEXT_LEN);
        assert_eq!(offset_of!(CrashEvent, kind), offset_of!(Event, kind));
        assert_eq!(size_of::<RecordHeader>(), 8);
        assert_eq!(size_of::<ScanStart>(), 8 + 4 * 4 + MODULE_NAME_LEN);
        assert_eq!(
            size_of::<FuncRecord>(),
            16 + MODULE_NAME_LEN + FUNC_NAME_LEN
        );
        assert_eq!(
            size_of::<TaskRecord>(),
            16 + 8 * 4 + TASK_COMM_LEN + 8 * STACK_FRAMES
        );
        assert_eq!(offset_of!(TaskRecord, stack), 64);
        for align in [
            align_of::<Event>(),
            align_of::<ScanStart>(),
            align_of::<FuncRecord>(),
            align_of::<TaskRecord>(),
        ] {
            assert_eq!(align, 8);
        }
    }

    /// What may come before the end of the first attempt, and that attempt, do not wake the
    /// monitor.
    #[test]
    fn the_start_of_a_transition_wakes_nobody() {
        let sleeping = [
            EventKind::EnablePatch,
            EventKind::InitTransition,
            EventKind::TryCompleteTransition,
            EventKind::ReverseTransition,
            EventKind::PatchObject,
            EventKind::UnpatchObject,
            EventKind::ModuleComing,
        ];
        for kind in EventKind::ALL {
            assert_eq!(kind.wakes(0), !sleeping.contains(&kind), "{}", kind.name());
        }
        assert!(EventKind::TryCompleteTransition.wakes(1));
        assert!(!EventKind::ReverseTransition.wakes(1));
    }

    #[test]
    fn kinds_number_themselves() {
        for (number, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(EventKind::from_number(kind as u32), Some(kind));
        }
        assert_eq!(EventKind::from_number(u32::MAX), None);
    }
}
