//! The crash signals: one row each. Everything that differs from signal to signal is
//! in its row, so that a new one is a new row, its BPF program and its scenario.

use livepatch_monitor_ebpf::{EventKind, taint};
use serde::{Deserialize, Serialize};

/// A file in which the kernel counts a signal itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelCounter {
    /// A file, by its path below `/sys`.
    Sysfs(&'static str),
    /// A file, by its path below `/proc`.
    Procfs(&'static str),
}

struct Row {
    name: &'static str,
    kind: Option<Kind>,
    hooks: &'static [EventKind],
    taint: Option<u32>,
    counted_at: Option<EventKind>,
    counter: Option<KernelCounter>,
    fallback: Option<EventKind>,
    headlines: &'static [&'static str],
}

macro_rules! signals {
    ($($(#[$doc:meta])* $signal:ident { $($field:ident: $value:expr,)+ })+) => {
        /// A problem that the kernel reports, the least severe first.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Signal {
            $($(#[$doc])* $signal,)+
        }

        impl Signal {
            /// All, the least severe first.
            pub const ALL: [Self; [$(stringify!($signal)),+].len()] = [$(Self::$signal),+];

            const fn row(self) -> &'static Row {
                match self {
                    $(Self::$signal => &Row { $($field: $value,)+ },)+
                }
            }
        }
    };
}

// A headline is the format string of the kernel's message, as `parser/format.rs` reads
// it; where not said otherwise the texts are the same from 4.4 to 7.2. The first that
// fits counts.
signals! {
    /// The kernel's tables of pages are wrong: `BUG: Bad page state`, `Bad page map`.
    BadPage {
        name: "bad_page",
        kind: None,
        hooks: &[EventKind::AddTaint],
        taint: Some(taint::BAD_PAGE),
        counted_at: None,
        counter: None,
        fallback: None,
        // mm/page_alloc.c, mm/memory.c, kernel/fork.c
        headlines: &[
            "BUG: Bad page state in process ",
            "BUG: Bad page map in process ",
            "BUG: Bad page cache in process ",
            "BUG: Bad rss-counter state ",
        ],
    }
    /// A WARN(), or another report after which the kernel continues (KASAN, UBSAN, …).
    Warning {
        name: "warning",
        kind: None,
        hooks: &[EventKind::Warn, EventKind::AddTaint],
        taint: Some(taint::WARN),
        counted_at: Some(EventKind::Warn),
        // kernel/panic.c, since 6.2 and stable releases before it
        counter: Some(KernelCounter::Sysfs("kernel/warn_count")),
        fallback: None,
        headlines: &[
            // kernel/panic.c: up to 6.12; 7.2; with CONFIG_DEBUG_BUGVERBOSE off; 3.10
            "WARNING: CPU: {cpu} PID: {pid} at {} {place}",
            "WARNING: CPU: {cpu} PID: {pid} at ",
            "WARNING: {} at {place}, CPU#{cpu}: {comm}/{pid}",
            "WARNING: at {place}, CPU#{cpu}: {comm}/{pid}",
            "WARNING: at {}:{n} {place}",
        ],
    }
    /// A CPU or task keeps an RCU grace period from ending.
    RcuStall {
        name: "rcu_stall",
        kind: None,
        hooks: &[EventKind::RcuStall],
        taint: None,
        counted_at: Some(EventKind::RcuStall),
        // kernel/rcu/tree_stall.h, since 6.16
        counter: Some(KernelCounter::Sysfs("kernel/rcu_stall_count")),
        fallback: Some(EventKind::Printk),
        // kernel/rcu/tree_stall.h, tree_exp.h, tasks.h; without "rcu: " before 4.19
        headlines: &[
            "rcu: INFO: rcu{} self-detected stall on CPU",
            "rcu: INFO: rcu{} detected stall",
            "rcu: INFO: rcu{} detected expedited stall",
            "INFO: rcu{} self-detected stall on CPU",
            "INFO: rcu{} detected stall",
            "INFO: rcu{} detected expedited stall",
        ],
    }
    /// A task is blocked for too long.
    HungTask {
        name: "hung_task",
        kind: Some(Kind::HungTask),
        hooks: &[EventKind::HungTask],
        taint: None,
        counted_at: Some(EventKind::HungTask),
        // kernel/hung_task.c, since 6.13
        counter: Some(KernelCounter::Procfs("sys/kernel/hung_task_detect_count")),
        fallback: Some(EventKind::Printk),
        // kernel/hung_task.c; 7.x says what the task waits for
        headlines: &[
            "INFO: task {comm}:{pid} blocked for more than {n} seconds",
            "INFO: task {comm}:{pid} blocked in I/O wait for more than {n} seconds",
        ],
    }
    /// A CPU does not schedule.
    SoftLockup {
        name: "soft_lockup",
        kind: Some(Kind::SoftLockup),
        hooks: &[EventKind::AddTaint],
        taint: Some(taint::SOFTLOCKUP),
        counted_at: Some(EventKind::AddTaint),
        // kernel/watchdog.c, since 6.16
        counter: Some(KernelCounter::Sysfs("kernel/softlockup_count")),
        fallback: None,
        // kernel/watchdog.c; "NMI watchdog: " before 4.13, nothing before 4.2
        headlines: &[
            "watchdog: BUG: soft lockup - CPU#{cpu} stuck for {n}s! [{comm}:{pid}]",
            "NMI watchdog: BUG: soft lockup - CPU#{cpu} stuck for {n}s! [{comm}:{pid}]",
            "BUG: soft lockup - CPU#{cpu} stuck for {n}s! [{comm}:{pid}]",
            "watchdog: BUG: soft lockup - CPU#{cpu} stuck for ",
            "NMI watchdog: BUG: soft lockup - CPU#{cpu} stuck for ",
            "BUG: soft lockup - CPU#{cpu} stuck for ",
        ],
    }
    /// A CPU takes no interrupt.
    HardLockup {
        name: "hard_lockup",
        kind: Some(Kind::HardLockup),
        hooks: &[],
        taint: None,
        counted_at: Some(EventKind::Printk),
        // kernel/watchdog.c, since 6.16
        counter: Some(KernelCounter::Sysfs("kernel/hardlockup_count")),
        fallback: None,
        headlines: &[
            // kernel/watchdog_hld.c, kernel/watchdog.c
            "watchdog: Watchdog detected hard LOCKUP on cpu {cpu}",
            "watchdog: CPU{n}: Watchdog detected hard LOCKUP on cpu {cpu}",
            "NMI watchdog: Watchdog detected hard LOCKUP on cpu {cpu}",
            "Watchdog detected hard LOCKUP on cpu {cpu}",
            // arch/powerpc/kernel/watchdog.c: since 4.15; 4.13 and 4.14
            "watchdog: CPU {cpu} self-detected hard LOCKUP @ {place}",
            "watchdog: CPU {cpu} self-detected hard LOCKUP",
            "watchdog: CPU {n} detected hard LOCKUP on other CPUs {cpu}",
            "Watchdog CPU:{cpu} Hard LOCKUP",
            "Watchdog CPU:{n} detected Hard LOCKUP other CPUS:{cpu}",
        ],
    }
    /// A fault in kernel code.
    Oops {
        name: "oops",
        kind: Some(Kind::Oops),
        hooks: &[EventKind::OopsEnter, EventKind::AddTaint],
        taint: Some(taint::DIE),
        counted_at: Some(EventKind::OopsEnter),
        // kernel/exit.c, since 6.2 and stable releases before it
        counter: Some(KernelCounter::Sysfs("kernel/oops_count")),
        fallback: Some(EventKind::Printk),
        headlines: &[
            // arch/x86/mm/fault.c
            "BUG: kernel NULL pointer dereference",
            "BUG: unable to handle ",
            // lib/bug.c; without CONFIG_DEBUG_BUGVERBOSE, up to 5.11 and since
            "kernel BUG at {}:{n}!",
            "Kernel BUG at {place} [verbose debug info unavailable]",
            "Kernel BUG at {} [verbose debug info unavailable]",
            "kernel BUG at {place} [verbose debug info unavailable]",
            "kernel BUG at {} [verbose debug info unavailable]",
            // arch/x86/kernel/{doublefault,traps,dumpstack}.c
            "PANIC: double fault",
            "traps: PANIC: double fault",
            // arch/x86/mm/extable.c
            "PANIC: early exception {x} IP ",
            "BUG: {} stack guard page was hit at ",
            "BUG: stack guard page was hit at ",
            // arch/{arm,arm64,riscv}/mm/fault.c, arch/s390/mm/fault.c, and
            // arch/powerpc/mm/fault.c up to 4.20
            "Unable to handle kernel ",
            // arch/arm64/kernel/traps.c: up to 5.12; since
            "Bad mode in {} handler detected on CPU{cpu}, code ",
            "Bad mode in {} handler detected, code ",
            "Unhandled 64-bit el1{} exception on CPU{cpu}, ESR ",
            // arch/powerpc/mm/fault.c, arch/powerpc/kernel/traps.c
            "BUG: Kernel NULL pointer dereference",
            "BUG: Unable to handle ",
            "Bad kernel stack pointer {x} at ",
            // arch/loongarch/mm/fault.c, arch/mips/mm/fault.c
            "CPU {cpu} Unable to handle kernel ",
        ],
    }
    /// The hardware reports a fault that the kernel cannot survive.
    MachineCheck {
        name: "machine_check",
        kind: Some(Kind::MachineCheck),
        hooks: &[EventKind::AddTaint],
        taint: Some(taint::MACHINE_CHECK),
        counted_at: None,
        counter: None,
        fallback: None,
        headlines: &[
            // arch/x86/kernel/cpu/mce/core.c; corrected ones lack "Exception"
            "mce: [Hardware Error]: CPU {cpu}: Machine Check Exception: ",
            "[Hardware Error]: CPU {cpu}: Machine Check Exception: ",
            // arch/powerpc/kernel/mce.c: since 4.19; before
            "MCE: CPU{cpu}: machine check (Severe) {}[Not recovered]",
            "MCE: CPU{cpu}: machine check (Fatal) {}[Not recovered]",
            "Severe Machine check interrupt [Not recovered]",
            "Fatal Machine check interrupt [Not recovered]",
            "Machine check in kernel mode.",
            // arch/powerpc/platforms/powernv/opal-hmi.c
            "Severe Hypervisor Maintenance interrupt [Not recovered]",
            "Fatal Hypervisor Maintenance interrupt [Not recovered]",
            // arch/s390/kernel/nmi.c, since 5.13; nothing is printed before
            "System stopped due to unrecoverable machine check, code: 0x{x}",
        ],
    }
    /// The kernel panicked: it cannot continue.
    Panic {
        name: "panic",
        kind: Some(Kind::Panic),
        hooks: &[EventKind::Panic],
        taint: None,
        counted_at: None,
        counter: None,
        fallback: Some(EventKind::Printk),
        // What is said just before the line of panic(), kernel/panic.c, itself
        headlines: &[
            // arch/{arm64,riscv}/kernel/traps.c
            "Insufficient stack space to handle exception!",
            "SError Interrupt on CPU{cpu}, code ",
            // arch/s390/kernel/traps.c
            "Kernel stack overflow.",
            // include/asm-generic/bug.h, where the architecture has no BUG() of its own
            "BUG: failure at {}:{n}/{symbol}()!",
        ],
    }
}

impl Signal {
    /// The signal as label `signal` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The crash that this signal is by itself; none where the kernel continues unless it
    /// is set to panic over it.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        self.row().kind
    }

    /// The signal that a hook stands for: the one whose row has it, and for
    /// `add_taint` the one of this flag. A line of the log ([`EventKind::Printk`])
    /// stands for the signal whose headline it is.
    #[must_use]
    pub fn of_hook(hook: EventKind, flag: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| {
            let row = signal.row();
            let flagged = hook != EventKind::AddTaint || row.taint == Some(flag);
            row.hooks.contains(&hook) && flagged
        })
    }

    /// The hook at which the kernel counts the signal too; hits of another hook are
    /// not compared with the kernel's count.
    #[must_use]
    pub const fn counted_at(self) -> Option<EventKind> {
        self.row().counted_at
    }

    /// Where the kernel counts the signal itself.
    #[must_use]
    pub const fn kernel_counter(self) -> Option<KernelCounter> {
        self.row().counter
    }

    /// The hook by which the signal is seen where its first hook cannot be attached:
    /// its line in the log has level error or a more severe one.
    #[must_use]
    pub const fn fallback(self) -> Option<EventKind> {
        self.row().fallback
    }

    /// Its own hooks, the best first.
    #[must_use]
    pub const fn hooks(self) -> &'static [EventKind] {
        self.row().hooks
    }

    /// The kernel's formats for the first line of a report.
    pub(super) const fn headlines(self) -> &'static [&'static str] {
        self.row().headlines
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)+) => {
        /// What a crash is called. Where the kernel panics *because* of another signal
        /// the cause is the kind, since it says more: an oops with `panic_on_oops` is
        /// an oops, `softlockup: hung tasks` a soft lockup. A panic of its own
        /// (sysrq-c), or over a warning, an RCU stall or a bad page, is a panic.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// All, in the order they are exported.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$kind),+];

            /// The kind as label `kind` and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// The kernel panicked (see [`Signal::Panic`]).
    Panic = "panic",
    /// The kernel reported an oops (see [`Signal::Oops`]).
    Oops = "oops",
    /// A CPU did not take interrupts for too long (see [`Signal::HardLockup`]).
    HardLockup = "hard_lockup",
    /// A CPU did not schedule for too long (see [`Signal::SoftLockup`]).
    SoftLockup = "soft_lockup",
    /// A task stayed blocked for too long (see [`Signal::HungTask`]).
    HungTask = "hung_task",
    /// The hardware reported an error (see [`Signal::MachineCheck`]).
    MachineCheck = "machine_check",
    /// The boot ended and nothing in any log says why.
    Reset = "reset",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn taints_are_those_that_the_bpf_side_passes_on() {
        let rows: BTreeSet<u32> = Signal::ALL.iter().filter_map(|s| s.row().taint).collect();
        assert_eq!(rows, BTreeSet::from(taint::ALL));
    }

    #[test]
    fn every_crash_hook_stands_for_a_signal() {
        for hook in EventKind::ALL.into_iter().filter(|hook| hook.is_crash()) {
            let flagged = taint::ALL
                .iter()
                .any(|flag| Signal::of_hook(hook, *flag).is_some());
            assert_eq!(flagged, hook != EventKind::Printk, "{}", hook.name());
        }
        assert_eq!(Signal::of_hook(EventKind::AddTaint, 0), None);
        assert_eq!(
            Signal::of_hook(EventKind::AddTaint, 14),
            Some(Signal::SoftLockup)
        );
    }

    /// A signal that is only seen by its line in the log is seen only if the BPF program
    /// passes the line on.
    #[test]
    fn the_bpf_side_passes_on_the_headlines_that_replace_a_hook() {
        let logged = Signal::ALL
            .into_iter()
            .filter(|signal| signal.fallback() == Some(EventKind::Printk));
        let dropped = logged
            .flat_map(|signal| signal.headlines())
            .filter(|headline| {
                let start: &[u8; 8] = headline.as_bytes().first_chunk().unwrap();
                !livepatch_monitor_ebpf::may_begin_report(u64::from_le_bytes(*start))
            });
        assert_eq!(dropped.collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn a_kind_is_named_as_its_signal() {
        for signal in Signal::ALL {
            assert!(
                signal
                    .kind()
                    .is_none_or(|kind| kind.name() == signal.name())
            );
            let json = serde_json::to_string(&signal).unwrap();
            assert_eq!(json, format!("\"{}\"", signal.name()));
        }
    }
}
