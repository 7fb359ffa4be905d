//! One event for each step of a patch's life. Each body is compiled into an fentry and a kprobe
//! program; user space loads the one that suits the kernel.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{fentry, kprobe, map, raw_tracepoint},
    maps::{Array, PerCpuArray, RingBuf},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::debug;
use livepatch_monitor_ebpf::{Event, EventKind, MODULE_NAME_LEN};

use crate::kernel::{self, member, read_module_name, read_patch_name, read_string, variable};

/// A transition makes about one event a second: 64 KiB hold six minutes of events if user space
/// does not read.
const ROOM: u32 = 64 * 1024;

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(ROOM, 0);

/// Events that found the ring buffer full, by [`EventKind`].
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(EventKind::ALL.len() as u32, 0);

/// Number of the next attempt plus one; 0 if unknown. Only kept where the kernel's own count cannot
/// be read. Its writers hold `klp_mutex`.
#[map]
static NEXT_ATTEMPT: Array<u32> = Array::with_max_entries(1, 0);

/// What an event is about. Null if not applicable.
#[derive(Clone, Copy, Default)]
struct Subject {
    /// `struct klp_patch *`
    patch: u64,
    /// `struct module *` named as the event's object
    module: u64,
    /// `char *` named as the event's object
    object_name: u64,
    /// `struct module *` named as the event's patch (no `klp_patch` is left)
    patch_module: u64,
}

/// Bytes of the ring buffer that user space has not read.
#[inline(always)]
fn unread() -> u64 {
    EVENTS.query(u64::from(BPF_RB_AVAIL_DATA))
}

/// Whether the last quarter of the ring buffer is reached, which is for the steps of a
/// transition: a storm of the kernel's reports does not crowd them out.
#[inline(always)]
pub(crate) fn full_for_reports() -> bool {
    unread() > u64::from(ROOM / 4 * 3)
}

/// Counts an event that found the ring buffer full.
#[inline(always)]
pub(crate) fn count_lost(kind: EventKind) {
    if let Some(count) = LOST.get_ptr_mut(kind as u32) {
        // SAFETY: a slot of this CPU's own copy; programs do not migrate.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn emit<C: EbpfContext>(ctx: &C, kind: EventKind, target_state: Option<i32>, subject: Subject) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count_lost(kind);
        return;
    };
    let event: *mut Event = entry.as_mut_ptr();
    let attempt = attempt(kind);
    // SAFETY: `event` points to `size_of::<Event>()` reserved bytes, aligned to 8
    // (ring buffer records are); every field is written before `submit`.
    unsafe {
        (*event).time_ns = bpf_ktime_get_boot_ns();
        (*event).kind = kind as u32;
        (*event).target_state = target_state
            .or_else(|| variable::<i32>(&kernel::KLP_TARGET_STATE))
            .unwrap_or(-1);
        (*event).attempt = attempt;
        (*event).pid = bpf_get_current_pid_tgid() as u32;
        (*event).replace =
            member::<u8>(subject.patch, &kernel::KLP_PATCH_REPLACE).map_or(u32::MAX, u32::from);
        (*event).reserved = 0;
        let names: *mut [u64; 2 * MODULE_NAME_LEN / 8] = (&raw mut (*event).patch).cast();
        *names = [0; 2 * MODULE_NAME_LEN / 8];
        if subject.patch != 0 && !read_patch_name(&raw mut (*event).patch, subject.patch) {
            debug!(
                ctx,
                "event {}: the patch's name cannot be read", kind as u32
            );
        }
        if subject.patch_module != 0 {
            read_module_name(&raw mut (*event).patch, subject.patch_module);
        }
        if subject.module != 0 {
            read_module_name(&raw mut (*event).object, subject.module);
        }
        if subject.object_name != 0 {
            read_string(
                (&raw mut (*event).object).cast(),
                MODULE_NAME_LEN,
                subject.object_name,
            );
        }
    }
    entry.submit(wakeup(kind, attempt));
}

