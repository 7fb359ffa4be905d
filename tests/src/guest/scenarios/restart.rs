//! The monitor starts, or starts again, during a transition.

use anyhow::Result;

use super::clock::{expect_between, unix_seconds};
use crate::{
    eventually::seconds, guest::Guest, helpers::Hold, kernel_log, livepatch::PATCH_A, target,
};

const ACTIVE: &str = "livepatch_transition_active{patch=lpm_patch_a,direction=patch}";
const SLEEPING: &str = "livepatch_pending_tasks{patch=lpm_patch_a,reason=sleeping}";
const START: &str = "livepatch_transition_start_timestamp_seconds{patch=lpm_patch_a}";
const COMPLETED: &str = "livepatch_transitions_total{direction=patch,outcome=completed}";
const COMPLETE: &str = "livepatch_patching_complete_timestamp_seconds{patch=lpm_patch_a}";
const TOOK: &str = "livepatch_patching_duration_seconds{patch=lpm_patch_a}";

/// Started during a transition, it finds out which task holds it up and, from the
/// kernel's log, since when.
pub(super) fn joined_in_mid_transition(guest: &mut Guest) -> Result<()> {
    target::load()?;
    guest.hold(&Hold::ONE)?;
    let asked = unix_seconds()?;
    PATCH_A.load()?;
    let loaded = unix_seconds()?;
    PATCH_A.expect_held()?;
    guest.start_monitor(&["--stuck-after", "1s"])?;
    let metrics = guest.wait_for(seconds(20), "livepatch_stuck_tasks", 1.0)?;
    metrics.expect(ACTIVE, 1.0)?;
    metrics.expect(SLEEPING, 1.0)?;
    metrics.expect_absent(COMPLETE)?;
    metrics.expect_sum("livepatch_kernel_info", 1.0)?;
    let start = metrics.get(START)?;
    // It is what the kernel's log says, by the clock of the log.
    let (least, most) = kernel_log::clock_ahead()?;
    guest.note(format!(
        "the clock of the log is {most:.3} s ahead at the most"
    ))?;
    expect_between(
        "the transition's start",
        start,
        asked + least,
        loaded + most,
    )?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), COMPLETED, 1.0)?;
    metrics.expect_at_rest("lpm_patch_a")?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_patch_a}", 1.0)
}

/// `kill -9` and a new start during a transition: the same start time, and one entry
/// with the whole duration.
pub(super) fn killed_in_mid_transition(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    let asked = unix_seconds()?;
    PATCH_A.load()?;
    let loaded = unix_seconds()?;
    // A scrape before the event of the start shows the time in the kernel's log, by another clock.
    guest.wait_start_noted(1.0)?;
    let before = start_while_held(guest)?;
    guest.kill_monitor()?;
    // The kernel continues while no monitor runs.
    PATCH_A.expect_held()?;
    guest.start_monitor(&[])?;
    let after = start_while_held(guest)?;
    expect_between("the start, after the restart", after, before, before)?;
    let released = unix_seconds()?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let done = unix_seconds()?;
    let metrics = guest.wait_for(seconds(10), COMPLETED, 1.0)?;
    metrics.expect_sum("livepatch_transitions_total", 1.0)?;
    metrics.expect_at_rest("lpm_patch_a")?;
    expect_between(
        "the transition's duration",
        metrics.get("livepatch_patching_duration_seconds{patch=lpm_patch_a}")?,
        released - loaded,
        done - asked,
    )?;

    // Since when the patch is in force, and how long it took to get there, are known
    // to the next monitor too.
    let complete = metrics.get(COMPLETE)?;
    expect_between("the end of patching", complete, released, done)?;
    let took = metrics.get(TOOK)?;
    expect_between(
        "the time patching took",
        took,
        released - loaded,
        done - asked,
    )?;
    guest.kill_monitor()?;
    guest.start_monitor(&[])?;
    let metrics = guest.scrape()?;
    metrics.expect(COMPLETE, complete)?;
    metrics.expect(TOOK, took)?;

    // A transition that ended while no monitor ran is not counted.
    guest.kill_monitor()?;
    PATCH_A.remove(seconds(30))?;
    guest.start_monitor(&[])?;
    let metrics = guest.scrape()?;
    metrics.expect_sum("livepatch_transitions_total", 0.0)?;
    metrics.expect_none_loaded()
}

/// The start of the transition that one sleeping task holds up.
fn start_while_held(guest: &mut Guest) -> Result<f64> {
    let metrics = guest.wait_for(seconds(20), "livepatch_pending_tasks", 1.0)?;
    metrics.expect(ACTIVE, 1.0)?;
    metrics.expect(SLEEPING, 1.0)?;
    metrics.get(START)
}
