//! The scenarios, by theme.

mod tools;

use anyhow::Result;

use crate::guest::Guest;

/// Something that must hold on every kernel.
pub(crate) struct Scenario {
    /// Its name on the command line and in reports.
    pub(crate) name: &'static str,
    /// Fails with what was expected and what was seen.
    pub(crate) run: fn(&mut Guest) -> Result<()>,
}

/// All, in the order of a full run. The first ones need no monitor: if they fail,
/// the machine or the test modules are at fault.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "held_transition_is_real",
        run: tools::held_transition_is_real,
    },
    Scenario {
        name: "kthreads_hold_too",
        run: tools::kthreads_hold_too,
    },
    Scenario {
        name: "stack_and_replace",
        run: tools::stack_and_replace,
    },
    Scenario {
        name: "late_modules_are_patched",
        run: tools::late_modules_are_patched,
    },
    Scenario {
        name: "refusals",
        run: tools::refusals,
    },
];
