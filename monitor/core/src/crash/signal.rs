//! The crash signals: one row each, from which the tables of hooks, counters, fallbacks and
//! headlines derive, and what is particular about its reports. Where the parser decides by the
//! signal, a match names every one, apart from a few comparisons with a single signal.
//! `docs/dev/adding-a-crash-signal.md` lists all places of a new one.

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
    properties: &'static [Property],
}

/// What is particular about the reports of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    /// It is raised again and again while its cause lasts.
    Repeats,
    /// A CPU is stuck; signals of that are raised one after the other.
    StuckCpu,
    /// A detector reports another task than itself; its own is shown where it panics.
    ByDetector,
    /// It is reported for each CPU and bank.
    EachCpu,
    /// It is what a `die()` that follows is about (arch/powerpc/kernel/traps.c).
    BeforeDie,
    /// Its first line alone may be a user's.
    NeedsSecondSign,
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
            /// All signals, the least severe first.
            pub const ALL: [Self; [$(stringify!($signal)),+].len()] = [$(Self::$signal),+];

            const fn row(self) -> &'static Row {
                match self {
                    $(Self::$signal => &Row { $($field: $value,)+ },)+
                }
            }
        }
    };
}

// A headline is the format string of the kernel's message, as `parser/format.rs` reads it; unless
// noted otherwise the texts are the same from 4.4 to 7.2. The first match counts.
signals! {
    /// The kernel's page tables or page state are corrupt: `BUG: Bad page state`, `Bad page map`.
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
        properties: &[],
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
        properties: &[],
    }
    /// An RCU grace period is held up by a CPU or a task.
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
        properties: &[Property::Repeats, Property::StuckCpu],
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
        properties: &[Property::Repeats, Property::ByDetector],
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
        properties: &[Property::Repeats, Property::StuckCpu],
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
        properties: &[Property::StuckCpu],
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
        properties: &[Property::NeedsSecondSign],
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
        properties: &[Property::EachCpu, Property::BeforeDie],
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
        // Printed just before the line of panic() itself (kernel/panic.c).
        headlines: &[
            // arch/{arm64,riscv}/kernel/traps.c
            "Insufficient stack space to handle exception!",
            "SError Interrupt on CPU{cpu}, code ",
            // arch/s390/kernel/traps.c
            "Kernel stack overflow.",
            // include/asm-generic/bug.h, where the architecture has no BUG() of its own
            "BUG: failure at {}:{n}/{symbol}()!",
        ],
        properties: &[],
    }
}

impl Signal {
    /// The signal as label `signal` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The crash that this signal is by itself; `None` if the kernel continues unless it is set to
    /// panic.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        self.row().kind
    }

    /// The signal that a hook reports: the one whose row has the hook, and for `add_taint` the one
    /// of this flag. A log line ([`EventKind::Printk`]) maps to the signal whose headline it
    /// matches.
    #[must_use]
    pub fn of_hook(hook: EventKind, flag: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| {
            let row = signal.row();
            let flagged = hook != EventKind::AddTaint || row.taint == Some(flag);
            row.hooks.contains(&hook) && flagged
        })
    }

    /// The hook at which the kernel counts the signal too. Hits of other hooks are not compared
    /// with the kernel's count.
    #[must_use]
    pub const fn counted_at(self) -> Option<EventKind> {
        self.row().counted_at
    }

    /// Where the kernel counts the signal itself.
    #[must_use]
    pub const fn kernel_counter(self) -> Option<KernelCounter> {
        self.row().counter
    }

    /// The hook that replaces the signal's first hook if that cannot be attached: its line in the
    /// log, which has level error or a more severe one.
    #[must_use]
    pub const fn fallback(self) -> Option<EventKind> {
        self.row().fallback
    }

    /// The signal's own hooks, the best first.
    #[must_use]
    pub const fn hooks(self) -> &'static [EventKind] {
        self.row().hooks
    }

    /// Whether its reports have this property.
    pub(super) fn has(self, property: Property) -> bool {
        self.row().properties.contains(&property)
    }

    /// The kernel's formats for the first line of a report.
    pub(super) const fn headlines(self) -> &'static [&'static str] {
        self.row().headlines
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)+) => {
        /// The name of a crash. If the kernel panics *because* of another signal, the kind is the
        /// cause, which says more: an oops with `panic_on_oops` is an oops, `softlockup: hung
        /// tasks` a soft lockup. A panic without another cause (sysrq-c), or over a warning, an RCU
        /// stall or a bad page, is a panic.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// All kinds, in the order in which they are exported.
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
    /// The boot ended without a reason in any log.
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

    /// A signal that is only seen by its log line requires that the BPF program forwards the line.
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
