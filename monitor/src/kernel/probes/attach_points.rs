//! The functions and tracepoints to which each probe attaches.

use livepatch_monitor_ebpf::EventKind;

pub(super) struct Spec {
    pub(super) kind: EventKind,
    pub(super) site: Site,
}

pub(super) enum Site {
    /// At the entry of a function, under the first of its names that exists.
    Function {
        /// Names of the function in different kernel versions.
        symbols: &'static [&'static str],
        fentry: &'static str,
        kprobe: &'static str,
    },
    /// At the entry of a function, but only by kprobe.
    Kprobe {
        program: &'static str,
        symbols: &'static [&'static str],
    },
    /// At a tracepoint.
    Tracepoint {
        program: &'static str,
        name: &'static str,
    },
}

macro_rules! function {
    ($kind:ident, $base:literal, [$($symbol:literal),+]) => {
        Spec {
            kind: EventKind::$kind,
            site: Site::Function {
                symbols: &[$($symbol),+],
                fentry: concat!("fentry_", $base),
                kprobe: concat!("kprobe_", $base),
            },
        }
    };
}

macro_rules! tracepoint {
    ($kind:ident, $name:literal, $program:literal) => {
        Spec {
            kind: EventKind::$kind,
            site: Site::Tracepoint {
                program: concat!("tracepoint_", $program),
                name: $name,
            },
        }
    };
}

/// In the order of [`EventKind::ALL`]. The functions of livepatch are those of
/// kernel/livepatch/{core,transition,patch}.c, 5.10 to 7.2.
pub(super) const SPECS: &[Spec] = &[
    function!(EnablePatch, "enable_patch", ["klp_enable_patch"]),
    function!(InitTransition, "init_transition", ["klp_init_transition"]),
    function!(
        TryCompleteTransition,
        "try_complete_transition",
        ["klp_try_complete_transition"]
    ),
    function!(
        CompleteTransition,
        "complete_transition",
        ["klp_complete_transition"]
    ),
    function!(
        CancelTransition,
        "cancel_transition",
        ["klp_cancel_transition"]
    ),
    function!(
        ReverseTransition,
        "reverse_transition",
        ["klp_reverse_transition"]
    ),
    function!(
        ForceTransition,
        "force_transition",
        ["klp_force_transition"]
    ),
    function!(PatchObject, "patch_object", ["klp_patch_object"]),
    // Split in two with the atomic replace of nops; plain before and after.
    function!(
        UnpatchObject,
        "unpatch_object",
        ["__klp_unpatch_object", "klp_unpatch_object"]
    ),
    function!(FreePatch, "free_patch", ["klp_free_patch_work_fn"]),
    function!(ModuleComing, "module_coming", ["klp_module_coming"]),
    function!(ModuleGoing, "module_going", ["klp_module_going"]),
    tracepoint!(ModuleFree, "module_free", "module_free"),
    tracepoint!(ModuleLoad, "module_load", "module_load"),
    tracepoint!(Printk, "console", "printk_console"),
    // kernel/panic.c
    function!(OopsEnter, "oops_enter", ["oops_enter"]),
    // It is variadic, which fentry does not take; the function behind it, which is
    // not, came with 6.17.
    Spec {
        kind: EventKind::Panic,
        site: Site::Kprobe {
            program: "kprobe_panic",
            symbols: &["vpanic", "panic"],
        },
    },
    function!(Warn, "warn", ["__warn"]),
    function!(AddTaint, "add_taint", ["add_taint"]),
    tracepoint!(RcuStall, "rcu_stall_warning", "rcu_stall_warning"),
    tracepoint!(HungTask, "sched_process_hang", "sched_process_hang"),
];
