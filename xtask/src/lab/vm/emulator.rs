//! Faults of the emulator itself, as opposed to those of its guest.

/// QEMU died of its own fault: the result of what ran in the guest is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the emulator died: {0}")]
pub(crate) struct EmulatorDied(pub(crate) String);

/// Whether QEMU died of its own fault: by a signal for a program's own fault, or by an assertion on
/// its standard error. A guest cannot cause either, whatever its kernel does; SIGKILL comes from
/// outside.
pub(super) fn emulator_died(signal: Option<i32>, errors: &str) -> bool {
    // SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV (signal(7), x86).
    const OWN_FAULTS: [i32; 6] = [4, 5, 6, 7, 8, 11];
    signal.is_some_and(|signal| OWN_FAULTS.contains(&signal))
        || errors
            .lines()
            .any(|line| line.contains("assertion failed") || line.contains("Assertion `"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_dies_of_itself_is_distinguished() {
        let assertion = "**\nERROR:../system/physmem.c:2419:iotlb_to_section: assertion failed: \
                         (section_index < d->map.sections_nb)";
        assert!(emulator_died(Some(6), assertion));
        assert!(emulator_died(Some(11), ""));
        assert!(emulator_died(None, "qemu: x.c:1: f: Assertion `a' failed."));
        assert!(!emulator_died(Some(9), ""), "killed from outside");
        assert!(!emulator_died(Some(15), ""), "ended from outside");
        let refused = "qemu-system-x86_64: -device x: 'x' is not a valid device";
        assert!(!emulator_died(None, refused));
    }
}
