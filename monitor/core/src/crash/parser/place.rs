//! Where something happened that has no instruction pointer of its own.

use super::super::{
    record::{Frame, Function},
    signal::Signal,
};

/// On the way from what happened to panic() and behind it (kernel/panic.c,
/// arch/*/kernel/traps.c): they report, and are not what happened.
const REPORTERS: [&str; 16] = [
    "panic",
    "vpanic",
    "nmi_panic",
    "nmi_panic_self_stop",
    "panic_bad_stack",
    "handle_bad_stack",
    "__bad_stack",
    "arm64_serror_panic",
    "do_serror",
    "el1_error",
    "el1h_64_error",
    "el1h_64_error_handler",
    "__stack_chk_fail",
    "die",
    "oops_end",
    "kernel_stack_overflow",
];

/// Where a blocked task went to sleep, or who called panic().
pub(super) fn place(signal: Signal, trace: &[Frame]) -> Option<Function> {
    let mut callers = trace
        .iter()
        .filter(|frame| frame.reliable)
        .map(|frame| &frame.function);
    let reports = |function: &&Function| REPORTERS.contains(&function.name.as_str());
    if signal == Signal::HungTask {
        return callers.find(|function| !is_sleep(function)).cloned();
    }
    callers.by_ref().find(|function| reports(function))?;
    callers.find(|function| !reports(function)).cloned()
}

/// The scheduler's own functions, and the switch to another task, which x86 leaves out
/// of a trace and others do not.
fn is_sleep(function: &Function) -> bool {
    let name = function.name.trim_start_matches('_');
    let scheduler = name.starts_with("schedule")
        || name.starts_with("io_schedule")
        || name.starts_with("preempt_schedule")
        || name.starts_with("switch_to")
        || name == "context_switch";
    function.module.is_none() && scheduler
}
