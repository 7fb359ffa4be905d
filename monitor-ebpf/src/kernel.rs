//! Where things are in the running kernel: member offsets and symbol addresses,
//! set by user space before the programs are loaded.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str},
};
use livepatch_monitor_ebpf::{MODULE_NAME_LEN, UNKNOWN_OFFSET};

macro_rules! offsets {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<u32> = Global::new(UNKNOWN_OFFSET);
    )* };
}

macro_rules! addresses {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<u64> = Global::new(0);
    )* };
}

offsets! {
    KLP_PATCH_MOD KLP_PATCH_REPLACE KLP_PATCH_OBJ_LIST KLP_PATCH_FREE_WORK
    KLP_OBJECT_NAME KLP_OBJECT_MOD KLP_OBJECT_FUNC_LIST KLP_OBJECT_NODE
    KLP_FUNC_OLD_NAME KLP_FUNC_OLD_FUNC KLP_FUNC_OLD_SIZE KLP_FUNC_NEW_FUNC
    KLP_FUNC_NEW_SIZE KLP_FUNC_NODE KLP_FUNC_STACK_NODE
    MODULE_NAME MODULE_KLP
    TASK_PATCH_STATE TASK_STATE TASK_FLAGS TASK_ON_CPU TASK_PID TASK_TGID TASK_COMM
    TASK_START_BOOTTIME TASK_CGROUPS CSS_SET_DFL_CGRP CGROUP_KN KERNFS_NODE_ID
}

addresses! {
    KLP_TRANSITION_PATCH KLP_TARGET_STATE KLP_SIGNALS_CNT KLP_PATCHES
    PER_CPU_OFFSET IDLE_THREADS
}

/// CPUs that may ever come online (/sys/devices/system/cpu/possible); 0 if unknown.
#[unsafe(no_mangle)]
pub(crate) static POSSIBLE_CPUS: Global<u32> = Global::new(0);

/// Reads a value at a kernel address; `None` if it cannot be read.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper copies exactly `size_of::<T>()` bytes into `value`, from
    // any address at all: it fails rather than faults on a bad one.
    let ret = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    (ret == 0).then_some(value)
}

/// Reads a member of a structure; `None` if the member's offset is unknown, the base is null or the
/// read fails.
#[inline(always)]
pub(crate) fn member<T: Copy + Default>(base: u64, offset: &Global<u32>) -> Option<T> {
    let offset = offset.load();
    if base == 0 || offset == UNKNOWN_OFFSET {
        return None;
    }
    read(base.wrapping_add(u64::from(offset)))
}

/// The address of a member; `None` if its offset is unknown.
#[inline(always)]
pub(crate) fn member_address(base: u64, offset: &Global<u32>) -> Option<u64> {
    let offset = offset.load();
    (base != 0 && offset != UNKNOWN_OFFSET).then(|| base.wrapping_add(u64::from(offset)))
}

/// Reads a global variable of the kernel; `None` if its address is unknown.
#[inline(always)]
pub(crate) fn variable<T: Copy + Default>(address: &Global<u64>) -> Option<T> {
    let address = address.load();
    if address == 0 {
        return None;
    }
    read(address)
}

/// Copies a NUL-terminated string; false if nothing could be read.
#[inline(always)]
pub(crate) fn read_string(target: *mut u8, size: usize, address: u64) -> bool {
    // SAFETY: callers pass a buffer of `size` bytes; the helper writes no more
    // than that and fails rather than faults on a bad source address.
    unsafe { bpf_probe_read_kernel_str(target.cast(), size as u32, address as *const _) > 0 }
}

/// Writes a module's name into a zeroed buffer of `MODULE_NAME_LEN` bytes.
#[inline(always)]
pub(crate) fn read_module_name(target: *mut [u8; MODULE_NAME_LEN], module: u64) -> bool {
    match member_address(module, &MODULE_NAME) {
        Some(name) => read_string(target.cast(), MODULE_NAME_LEN, name),
        None => false,
    }
}

/// Writes a patch's name (its module's) into a zeroed buffer.
#[inline(always)]
pub(crate) fn read_patch_name(target: *mut [u8; MODULE_NAME_LEN], patch: u64) -> bool {
    match member::<u64>(patch, &KLP_PATCH_MOD) {
        Some(module) => read_module_name(target, module),
        None => false,
    }
}
