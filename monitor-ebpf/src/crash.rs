//! Crash signals: oops, panic, WARN, taints, stalls. A program reports that one has begun;
//! user space then reads the whole report from the kernel log. The programs may run in any
//! context, also in an NMI and with interrupts off: the only lock they take is the ring
//! buffer's, which is only tried in an NMI, and they wake user space by irq_work.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use livepatch_monitor_ebpf::{CRASH_TEXT_LEN, CrashEvent, EventKind, may_begin_report, taint};

use crate::{
    kernel::{read, read_string},
    probes::{EVENTS, count_lost, full_for_reports},
};

#[inline(always)]
fn emit(kind: EventKind, flag: u32, text: u64) {
    if full_for_reports() {
        count_lost(kind);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<CrashEvent>(0) else {
        count_lost(kind);
        return;
    };
    let event: *mut CrashEvent = entry.as_mut_ptr();
    // SAFETY: `event` points to `size_of::<CrashEvent>()` reserved bytes, aligned to 8
    // (ring buffer records are); every field is written before `submit`.
    unsafe {
        (*event).time_ns = bpf_ktime_get_boot_ns();
        (*event).kind = kind as u32;
        (*event).flag = flag;
        let words: *mut [u64; CRASH_TEXT_LEN / 8] = (&raw mut (*event).text).cast();
        *words = [0; CRASH_TEXT_LEN / 8];
        if text != 0 {
            read_string((&raw mut (*event).text).cast(), CRASH_TEXT_LEN, text);
        }
    }
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}

macro_rules! hook {
    ($fentry:ident, $kprobe:ident, $kind:ident) => {
        #[fentry]
        fn $fentry(_ctx: FEntryContext) -> u32 {
            emit(EventKind::$kind, 0, 0);
            0
        }

        #[kprobe]
        fn $kprobe(_ctx: ProbeContext) -> u32 {
            emit(EventKind::$kind, 0, 0);
            0
        }
    };
}

hook!(fentry_oops_enter, kprobe_oops_enter, OopsEnter);
hook!(fentry_warn, kprobe_warn, Warn);
hook!(fentry_panic, kprobe_panic, Panic);

#[inline(always)]
fn tainted(flag: u32) {
    if taint::ALL.contains(&flag) {
        emit(EventKind::AddTaint, flag, 0);
    }
}

#[fentry]
fn fentry_add_taint(ctx: FEntryContext) -> u32 {
    let flag: u64 = ctx.arg(0);
    tainted(flag as u32);
    0
}

#[kprobe]
fn kprobe_add_taint(ctx: ProbeContext) -> u32 {
    let flag: u64 = ctx.arg(0).unwrap_or(0);
    tainted(flag as u32);
    0
}

#[raw_tracepoint(tracepoint = "rcu_stall_warning")]
fn tracepoint_rcu_stall_warning(_ctx: RawTracePointContext) -> i32 {
    emit(EventKind::RcuStall, 0, 0);
    0
}

#[raw_tracepoint(tracepoint = "sched_process_hang")]
fn tracepoint_sched_process_hang(_ctx: RawTracePointContext) -> i32 {
    emit(EventKind::HungTask, 0, 0);
    0
}

/// Runs for every line of the kernel log, formatted (`printk_sprint`,
/// kernel/printk/printk.c; 6.0 to 7.2). A line that cannot start a report costs one read of
/// eight bytes. Before 6.0 it runs only for lines that the console's level lets through, as
/// the console prints them (`call_console_drivers`, same file).
#[raw_tracepoint(tracepoint = "console")]
fn tracepoint_printk_console(ctx: RawTracePointContext) -> i32 {
    let line: u64 = ctx.arg(0);
    let Some(start) = read::<u64>(line) else {
        return 0;
    };
    if may_begin_report(start.to_le()) {
        emit(EventKind::Printk, 0, line);
    } else if may_begin_prefix(start) {
        let text = behind_prefix(line);
        if read::<u64>(text).is_some_and(|start| may_begin_report(start.to_le())) {
            emit(EventKind::Printk, 0, text);
        }
    }
    0
}

/// What the console prints before a line: `<level>[seconds.microseconds][caller] `
/// (`info_print_prefix`, kernel/printk/printk.c, 5.10).
fn may_begin_prefix(start: u64) -> bool {
    let first = start as u8;
    first == b'[' || first == b'<'
}

/// Longer than any such prefix.
const PREFIX_LEN: u64 = 48;

/// Where the text of a line with a prefix starts.
#[inline(always)]
fn behind_prefix(line: u64) -> u64 {
    let mut closed = false;
    for at in 0..PREFIX_LEN {
        match read::<u8>(line.wrapping_add(at)) {
            Some(b' ') if closed => return line.wrapping_add(at + 1),
            Some(byte) => closed = byte == b']',
            None => break,
        }
    }
    line
}
