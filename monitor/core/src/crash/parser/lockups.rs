//! Signals of a CPU or task that does not get on.

use super::super::signal::Signal;

/// Signals that are raised again and again while their cause lasts.
pub(super) const fn is_repeated(signal: Signal) -> bool {
    match signal {
        Signal::RcuStall | Signal::SoftLockup | Signal::HungTask => true,
        Signal::BadPage
        | Signal::Warning
        | Signal::HardLockup
        | Signal::MachineCheck
        | Signal::Oops
        | Signal::Panic => false,
    }
}

/// Signals of a CPU that is stuck, which are raised one after the other.
pub(super) const fn is_lockup(signal: Signal) -> bool {
    match signal {
        Signal::RcuStall | Signal::SoftLockup | Signal::HardLockup => true,
        Signal::BadPage
        | Signal::Warning
        | Signal::HungTask
        | Signal::MachineCheck
        | Signal::Oops
        | Signal::Panic => false,
    }
}
