//! The scenarios, by subject.

pub(crate) mod clock;
mod coexistence;
mod completed;
mod degraded;
mod endurance;
mod held;
mod hostile;
mod no_interference;
mod operators;
mod outcomes;
mod preflight;
mod privileges;
mod restart;
mod scale;
mod storm;
mod test_modules;

use anyhow::Result;

use crate::guest::Guest;

/// Something that must hold on every kernel.
pub(crate) struct Scenario {
    /// Its name on the command line and in reports.
    pub(crate) name: &'static str,
    /// Fails with what was expected and what was seen.
    pub(crate) run: fn(&mut Guest) -> Result<()>,
}

/// Scenarios called as their functions are.
macro_rules! scenarios {
    ($($theme:ident: $($name:ident),+;)+) => {
        &[$($(Scenario { name: stringify!($name), run: $theme::$name }),+),+]
    };
}

/// All scenarios, in the order of a full run. The first subject needs no monitor: if one of its
/// scenarios fails, the machine or the test modules are at fault.
pub(crate) const ALL: &[Scenario] = scenarios! {
    test_modules: held_transition_is_real, kthreads_hold_too, stack_and_replace, late_modules_are_patched, refusals;
    completed: clean_patch_and_unpatch, atomic_replace_of_two, target_module_loaded_later;
    held: held_by_user_task, held_by_sleeping_kthread, held_by_running_kthread, held_by_stacked_patch, held_during_unpatch;
    outcomes: reversed, forced, cancelled, refused, target_module_refused;
    restart: joined_in_mid_transition, killed_in_mid_transition;
    hostile: names_break_nothing;
    degraded: without_bpf, without_btf;
    privileges: privileges_are_given_up, a_dynamic_user_is_enough;
    scale: ten_thousand_threads;
    preflight: forecast_comes_true, unfit_modules_are_refused, tracers_are_named;
    operators: waited_for_and_in_force, runbooks_are_followed, without_ftrace;
    coexistence: events_then_livepatch, tracers_then_livepatch, programs_then_livepatch, livepatch_then_others, livepatch_then_overriders, redirections_and_livepatch;
    no_interference: probed_function_can_be_patched, first_attempts_succeed, transitions_take_no_longer;
};

/// All of mode `endurance`, in the order of a full run.
pub(crate) const ENDURANCE: &[Scenario] = scenarios! {
    endurance: quiet;
    storm: livepatch_storm, report_storm, stopped_monitor;
    endurance: long_run;
};

#[cfg(test)]
mod tests {
    use livepatch_monitor_tests::protocol::{ENDURANCE_SCENARIOS, SCENARIOS};

    use super::*;

    #[test]
    fn the_host_knows_them_all() {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, SCENARIOS);
    }

    #[test]
    fn the_host_knows_those_of_endurance() {
        let names: Vec<_> = ENDURANCE.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, ENDURANCE_SCENARIOS);
    }
}