/// Number of attempts that failed before this event: the kernel's own count, or that of the
/// events since the transition started; `u32::MAX` if unknown.
#[inline(always)]
fn attempt(kind: EventKind) -> u32 {
    if let Some(count) = variable(&kernel::KLP_SIGNALS_CNT) {
        return count;
    }
    let Some(next) = NEXT_ATTEMPT.get_ptr_mut(0) else {
        return u32::MAX;
    };
    // SAFETY: the array's one slot. Only events under `klp_mutex` write it; another may
    // read an old number, which is right for the moment before.
    unsafe {
        let count = (*next).wrapping_sub(1);
        match kind {
            EventKind::InitTransition => {
                *next = 1;
                0
            }
            EventKind::ReverseTransition => {
                *next = 1;
                count
            }
            EventKind::TryCompleteTransition if count != u32::MAX => {
                *next = next.read().wrapping_add(1);
                count
            }
            // The last attempt has not failed, and the kernel does not count it.
            EventKind::CompleteTransition if count != u32::MAX => {
                *next = 0;
                count.saturating_sub(1)
            }
            EventKind::EnablePatch
            | EventKind::TryCompleteTransition
            | EventKind::CompleteTransition
            | EventKind::CancelTransition
            | EventKind::ForceTransition
            | EventKind::PatchObject
            | EventKind::UnpatchObject
            | EventKind::FreePatch
            | EventKind::ModuleComing
            | EventKind::ModuleGoing
            | EventKind::ModuleFree
            | EventKind::ModuleLoad
            | EventKind::Printk
            | EventKind::OopsEnter
            | EventKind::Panic
            | EventKind::Warn
            | EventKind::AddTaint
            | EventKind::RcuStall
            | EventKind::HungTask => count,
        }
    }
}

/// Whether user space is woken for this event ([`EventKind::wakes`]). A buffer that is half
/// full wakes it in any case: a transition that is reversed faster than the kernel makes
/// attempts consists of early events alone, and they would be lost.
#[inline(always)]
fn wakeup(kind: EventKind, attempt: u32) -> u64 {
    // By default the ring buffer wakes a reader only if it has consumed everything.
    u64::from(if kind.wakes(attempt) || unread() > u64::from(ROOM / 2) {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    })
}

/// The patch in transition.
#[inline(always)]
fn in_transition() -> Subject {
    Subject {
        patch: variable(&kernel::KLP_TRANSITION_PATCH).unwrap_or(0),
        ..Subject::default()
    }
}

/// Whether no patch is loaded, in which case loads of modules are not reported.
#[inline(always)]
fn no_patches() -> bool {
    let head = kernel::KLP_PATCHES.load();
    head != 0 && kernel::read::<u64>(head) == Some(head)
}

macro_rules! probe {
    ($fentry:ident, $kprobe:ident, |$ctx:ident $(, $arg:ident = $n:literal)*| $body:block) => {
        #[fentry]
        fn $fentry($ctx: FEntryContext) -> u32 {
            $(let $arg: u64 = $ctx.arg($n);)*
            $body;
            0
        }

        #[kprobe]
        fn $kprobe($ctx: ProbeContext) -> u32 {
            $(let $arg: u64 = $ctx.arg($n).unwrap_or(0);)*
            $body;
            0
        }
    };
}

probe!(fentry_enable_patch, kprobe_enable_patch, |ctx, patch = 0| {
    // If another transition is running, the target is that one's, so it is not reported.
    emit(&ctx, EventKind::EnablePatch, Some(-1), Subject { patch, ..Subject::default() });
});

probe!(fentry_init_transition, kprobe_init_transition, |ctx, patch = 0, state = 1| {
    emit(
        &ctx,
        EventKind::InitTransition,
        Some(state as i32),
        Subject { patch, ..Subject::default() },
    );
});

probe!(
    fentry_try_complete_transition,
    kprobe_try_complete_transition,
    |ctx| {
        emit(
            &ctx,
            EventKind::TryCompleteTransition,
            None,
            in_transition(),
        );
    }
);

