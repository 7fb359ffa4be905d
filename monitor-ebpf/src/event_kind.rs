//! The kernel events that are hooked: one row each. The enum, its numbers, its names
//! and the places to attach to all come from these rows.

/// The place in the kernel where an event is hooked, and the programs for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A function's entry, by the first of its names that the kernel has.
    Function {
        /// Its names over the kernel versions.
        symbols: &'static [&'static str],
        /// Names of a variadic function, to which only the kprobe can be attached; tried last.
        variadic: &'static [&'static str],
        /// Name of the fentry program.
        fentry: &'static str,
        /// Name of the kprobe program, for kernels where fentry cannot be used.
        kprobe: &'static str,
    },
    /// A raw tracepoint.
    Tracepoint {
        /// Name of the program.
        program: &'static str,
        /// Name of the tracepoint.
        name: &'static str,
    },
}

/// The record that an event puts into the ring buffer, and whether it wakes the monitor.
///
/// A monitor that wakes up at the start of a transition is a task on a CPU that has not
/// switched: the kernel's first attempt would fail because of it, and the next one comes a
/// second later. So nothing before the end of the first attempt wakes it. That attempt
/// switches the monitor while it sleeps; from then on it holds up no transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// A [`crate::Event`] that can come before the first attempt: it does not wake the monitor.
    EarlyStep,
    /// A [`crate::Event`] of an attempt: the first one does not wake the monitor.
    Attempt,
    /// A [`crate::Event`] that wakes the monitor.
    Step,
    /// A [`crate::CrashEvent`], which wakes the monitor.
    Crash,
}

struct Row {
    name: &'static str,
    record: Record,
}

/// An event and where it is hooked.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The event that the hook reports.
    pub kind: EventKind,
    /// Where the hook is attached.
    pub site: Site,
}

macro_rules! site {
    (function $base:literal [$($symbol:literal),+] $([$($variadic:literal),+])?) => {
        Site::Function {
            symbols: &[$($symbol),+],
            variadic: &[$($($variadic),+)?],
            fentry: concat!("fentry_", $base),
            kprobe: concat!("kprobe_", $base),
        }
    };
    (tracepoint $base:literal [$name:literal]) => {
        Site::Tracepoint {
            program: concat!("tracepoint_", $base),
            name: $name,
        }
    };
}

macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $kind:ident = $number:literal, $name:literal, $record:ident,
        $how:ident $base:literal $symbols:tt $(variadic $variadic:tt)?;
    )+) => {
        /// What happened, in a record of the ring buffer. The discriminants number the
        /// slots of the `LOST` map as well.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum EventKind {
            $($(#[$doc])* $kind = $number,)+
        }

        impl EventKind {
            /// Every kind, in the order of the discriminants.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$kind),+];

            /// Where each event is hooked, in the same order.
            pub const HOOKS: &[Hook] = &[$(Hook {
                kind: Self::$kind,
                site: site!($how $base $symbols $($variadic)?),
            }),+];

            const fn row(self) -> Row {
                match self {
                    $(Self::$kind => Row {
                        name: $name,
                        record: Record::$record,
                    },)+
                }
            }
        }
    };
}

