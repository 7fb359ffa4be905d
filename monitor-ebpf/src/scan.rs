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
    STACK_FRAMES, ScanMode, ScanStart, TASK_COMM_LEN, TaskRecord,
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

/// Where the walks over functions and idle tasks go on with the next task. User
/// space runs one scan at a time.
#[repr(C)]
#[derive(Clone, Copy)]
struct Cursor {
    patch: u64,
    object_head: u64,
    object_node: u64,
    object: u64,
    func_head: u64,
    func_node: u64,
    funcs_done: u64,
    idle_cpu: u64,
    idle_done: u64,
}

#[map]
static CURSOR: Array<Cursor> = Array::with_max_entries(1, 0);
/// A [`ScanMode`], set by user space.
#[map]
static SCAN_MODE: Array<u32> = Array::with_max_entries(1, 0);
// Records are larger than a program's stack.
#[map]
static FUNC: PerCpuArray<Framed<FuncRecord>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TASK: PerCpuArray<Framed<TaskRecord>> = PerCpuArray::with_max_entries(1, 0);

/// Tells the caller of a walk that the buffer overflowed, so that the kernel
/// drops all this task wrote and shows the same task again.
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

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn scan_tasks(ctx: *mut IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; its pointers are BTF-typed, so
    // the verifier itself checks these loads.
    let (seq, number, task) = unsafe { ((*(*ctx).meta).seq, (*(*ctx).meta).seq_num, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let Some(cursor_ptr) = CURSOR.get_ptr_mut(0) else {
        return 0;
    };
    let patch = variable::<u64>(&kernel::KLP_TRANSITION_PATCH).unwrap_or(0);
    let target = variable::<i32>(&kernel::KLP_TARGET_STATE).unwrap_or(-1);

    // SAFETY: the map's one element; scans do not overlap.
    let mut cursor = unsafe { *cursor_ptr };
    let mode = SCAN_MODE.get(0).copied().unwrap_or(0);
    let resume = mode == ScanMode::MoreFuncs as u32;
    if number == 0 && !resume {
        cursor = Cursor {
            patch,
            object_head: 0,
            object_node: 0,
            object: 0,
            func_head: 0,
            func_node: 0,
            funcs_done: 0,
            idle_cpu: 0,
            idle_done: 0,
        };
        if start(seq, patch, target).is_err() {
            return 0;
        }
    }
    if mode == ScanMode::EveryTask as u32 {
        // SAFETY: as above.
        unsafe { *cursor_ptr = cursor };
        let _ = write_task(seq, task, None);
        return 0;
    }
    // The transition ended, or another took its place, while the scan ran: what
    // is left would belong to something else. The missing end marks say so.
    if patch == 0 || patch != cursor.patch {
        // SAFETY: as above.
        unsafe { *cursor_ptr = cursor };
        return 0;
    }
    if step(seq, &mut cursor, target, task, resume).is_ok() {
        // Only now is the progress real: an overflow shows this task once more.
        // SAFETY: as above.
        unsafe { *cursor_ptr = cursor };
    }
    0
}

#[inline(always)]
fn step(
    seq: *mut c_void,
    cursor: &mut Cursor,
    target: i32,
    task: *mut c_void,
    resume: bool,
) -> Result<(), Overflow> {
    if cursor.funcs_done == 0 {
        walk_funcs(seq, cursor, target)?;
    }
    if resume {
        return Ok(());
    }
    if cursor.idle_done == 0 {
        walk_idle(seq, cursor, target)?;
    }
    write_task(seq, task, Some(target))
}

/// Writes a task that has not reached the target, any where there is none.
#[inline(always)]
fn write_task(seq: *mut c_void, task: *mut c_void, target: Option<i32>) -> Result<(), Overflow> {
    let Some(record) = TASK.get_ptr_mut(0) else {
        return Ok(());
    };
    if !fill_task(record, task as u64, target) {
        return Ok(());
    }
    // SAFETY: `record` is this CPU's element; `task` is the iterator's own pointer.
    unsafe {
        let stack: *mut c_void = (&raw mut (*record).body.stack).cast();
        let ret = bpf_get_task_stack(task.cast(), stack, (STACK_FRAMES * 8) as u32, 0);
        (*record).body.stack_len = if ret > 0 { ret as u32 / 8 } else { 0 };
        (*record).body.idle_cpu = u32::MAX;
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

/// Walks klp_patch.obj_list and klp_object.func_list as klp_check_stack does. No
/// lock is held: a list that changes meanwhile reads as garbage at worst, and a
/// bad address ends the walk without the end mark.
#[inline(always)]
fn walk_funcs(seq: *mut c_void, cursor: &mut Cursor, target: i32) -> Result<(), Overflow> {
    for _ in 0..FUNCS_PER_STEP {
        if cursor.func_node == cursor.func_head {
            // The next object, or the first.
            if cursor.object_head == 0 {
                let Some(head) = member_address(cursor.patch, &kernel::KLP_PATCH_OBJ_LIST) else {
                    return Ok(());
                };
                cursor.object_head = head;
                cursor.object_node = read(head).unwrap_or(0);
            }
            if cursor.object_node == 0 {
                return Ok(());
            }
            if cursor.object_node == cursor.object_head {
                cursor.funcs_done = 1;
                return write_mark(seq, RecordKind::FuncsEnd);
            }
            let node = cursor.object_node;
            cursor.object = node.wrapping_sub(u64::from(kernel::KLP_OBJECT_NODE.load()));
            cursor.object_node = read(node).unwrap_or(0);
            let Some(head) = member_address(cursor.object, &kernel::KLP_OBJECT_FUNC_LIST) else {
                return Ok(());
            };
            cursor.func_head = head;
            let name = member::<u64>(cursor.object, &kernel::KLP_OBJECT_NAME).unwrap_or(0);
            let module = member::<u64>(cursor.object, &kernel::KLP_OBJECT_MOD).unwrap_or(0);
            // klp_is_object_loaded: not a module, or a module that is there.
            let loaded = name == 0 || module != 0;
            cursor.func_node = if loaded {
                read(head).unwrap_or(head)
            } else {
                head
            };
            continue;
        }
        if cursor.func_node == 0 {
            return Ok(());
        }
        let func = cursor
            .func_node
            .wrapping_sub(u64::from(kernel::KLP_FUNC_NODE.load()));
        let next = read(cursor.func_node).unwrap_or(0);
        write_func(seq, cursor.object, func, target)?;
        cursor.func_node = next;
    }
    Ok(())
}

/// The code in force that tasks must leave, as klp_check_stack_func has it
/// (kernel/livepatch/transition.c, 5.10 to 7.2): unpatching, this patch's new
/// function; patching, the function below this one on the ftrace_ops' stack, or
/// the original where there is none.
#[inline(always)]
fn write_func(seq: *mut c_void, object: u64, func: u64, target: i32) -> Result<(), Overflow> {
    let Some(record) = FUNC.get_ptr_mut(0) else {
        return Ok(());
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
    write(seq, RecordKind::Func, record)
}

/// Idle tasks are in no task list: they hang off `idle_threads` (kernel/smpboot.c),
/// a per-CPU variable.
#[inline(always)]
fn walk_idle(seq: *mut c_void, cursor: &mut Cursor, target: i32) -> Result<(), Overflow> {
    let (offsets, threads) = (kernel::PER_CPU_OFFSET.load(), kernel::IDLE_THREADS.load());
    let cpus = u64::from(kernel::POSSIBLE_CPUS.load());
    if offsets == 0 || threads == 0 || cpus == 0 {
        return Ok(());
    }
    if cursor.idle_cpu >= cpus {
        cursor.idle_done = 1;
        return write_mark(seq, RecordKind::IdleEnd);
    }
    let cpu = cursor.idle_cpu;
    let base = read::<u64>(offsets.wrapping_add(cpu * 8)).unwrap_or(0);
    let task = read::<u64>(threads.wrapping_add(base)).unwrap_or(0);
    if base != 0 && task != 0 {
        let Some(record) = TASK.get_ptr_mut(0) else {
            return Ok(());
        };
        if fill_task(record, task, Some(target)) {
            // SAFETY: this CPU's element of the map.
            unsafe {
                (*record).body.idle_cpu = cpu as u32;
                (*record).body.stack_len = 0;
            }
            write(seq, RecordKind::Task, record)?;
        }
    }
    cursor.idle_cpu = cpu + 1;
    Ok(())
}

/// Fills all but the stack and `idle_cpu`; false if there is a target and the task has
/// reached it, or takes part in no transition (`KLP_UNDEFINED`, -1).
#[inline(always)]
fn fill_task(record: *mut Framed<TaskRecord>, task: u64, target: Option<i32>) -> bool {
    let Some(patch_state) = member::<i32>(task, &kernel::TASK_PATCH_STATE) else {
        return false;
    };
    if target.is_some_and(|target| patch_state == target || patch_state == -1) {
        return false;
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
    }
    true
}