probe!(
    fentry_complete_transition,
    kprobe_complete_transition,
    |ctx| {
        emit(&ctx, EventKind::CompleteTransition, None, in_transition());
    }
);

probe!(fentry_cancel_transition, kprobe_cancel_transition, |ctx| {
    emit(&ctx, EventKind::CancelTransition, None, in_transition());
});

probe!(
    fentry_reverse_transition,
    kprobe_reverse_transition,
    |ctx| {
        emit(&ctx, EventKind::ReverseTransition, None, in_transition());
    }
);

probe!(fentry_force_transition, kprobe_force_transition, |ctx| {
    emit(&ctx, EventKind::ForceTransition, None, in_transition());
});

probe!(fentry_patch_object, kprobe_patch_object, |ctx, object = 0| {
    let object_name = member(object, &kernel::KLP_OBJECT_NAME).unwrap_or(0);
    emit(&ctx, EventKind::PatchObject, None, Subject { object_name, ..in_transition() });
});

probe!(fentry_unpatch_object, kprobe_unpatch_object, |ctx, object = 0| {
    let object_name = member(object, &kernel::KLP_OBJECT_NAME).unwrap_or(0);
    emit(&ctx, EventKind::UnpatchObject, None, Subject { object_name, ..in_transition() });
});

probe!(fentry_free_patch, kprobe_free_patch, |ctx, work = 0| {
    let offset = u64::from(kernel::KLP_PATCH_FREE_WORK.load());
    let patch = if offset == u64::from(livepatch_monitor_ebpf::UNKNOWN_OFFSET) {
        0
    } else {
        work.wrapping_sub(offset)
    };
    emit(&ctx, EventKind::FreePatch, Some(-1), Subject { patch, ..Subject::default() });
});

probe!(fentry_module_coming, kprobe_module_coming, |ctx, module = 0| {
    if !no_patches() {
        emit(&ctx, EventKind::ModuleComing, None, Subject { module, ..in_transition() });
    }
});

probe!(fentry_module_going, kprobe_module_going, |ctx, module = 0| {
    if !no_patches() {
        emit(&ctx, EventKind::ModuleGoing, None, Subject { module, ..in_transition() });
    }
});

#[raw_tracepoint(tracepoint = "module_free")]
fn tracepoint_module_free(ctx: RawTracePointContext) -> i32 {
    let module: u64 = ctx.arg(0);
    // If it cannot be determined, user space decides by the name.
    if is_livepatch(module) != Some(false) {
        emit_module(&ctx, EventKind::ModuleFree, module);
    }
    0
}

/// Comes before the module's init runs (`load_module`, kernel/module/main.c; 5.10 to 7.2), so that
/// a livepatch whose init kills the machine leaves a trace.
#[raw_tracepoint(tracepoint = "module_load")]
fn tracepoint_module_load(ctx: RawTracePointContext) -> i32 {
    let module: u64 = ctx.arg(0);
    if is_livepatch(module) == Some(true) {
        emit_module(&ctx, EventKind::ModuleLoad, module);
    }
    0
}

#[inline(always)]
fn emit_module<C: EbpfContext>(ctx: &C, kind: EventKind, patch_module: u64) {
    let subject = Subject {
        patch_module,
        ..Subject::default()
    };
    emit(ctx, kind, Some(-1), subject);
}

/// Whether the module is a livepatch, also one of the out-of-tree kpatch core, which
/// are known only by their names; `None` if that cannot be determined.
#[inline(always)]
fn is_livepatch(module: u64) -> Option<bool> {
    let klp = member::<u8>(module, &kernel::MODULE_KLP)? != 0;
    let name: u64 = member(module, &kernel::MODULE_NAME)?;
    Some(klp || name & KPATCH_MASK == KPATCH)
}

/// `kpatch` as the first bytes of a word.
const KPATCH: u64 = u64::from_le_bytes(*b"kpatch\0\0");
const KPATCH_MASK: u64 = u64::from_le_bytes([255, 255, 255, 255, 255, 255, 0, 0]);
