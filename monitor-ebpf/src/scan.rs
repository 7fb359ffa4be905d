//! The task iterator: in one read, the transition, the functions it looks for on
//! stacks, and every task that has not reached the target state.

use core::ffi::{c_long, c_void};

use aya_ebpf::{
    helpers::generated::{bpf_get_task_stack, bpf_ktime_get_boot_ns, bpf_seq_write},
    macros::map,
    maps::{Array, PerCpuArray},
};
use livepatch_monitor_ebpf::{
    FUNC_NAME_LEN, FUNCS_PER_STEP, FuncRecord, MODULE_NAME_LEN, RecordHeader, RecordKind,
    STACK_FRAMES, ScanMode, ScanStart, TASK_COMM_LEN, TaskRecord, UNKNOWN_OFFSET,
};

use crate::kernel::{self, member, member_address, read, read_patch_name, read_string, variable};

/// `struct bpf_iter_meta` (include/linux/bpf.h, 5.8 to 7.2).
#[repr(C)]
struct IterMeta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

/// The context of an `iter/task` program (kernel/bpf/task_iter.c, 5.8 to 7.2).
#[repr(C)]
struct IterTask {
    meta: *mut IterMeta,
    task: *mut c_void,
}

#[repr(C)]
struct Framed<T> {
    header: RecordHeader,
    body: T,
}

/// The state of the running scan: the transition that tasks are compared with, and where the
/// walks over functions and idle tasks continue. User space runs one scan at a time.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Cursor {
    patch: u64,
    object_head: u64,
    object_node: u64,
    object: u64,
    func_head: u64,
    func_node: u64,
    /// The function after the one that [`scan_next_func`] has filled in.
    func_next: u64,
    /// The task that [`scan_fill_task`] is to look at.
    task: u64,
    idle_cpu: u64,
    funcs_done: u32,
    idle_done: u32,
    /// A [`ScanMode`].
    mode: u32,
    target: i32,
}

#[map]
static CURSOR: Array<Cursor> = Array::with_max_entries(2, 0);
/// The running scan.
const NOW: u32 = 0;
/// The state of the scan before the iterator's current task, to return to ([`rewind`]).
const BEFORE: u32 = 1;
/// A [`ScanMode`], set by user space.
#[map]
static SCAN_MODE: Array<u32> = Array::with_max_entries(1, 0);
// Records are larger than a program's stack.
#[map]
static FUNC: PerCpuArray<Framed<FuncRecord>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TASK: PerCpuArray<Framed<TaskRecord>> = PerCpuArray::with_max_entries(1, 0);

/// The buffer has overflowed: the kernel drops what was written for this task, and calls the
/// program for the same task again.
struct Overflow;

#[inline(always)]
fn write<T>(seq: *mut c_void, kind: RecordKind, record: *mut Framed<T>) -> Result<(), Overflow> {
    // SAFETY: `record` is a live, initialised record; `seq` is the iterator's own.
    let ret: c_long = unsafe {
        (*record).header.kind = kind as u32;
        (*record).header.size = size_of::<T>() as u32;
        bpf_seq_write(seq.cast(), record.cast(), size_of::<Framed<T>>() as u32)
    };
    if ret == 0 { Ok(()) } else { Err(Overflow) }
}

#[inline(always)]
fn write_mark(seq: *mut c_void, kind: RecordKind) -> Result<(), Overflow> {
    let mut record = Framed {
        header: RecordHeader { kind: 0, size: 0 },
        body: (),
    };
    write(seq, kind, &raw mut record)
}

