//! Reports after which the kernel continues, one row each. They count as the signal
//! [`crate::crash::Signal::Warning`], with a separate name.

use super::format::{Found, matches};

struct Row {
    name: &'static str,
    /// Format strings of its first line.
    headlines: &'static [&'static str],
}

const fn row(name: &'static str, headlines: &'static [&'static str]) -> Row {
    Row { name, headlines }
}

const ROWS: &[Row] = &[
    // mm/kasan/report.c, mm/kfence/report.c, kernel/kcsan/report.c, mm/kmsan/report.c
    row(
        "kasan",
        &[
            "BUG: KASAN: {bug} in {place}",
            "BUG: KASAN: {bug} in ",
            // up to 4.3
            "BUG: KASan: {bug} in {place}",
            "BUG: KASan: {bug} in ",
        ],
    ),
    row(
        "kfence",
        &["BUG: KFENCE: {bug} in {place}", "BUG: KFENCE: {bug} in "],
    ),
    row(
        "kcsan",
        &[
            "BUG: KCSAN: data-race in {symbol}",
            "BUG: KCSAN: assert: race in {symbol}",
        ],
    ),
    row(
        "kmsan",
        &["BUG: KMSAN: {bug} in {place}", "BUG: KMSAN: {bug} in "],
    ),
    // lib/ubsan.c: since 5.13; before
    row("ubsan", &["UBSAN: {} in {}:{n}:{n}"]),
    // kernel/sched/core.c
    row(
        "scheduling_while_atomic",
        &["BUG: scheduling while atomic: {comm}/{pid}/0x"],
    ),
    row(
        "sleeping_in_atomic",
        &["BUG: sleeping function called from invalid context at "],
    ),
    // lib/smp_processor_id.c
    row(
        "preemptible",
        &["BUG: using {} in preemptible [{x}] code: {comm}/{pid}"],
    ),
    // kernel/workqueue.c
    row("workqueue_lockup", &["BUG: workqueue lockup - pool"]),
    row("workqueue_leak", &["BUG: workqueue leaked "]),
    // lib/list_debug.c
    row(
        "list_corruption",
        &[
            "list_add corruption",
            "list_del corruption",
            "list_add double add",
        ],
    ),
    // lib/refcount.c; before 4.13 it did not exist
    row(
        "refcount",
        &[
            "refcount_t: saturated;",
            "refcount_t: addition on 0;",
            "refcount_t: increment on 0;",
            "refcount_t: underflow;",
            "refcount_t: decrement hit 0;",
            "refcount_t: unknown saturation event",
        ],
    ),
    // kernel/locking/spinlock_debug.c
    row(
        "spinlock",
        &[
            "BUG: spinlock {} on CPU#{cpu}, {comm}/{pid}",
            "BUG: rwlock {} on CPU#{cpu}, {comm}/{pid}",
        ],
    ),
    row("held_lock", &["BUG: held lock freed!"]),
    // mm/slub.c
    row(
        "slab",
        &["BUG {} (Not tainted): ", "BUG {} (Tainted: {}): "],
    ),
    // mm/usercopy.c
    row(
        "usercopy",
        &["usercopy: Kernel memory {} attempt detected "],
    ),
    // arch/x86/mm/extable.c
    row("unchecked_msr", &["unchecked MSR access error: "]),
    // Errors that the kernel survives by killing the task: arch/x86/kernel/cpu/mce/core.c,
    // arch/powerpc/kernel/mce.c since 4.19 and before, arch/s390/kernel/nmi.c
    row(
        "machine_check",
        &[
            "mce: Uncorrected hardware memory error in user-access at ",
            "MCE: CPU{cpu}: machine check (Severe) {}[Recovered]",
            "Severe Machine check interrupt [Recovered]",
            "mcck: Terminating task because of machine malfunction ",
        ],
    ),
];

pub(super) fn recognise(text: &str) -> Option<(&'static str, Found)> {
    ROWS.iter().find_map(|row| {
        let mut formats = row.headlines.iter();
        Some((row.name, formats.find_map(|format| matches(format, text))?))
    })
}
