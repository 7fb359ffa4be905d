//! Which signal a crash hook stands for.

use livepatch_core::crash::{Signal, parser};
use livepatch_monitor_ebpf::EventKind;

use crate::kernel::events::CrashHook;

/// The signal that a hook stands for.
pub(super) fn signal(hook: &CrashHook) -> Option<Signal> {
    match hook.kind {
        EventKind::Printk => parser::signal(hook.text.as_deref()?),
        EventKind::OopsEnter => Some(Signal::Oops),
        EventKind::Panic => Some(Signal::Panic),
        EventKind::Warn => Some(Signal::Warning),
        EventKind::RcuStall => Some(Signal::RcuStall),
        EventKind::HungTask => Some(Signal::HungTask),
        // include/linux/panic.h, 5.10 to 7.2.
        EventKind::AddTaint => match hook.flag {
            4 => Some(Signal::MachineCheck),
            5 => Some(Signal::BadPage),
            7 => Some(Signal::Oops),
            9 => Some(Signal::Warning),
            14 => Some(Signal::SoftLockup),
            _ => None,
        },
        _ => None,
    }
}

/// The hook that sits where the kernel counts the signal.
pub(super) fn hook_of(signal: Signal) -> EventKind {
    match signal {
        Signal::Oops => EventKind::OopsEnter,
        Signal::Warning => EventKind::Warn,
        Signal::SoftLockup => EventKind::AddTaint,
        Signal::RcuStall => EventKind::RcuStall,
        Signal::HungTask => EventKind::HungTask,
        _ => EventKind::Printk,
    }
}

/// Whether the kernel counts the signal where this hook sits, and no other hook of ours
/// counts it too.
pub(super) fn is_counted(hook: EventKind, signal: Signal) -> bool {
    match hook {
        EventKind::Printk => signal == Signal::HardLockup,
        EventKind::AddTaint => signal == Signal::SoftLockup,
        EventKind::Panic => false,
        _ => true,
    }
}
