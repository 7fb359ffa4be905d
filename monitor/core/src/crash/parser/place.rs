//! Locates reports that have no instruction pointer.

use super::super::{
    record::{Frame, Function},
    signal::Signal,
};

/// On the way from what happened to panic() and behind it (kernel/panic.c,
/// arch/*/kernel/traps.c): they report, and are not what happened.
const REPORTERS: [&str; 20] = [
    "panic",
    "vpanic",
    "nmi_panic",
    "nmi_panic_self_stop",
    "panic_bad_stack",
    "handle_bad_stack",
    "__bad_stack",
    "arm64_serror_panic",
    "arm64_is_fatal_ras_serror",
    "do_serror",
    "el1_error",
    "el1h_64_error",
    "el1h_64_error_handler",
    "__stack_chk_fail",
    "die",
    "oops_end",
    "kernel_stack_overflow",
    "die_mce",
    "pnv_platform_error_reboot",
    "__panic_unhandled",
];

/// Functions that print a report that kills no task (lib/dump_stack.c, mm/kasan, mm/kfence,
/// kernel/kcsan, lib/ubsan.c, kernel/sched/core.c, lib/smp_processor_id.c, mm/slub.c,
/// kernel/locking/spinlock_debug.c), by the start of the name without underscores.
const TOOLS: [&str; 27] = [
    "dump_stack",
    "dump_backtrace",
    "show_stack",
    "show_trace",
    "print_report",
    "print_address_description",
    "print_trailer",
    "kasan_",
    "asan_",
    "hwasan_",
    "kfence_",
    "kcsan_",
    "tsan_",
    "kmsan_",
    "msan_",
    "ubsan_",
    "warn",
    "schedule",
    "preempt_schedule",
    "might_sleep",
    "might_resched",
    "check_preemption_disabled",
    "debug_smp_processor_id",
    "object_err",
    "slab_err",
    "spin_",
    "check_unsafe_call",
];

/// Where an interrupt came in (arch/*/kernel/{entry,apic,time}): what it interrupted is
/// the next caller.
const INTERRUPTS: [&str; 16] = [
    "nmi",
    "end_repeat_nmi",
    "asm_exc_nmi",
    "el1h_64_fiq",
    "apic_timer_interrupt",
    "smp_apic_timer_interrupt",
    "local_apic_timer_interrupt",
    "sysvec_apic_timer_interrupt",
    "asm_sysvec_apic_timer_interrupt",
    "el1_irq",
    "el1_interrupt",
    "el1h_64_irq",
    "el1h_64_irq_handler",
    "io_int_handler",
    "ext_int_handler",
    "handle_exception",
];

/// The place where a blocked task went to sleep, the caller of panic() or of what reports, the code
/// that an interrupt found on a CPU that is stuck or that RCU waits for, or the subject of a report.
pub(super) fn place(signal: Signal, is_report: bool, trace: &[Frame]) -> Option<Function> {
    let mut callers = trace
        .iter()
        .filter(|frame| frame.reliable)
        .map(|frame| &frame.function);
    // `nmi_panic.cold`: the compiler moved a part of it elsewhere.
    let reports = |function: &&Function| {
        let name = function.name.split('.').next().unwrap_or_default();
        REPORTERS.contains(&name)
    };
    match signal {
        Signal::HungTask => callers.find(|function| !is_sleep(function)).cloned(),
        // The watchdog's own callbacks are on the stack too.
        Signal::RcuStall | Signal::SoftLockup | Signal::HardLockup => {
            let entry = |function: &Function| INTERRUPTS.contains(&function.name.as_str());
            let first = callers.clone().position(entry)?;
            callers
                .skip(first)
                .find(|function| !entry(function))
                .cloned()
        }
        // Only the hardware knows it.
        Signal::MachineCheck => None,
        Signal::Warning if is_report => callers.find(|function| !is_tool(function)).cloned(),
        Signal::BadPage | Signal::Warning | Signal::Oops | Signal::Panic => {
            callers.by_ref().find(|function| reports(function))?;
            // A call that does not return has what the linker put behind it as its caller.
            let called = |function: &&Function| function.offset != Some(0);
            callers
                .find(|function| called(function) && !reports(function))
                .cloned()
        }
    }
}

fn is_tool(function: &Function) -> bool {
    let name = function.name.trim_start_matches('_');
    function.module.is_none() && TOOLS.iter().any(|tool| name.starts_with(tool))
}

/// The scheduler's own functions, and the switch to another task, which x86 leaves out of a trace
/// and other architectures do not.
fn is_sleep(function: &Function) -> bool {
    let name = function.name.trim_start_matches('_');
    let scheduler = name.starts_with("schedule")
        || name.starts_with("io_schedule")
        || name.starts_with("preempt_schedule")
        || name.starts_with("switch_to")
        || name == "context_switch";
    function.module.is_none() && scheduler
}