// The functions of livepatch are those of kernel/livepatch/{core,transition,patch}.c, those of a
// crash of kernel/panic.c, 5.10 to 7.2. Columns: number, label value, [`Record`], and the hook
// (suffix of the program names, names of the kernel symbol).
events! {
    /// `klp_enable_patch`: a module requests that its patch be enabled.
    EnablePatch = 0, "klp_enable_patch", EarlyStep, function "enable_patch" ["klp_enable_patch"];
    /// `klp_init_transition`: a transition starts; `target_state` is its direction.
    InitTransition = 1, "klp_init_transition", EarlyStep,
        function "init_transition" ["klp_init_transition"];
    /// `klp_try_complete_transition`: one attempt; `attempt` counts from 0 since
    /// the start or the last reversal.
    TryCompleteTransition = 2, "klp_try_complete_transition", Attempt,
        function "try_complete_transition" ["klp_try_complete_transition"];
    /// `klp_complete_transition`: every task has switched (or a cancel ends).
    CompleteTransition = 3, "klp_complete_transition", Step,
        function "complete_transition" ["klp_complete_transition"];
    /// `klp_cancel_transition`: enabling failed before any task was checked.
    CancelTransition = 4, "klp_cancel_transition", Step,
        function "cancel_transition" ["klp_cancel_transition"];
    /// `klp_reverse_transition`: `target_state` is still the old direction.
    ReverseTransition = 5, "klp_reverse_transition", EarlyStep,
        function "reverse_transition" ["klp_reverse_transition"];
    /// `klp_force_transition`: the remaining tasks are switched without a check.
    ForceTransition = 6, "klp_force_transition", Step,
        function "force_transition" ["klp_force_transition"];
    /// `klp_patch_object`: an object's functions are redirected.
    PatchObject = 7, "klp_patch_object", EarlyStep, function "patch_object" ["klp_patch_object"];
    /// `klp_unpatch_object`, or `__klp_unpatch_object` in the versions that split it for atomic
    /// replace: an object's functions are restored.
    UnpatchObject = 8, "klp_unpatch_object", EarlyStep,
        function "unpatch_object" ["__klp_unpatch_object", "klp_unpatch_object"];
    /// `klp_free_patch_work_fn`: a disabled or replaced patch is freed.
    FreePatch = 9, "klp_free_patch", Step, function "free_patch" ["klp_free_patch_work_fn"];
    /// `klp_module_coming`, only while a patch is loaded.
    ModuleComing = 10, "klp_module_coming", EarlyStep,
        function "module_coming" ["klp_module_coming"];
    /// `klp_module_going`, only while a patch is loaded.
    ModuleGoing = 11, "klp_module_going", Step, function "module_going" ["klp_module_going"];
    /// tracepoint `module_free`: a livepatch's module is gone.
    ModuleFree = 12, "module_free", Step, tracepoint "module_free" ["module_free"];
    /// tracepoint `module_load`: a livepatch's module is loaded, its init has not run.
    ModuleLoad = 13, "module_load", Step, tracepoint "module_load" ["module_load"];
    /// tracepoint `printk:console`: a line that may start a crash report.
    Printk = 14, "printk_console", Crash, tracepoint "printk_console" ["console"];
    /// `oops_enter`: a fault in kernel code.
    OopsEnter = 15, "oops_enter", Crash, function "oops_enter" ["oops_enter"];
    /// `panic`: the kernel panics. It is variadic; `vpanic`, which it calls, came with 6.17.
    Panic = 16, "panic", Crash, function "panic" ["vpanic"] variadic ["panic"];
    /// `__warn`: a WARN.
    Warn = 17, "__warn", Crash, function "warn" ["__warn"];
    /// `add_taint` with a flag that is a crash signal.
    AddTaint = 18, "add_taint", Crash, function "add_taint" ["add_taint"];
    /// tracepoint `rcu_stall_warning`.
    RcuStall = 19, "rcu_stall_warning", Crash,
        tracepoint "rcu_stall_warning" ["rcu_stall_warning"];
    /// tracepoint `sched_process_hang`: a task is blocked for too long.
    HungTask = 20, "sched_process_hang", Crash,
        tracepoint "sched_process_hang" ["sched_process_hang"];
}

impl EventKind {
    /// The label value used in metrics and logs: the kernel's own function name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether a record of this kind is a [`crate::CrashEvent`].
    #[must_use]
    pub const fn is_crash(self) -> bool {
        matches!(self.row().record, Record::Crash)
    }

    /// Whether this event wakes the monitor, `attempt` failed attempts after the start of the
    /// transition or its last reversal (see [`Record`]).
    #[must_use]
    pub const fn wakes(self, attempt: u32) -> bool {
        match self.row().record {
            Record::EarlyStep => false,
            Record::Attempt => attempt != 0,
            Record::Step | Record::Crash => true,
        }
    }

    /// The kind of this number, if there is one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

/// Flags of `add_taint` that are crash signals (include/linux/panic.h, 5.10 to 7.2).
pub mod taint {
    /// `TAINT_MACHINE_CHECK`
    pub const MACHINE_CHECK: u32 = 4;
    /// `TAINT_BAD_PAGE`
    pub const BAD_PAGE: u32 = 5;
    /// `TAINT_DIE`
    pub const DIE: u32 = 7;
    /// `TAINT_WARN`
    pub const WARN: u32 = 9;
    /// `TAINT_SOFTLOCKUP`
    pub const SOFTLOCKUP: u32 = 14;

    /// All of them; the BPF programs forward no others.
    pub const ALL: [u32; 5] = [MACHINE_CHECK, BAD_PAGE, DIE, WARN, SOFTLOCKUP];
}
