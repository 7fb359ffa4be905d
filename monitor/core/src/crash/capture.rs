//! Sources of crash evidence, and means of restarting the machine.

/// Something that would keep evidence of a crash, or restart the machine after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// pstore: a store that keeps the end of the kernel log over a reboot.
    Pstore,
    /// kdump: a second kernel that writes the first one's memory to disk.
    Kdump,
    /// The monitor's own journal, in the state directory.
    Recorder,
    /// A timer that resets a machine which hangs.
    Watchdog,
    /// The machine reboots by itself after a panic.
    RebootOnPanic,
}

impl Source {
    /// The source as label `source`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pstore => "pstore",
            Self::Kdump => "kdump",
            Self::Recorder => "recorder",
            Self::Watchdog => "watchdog",
            Self::RebootOnPanic => "reboot_on_panic",
        }
    }

    /// How to make a missing source available.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Pstore => {
                "load ramoops or efi_pstore, or switch on the firmware's error record table (ERST)"
            }
            Self::Kdump => {
                "install kdump-tools or kexec-tools, and reserve memory with crashkernel="
            }
            Self::Recorder => "see --state-dir",
            Self::Watchdog => "set RuntimeWatchdogSec= in /etc/systemd/system.conf",
            Self::RebootOnPanic => "set kernel.panic=10 by sysctl",
        }
    }
}