// A function that runs for each function or pending task and has many branches is a global
// function without arguments: the verifier checks it once, not on every path that leads to it
// (since 5.6). Its arguments are in `CURSOR`; it takes no pointer of the iterator's.

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn scan_tasks(ctx: *mut IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; its pointers are BTF-typed, so
    // the verifier itself checks these loads.
    let (seq, number, task) = unsafe { ((*(*ctx).meta).seq, (*(*ctx).meta).seq_num, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let Some(cursor) = CURSOR.get_ptr_mut(NOW) else {
        return 0;
    };
    if number == 0 && begin(seq, cursor).is_err() {
        return 0;
    }
    // SAFETY: the map's element; scans do not overlap.
    let (mode, target, mut walks) = unsafe {
        let cursor = &*cursor;
        let left = (cursor.funcs_done & cursor.idle_done) == 0;
        (cursor.mode, cursor.target, left && cursor.patch != 0)
    };
    if mode == ScanMode::EveryTask as u32 {
        walks = false;
    } else {
        if walks && walk(seq, cursor, mode).is_err() {
            undo(cursor);
            return 0;
        }
        // SAFETY: as above.
        let patch = unsafe { (*cursor).patch };
        if patch == 0 || mode == ScanMode::MoreFuncs as u32 || switched(task, target) {
            return 0;
        }
    }
    if write_task(seq, cursor, task).is_err() && walks {
        undo(cursor);
    }
    0
}

/// Whether a task has reached the target, or takes part in no transition
/// (`KLP_UNDEFINED`, -1). Most tasks have, and cost nothing more.
#[inline(always)]
fn switched(task: *mut c_void, target: i32) -> bool {
    let offset = kernel::TASK_PATCH_STATE.load();
    if offset == UNKNOWN_OFFSET {
        return true;
    }
    // SAFETY: the iterator's own pointer, plus the offset of a member: a constant by the
    // time of the verifier, which knows the structure and checks the load.
    let state: i32 = unsafe {
        task.cast::<u8>()
            .add(offset as usize)
            .cast::<i32>()
            .read_volatile()
    };
    state == target || state == -1
}

/// Starts a scan, or continues with the functions of the last one.
#[inline(always)]
fn begin(seq: *mut c_void, cursor: *mut Cursor) -> Result<(), Overflow> {
    let mode = SCAN_MODE.get(0).copied().unwrap_or(0);
    let patch = variable::<u64>(&kernel::KLP_TRANSITION_PATCH).unwrap_or(0);
    let target = variable::<i32>(&kernel::KLP_TARGET_STATE).unwrap_or(-1);
    // SAFETY: the map's element; scans do not overlap.
    let cursor = unsafe { &mut *cursor };
    cursor.mode = mode;
    if mode == ScanMode::MoreFuncs as u32 {
        return Ok(());
    }
    *cursor = Cursor {
        patch,
        mode,
        target,
        ..Cursor::default()
    };
    start(seq, patch, target)
}

/// Undoes the progress of [`walk`]: when the buffer overflows, the kernel drops everything that was
/// written for this task, and calls the program for it again.
#[inline(always)]
fn undo(cursor: *mut Cursor) {
    if let Some(before) = CURSOR.get_ptr_mut(BEFORE) {
        // SAFETY: the map's two elements.
        unsafe { *cursor = *before };
    }
}

/// Continues the walks over the functions and the idle tasks.
#[inline(always)]
fn walk(seq: *mut c_void, cursor: *mut Cursor, mode: u32) -> Result<(), Overflow> {
    let Some(before) = CURSOR.get_ptr_mut(BEFORE) else {
        return Ok(());
    };
    // SAFETY: the map's two elements. No reference to the first is held across a call, because the
    // callee changes it.
    unsafe {
        *before = *cursor;
        if scan_is_current() == 0 {
            // The rest would belong to another transition. The end marks remain missing.
            (*cursor).patch = 0;
            return Ok(());
        }
        if (*cursor).funcs_done == 0 {
            walk_funcs(seq, cursor)?;
        }
        if mode == ScanMode::MoreFuncs as u32 || (*cursor).idle_done != 0 {
            return Ok(());
        }
    }
    walk_idle(seq, cursor)
}

/// Whether the patch that the scan began with is still in transition.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_is_current() -> u32 {
    let Some(cursor) = CURSOR.get_ptr_mut(NOW) else {
        return 0;
    };
    // SAFETY: the map's element.
    let cursor = unsafe { &*cursor };
    let patch = variable::<u64>(&kernel::KLP_TRANSITION_PATCH).unwrap_or(0);
    u32::from(patch != 0 && patch == cursor.patch)
}

/// Writes the iterator's task, if it is pending or the scan has no target state.
#[inline(always)]
fn write_task(seq: *mut c_void, cursor: *mut Cursor, task: *mut c_void) -> Result<(), Overflow> {
    let Some(record) = TASK.get_ptr_mut(0) else {
        return Ok(());
    };
    // SAFETY: the map's element.
    unsafe { (*cursor).task = task as u64 };
    if scan_fill_task() == 0 {
        return Ok(());
    }
    // SAFETY: `record` is this CPU's element; `task` is the iterator's own pointer.
    unsafe {
        let stack: *mut c_void = (&raw mut (*record).body.stack).cast();
        let ret = bpf_get_task_stack(task.cast(), stack, (STACK_FRAMES * 8) as u32, 0);
        (*record).body.stack_len = if ret > 0 { ret as u32 / 8 } else { 0 };
    }
    write(seq, RecordKind::Task, record)
}

#[inline(always)]
fn start(seq: *mut c_void, patch: u64, target: i32) -> Result<(), Overflow> {
    let mut record = Framed {
        header: RecordHeader { kind: 0, size: 0 },
        body: ScanStart {
            // SAFETY: the helper takes nothing and only returns a number.
            time_ns: unsafe { bpf_ktime_get_boot_ns() },
            active: u32::from(patch != 0),
            target_state: target,
            attempts: variable::<u32>(&kernel::KLP_SIGNALS_CNT).unwrap_or(u32::MAX),
            reserved: 0,
            patch: [0; MODULE_NAME_LEN],
        },
    };
    read_patch_name(&raw mut record.body.patch, patch);
    write(seq, RecordKind::Start, &raw mut record)
}

/// The result of one step of the walk over the functions.
const NO_MORE: u32 = 0;
const FUNC_FILLED: u32 = 1;
const ALL_FUNCS: u32 = 2;
const NEXT_OBJECT: u32 = 3;

#[inline(always)]
fn walk_funcs(seq: *mut c_void, cursor: *mut Cursor) -> Result<(), Overflow> {
    let Some(record) = FUNC.get_ptr_mut(0) else {
        return Ok(());
    };
    for _ in 0..FUNCS_PER_STEP {
        match scan_next_func() {
            FUNC_FILLED => {
                write(seq, RecordKind::Func, record)?;
                // SAFETY: the map's element.
                unsafe { (*cursor).func_node = (*cursor).func_next };
            }
            ALL_FUNCS => {
                // SAFETY: as above.
                unsafe { (*cursor).funcs_done = 1 };
                return write_mark(seq, RecordKind::FuncsEnd);
            }
            NEXT_OBJECT => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// One step along klp_patch.obj_list and klp_object.func_list, as klp_check_stack walks
/// them: the next object, or the next function in `FUNC`. No lock is held: a list that
/// changes meanwhile reads as garbage at worst, and a bad address ends the walk without
/// the end mark.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_next_func() -> u32 {
    let Some(cursor) = CURSOR.get_ptr_mut(NOW) else {
        return NO_MORE;
    };
    // SAFETY: the map's element; scans do not overlap.
    let cursor = unsafe { &mut *cursor };
    if cursor.func_node == cursor.func_head {
        return next_object(cursor);
    }
    if cursor.func_node == 0 {
        return NO_MORE;
    }
    let func = cursor
        .func_node
        .wrapping_sub(u64::from(kernel::KLP_FUNC_NODE.load()));
    cursor.func_next = read(cursor.func_node).unwrap_or(0);
    fill_func(cursor.object, func, cursor.target);
    FUNC_FILLED
}

/// Enters the next object, or the first.
#[inline(always)]
fn next_object(cursor: &mut Cursor) -> u32 {
    if cursor.object_head == 0 {
        let Some(head) = member_address(cursor.patch, &kernel::KLP_PATCH_OBJ_LIST) else {
            return NO_MORE;
        };
        cursor.object_head = head;
        cursor.object_node = read(head).unwrap_or(0);
    }
    if cursor.object_node == 0 {
        return NO_MORE;
    }
    if cursor.object_node == cursor.object_head {
        return ALL_FUNCS;
    }
    let node = cursor.object_node;
    cursor.object = node.wrapping_sub(u64::from(kernel::KLP_OBJECT_NODE.load()));
    cursor.object_node = read(node).unwrap_or(0);
    let Some(head) = member_address(cursor.object, &kernel::KLP_OBJECT_FUNC_LIST) else {
        return NO_MORE;
    };
    cursor.func_head = head;
    let name = member::<u64>(cursor.object, &kernel::KLP_OBJECT_NAME).unwrap_or(0);
    let module = member::<u64>(cursor.object, &kernel::KLP_OBJECT_MOD).unwrap_or(0);
    // klp_is_object_loaded: vmlinux, or a module that is loaded.
    let loaded = name == 0 || module != 0;
    cursor.func_node = if loaded {
        read(head).unwrap_or(head)
    } else {
        head
    };
    NEXT_OBJECT
}

/// The code in force that tasks must leave, as klp_check_stack_func determines it
/// (kernel/livepatch/transition.c, 5.10 to 7.2): unpatching, this patch's new function; patching,
/// the function below this one on the ftrace_ops' stack, or the original if there is none.
#[inline(always)]
fn fill_func(object: u64, func: u64, target: i32) {
    let Some(record) = FUNC.get_ptr_mut(0) else {
        return;
    };
    // Values, not options: an option's unset payload copied on the stack is a read
    // of uninitialised stack, which the verifier refuses before 6.3.
    let mut owner = func;
    let mut original = false;
    if target != 0 {
        let node = member_address(func, &kernel::KLP_FUNC_STACK_NODE).unwrap_or(0);
        let below = read::<u64>(node).unwrap_or(0);
        let above = read::<u64>(node.wrapping_add(8)).unwrap_or(0);
        // If it is the only entry, both its links point to the list's head.
        original = below == above;
        if !original {
            owner = below.wrapping_sub(u64::from(kernel::KLP_FUNC_STACK_NODE.load()));
        }
    }
    let (address, size) = if original {
        (
            member::<u64>(owner, &kernel::KLP_FUNC_OLD_FUNC).unwrap_or(0),
            member::<u64>(owner, &kernel::KLP_FUNC_OLD_SIZE).unwrap_or(0),
        )
    } else {
        (
            member::<u64>(owner, &kernel::KLP_FUNC_NEW_FUNC).unwrap_or(0),
            member::<u64>(owner, &kernel::KLP_FUNC_NEW_SIZE).unwrap_or(0),
        )
    };
    // SAFETY: `record` is this CPU's element of the map, of the record's size and
    // aligned to 8; programs do not migrate between CPUs while they run.
    unsafe {
        (*record).body.address = address;
        (*record).body.size = size;
        let names: *mut [u64; (MODULE_NAME_LEN + FUNC_NAME_LEN) / 8] =
            (&raw mut (*record).body.object).cast();
        *names = [0; (MODULE_NAME_LEN + FUNC_NAME_LEN) / 8];
        if let Some(name @ 1..) = member::<u64>(object, &kernel::KLP_OBJECT_NAME) {
            read_string(
                (&raw mut (*record).body.object).cast(),
                MODULE_NAME_LEN,
                name,
            );
        }
        if let Some(name) = member::<u64>(func, &kernel::KLP_FUNC_OLD_NAME) {
            read_string(
                (&raw mut (*record).body.function).cast(),
                FUNC_NAME_LEN,
                name,
            );
        }
    }
}

/// Idle tasks are in no task list: they hang off `idle_threads` (kernel/smpboot.c),
/// a per-CPU variable.
#[inline(always)]
fn walk_idle(seq: *mut c_void, cursor: *mut Cursor) -> Result<(), Overflow> {
    let (offsets, threads) = (kernel::PER_CPU_OFFSET.load(), kernel::IDLE_THREADS.load());
    let cpus = u64::from(kernel::POSSIBLE_CPUS.load());
    // SAFETY: the map's element, and this CPU's element of the other; no reference to the first is
    // held across the call, which reads it.
    unsafe {
        let cpu = (*cursor).idle_cpu;
        if offsets == 0 || threads == 0 || cpu >= cpus {
            (*cursor).idle_done = 1;
            // Without the end mark user space takes them as unknown.
            let known = offsets != 0 && threads != 0 && cpus != 0;
            return if known {
                write_mark(seq, RecordKind::IdleEnd)
            } else {
                Ok(())
            };
        }
        let base = read::<u64>(offsets.wrapping_add(cpu * 8)).unwrap_or(0);
        let task = read::<u64>(threads.wrapping_add(base)).unwrap_or(0);
        if base != 0 && task != 0 {
            let Some(record) = TASK.get_ptr_mut(0) else {
                return Ok(());
            };
            (*cursor).task = task;
            if scan_fill_task() != 0 {
                (*record).body.idle_cpu = cpu as u32;
                write(seq, RecordKind::Task, record)?;
            }
        }
        (*cursor).idle_cpu = cpu + 1;
    }
    Ok(())
}

/// Fills `TASK` for the cursor's task, without a stack; 0 if it is not to be shown: it has
/// switched, or the transition is no longer the one that the scan began with.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_fill_task() -> u32 {
    let (Some(cursor), Some(record)) = (CURSOR.get_ptr_mut(NOW), TASK.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: the map's element.
    let (task, mode, target) = unsafe { ((*cursor).task, (*cursor).mode, (*cursor).target) };
    let Some(patch_state) = member::<i32>(task, &kernel::TASK_PATCH_STATE) else {
        return 0;
    };
    let is_pending = patch_state != target && patch_state != -1;
    if mode != ScanMode::EveryTask as u32 && (!is_pending || scan_is_current() == 0) {
        return 0;
    }
    // SAFETY: `record` is this CPU's element of the map, of the record's size.
    unsafe {
        let body = &raw mut (*record).body;
        (*body).patch_state = patch_state;
        (*body).pid = member(task, &kernel::TASK_PID).unwrap_or(0);
        (*body).tgid = member(task, &kernel::TASK_TGID).unwrap_or(0);
        (*body).state = member(task, &kernel::TASK_STATE).unwrap_or(u32::MAX);
        (*body).flags = member(task, &kernel::TASK_FLAGS).unwrap_or(0);
        // An int before 7.x, a u8 since: the low byte is the same in both.
        (*body).on_cpu = member::<u8>(task, &kernel::TASK_ON_CPU).map_or(u32::MAX, u32::from);
        (*body).start_boottime_ns = member(task, &kernel::TASK_START_BOOTTIME).unwrap_or(0);
        (*body).cgroup_id = member::<u64>(task, &kernel::TASK_CGROUPS)
            .and_then(|set| member::<u64>(set, &kernel::CSS_SET_DFL_CGRP))
            .and_then(|cgroup| member::<u64>(cgroup, &kernel::CGROUP_KN))
            .and_then(|node| member::<u64>(node, &kernel::KERNFS_NODE_ID))
            .unwrap_or(0);
        (*body).comm = [0; TASK_COMM_LEN];
        if let Some(comm) = member_address(task, &kernel::TASK_COMM) {
            read_string((&raw mut (*body).comm).cast(), TASK_COMM_LEN, comm);
        }
        (*body).stack_len = 0;
        (*body).idle_cpu = u32::MAX;
    }
    1
}
