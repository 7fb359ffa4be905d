//! Transitions that end otherwise than by completing.

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_test_support::http;
use rustix::io::Errno;

use crate::{
    eventually::seconds,
    exposition::ended,
    guest::Guest,
    helpers::Hold,
    livepatch::{FORCED, Livepatch, PATCH_A},
    modules, monitor,
    runbooks::{self, Walk},
    target,
};

/// Reversed before its end: two directions, two entries.
pub(super) fn reversed(guest: &mut Guest) -> Result<()> {
    hold_up(guest, PATCH_A)?;
    PATCH_A.disable()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    PATCH_A.wait_gone(seconds(15))?;
    let metrics = guest.wait_for(seconds(10), &ended("unpatch", "completed"), 1.0)?;
    metrics.expect("livepatch_transition_reversals_total", 1.0)?;
    metrics.expect(&ended("patch", "reversed"), 1.0)?;
    metrics.expect_sum("livepatch_transitions_total", 2.0)?;
    metrics.expect_none_loaded()
}

/// Forced while patching: the metric is 1 for as long as the patch is loaded, also after a restart
/// of the monitor. Then forced while unpatching: the patch is gone, its module stays for good.
pub(super) fn forced(guest: &mut Guest) -> Result<()> {
    guest.will_stay(FORCED.name);
    hold_up(guest, FORCED)?;
    FORCED.force()?;
    FORCED.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "forced"), 1.0)?;
    metrics.expect("livepatch_patch_forced{patch=lpm_forced}", 1.0)?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_forced}", 1.0)?;
    metrics.expect("livepatch_transition_forces_total", 1.0)?;
    metrics.expect_sum("livepatch_transitions_total", 1.0)?;
    metrics.expect_at_rest("lpm_forced")?;
    runbooks::follow(
        guest,
        &Walk {
            page: "LivepatchForced",
            seen: &["forcing remaining tasks", "transition forced"],
            ..Walk::default()
        },
    )?;
    guest.kill_monitor()?;
    guest.start_monitor(&[])?;
    let metrics = guest.scrape()?;
    metrics.expect("livepatch_patch_forced{patch=lpm_forced}", 1.0)?;

    target::release()?;
    target::wait_holders(0)?;
    target::hold()?;
    guest.hold(&Hold::ONE)?;
    FORCED.disable()?;
    FORCED.expect_held()?;
    FORCED.force()?;
    FORCED.wait_transition_done(seconds(30))?;
    FORCED.wait_gone(seconds(15))?;
    let metrics = guest.wait_for(seconds(10), &ended("unpatch", "forced"), 1.0)?;
    metrics.expect("livepatch_transition_forces_total", 1.0)?;
    metrics.expect_sum("livepatch_transitions_total", 1.0)?;
    metrics.expect_none_loaded()
}

/// A pre-patch callback refuses: the kernel starts the transition, and cancels it.
pub(super) fn cancelled(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    modules::expect_refused("lpm_fails", Errno::NODEV)?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "cancelled"), 1.0)?;
    metrics.expect("livepatch_patch_load_failures_total", 1.0)?;
    metrics.expect_sum("livepatch_transitions_total", 1.0)?;
    metrics.expect_none_loaded()
}

/// Another transition runs: the kernel refuses, and logs nothing.
pub(super) fn refused(guest: &mut Guest) -> Result<()> {
    hold_up(guest, PATCH_A)?;
    modules::expect_refused("lpm_refused", Errno::BUSY)?;
    let metrics = guest.wait_for(seconds(10), "livepatch_patch_load_failures_total", 1.0)?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    metrics.expect_sum("livepatch_transition_active", 1.0)?;
    metrics.expect_sum("livepatch_transitions_total", 0.0)?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 1.0)?;
    metrics.expect("livepatch_patch_load_failures_total", 1.0)
}

/// A livepatch fails for a module that is being loaded: the kernel refuses the module.
pub(super) fn target_module_refused(guest: &mut Guest) -> Result<()> {
    const REFUSED: &str = "livepatch_modules_refused_total{patch=lpm_patch_a}";
    guest.start_monitor(&[])?;
    PATCH_A.apply(seconds(30))?;
    guest.scrape()?.expect(REFUSED, 0.0)?;
    // A module of that name without the function that lpm_patch_a replaces in it.
    let refused = modules::load_renamed("lpm_hook", target::LATE);
    let error = refused.err().context("the kernel loaded lpm_late")?;
    ensure!(
        error.downcast_ref::<Errno>() == Some(&Errno::INVAL),
        "lpm_late was refused otherwise: {error:#}"
    );
    guest.wait_for(seconds(10), REFUSED, 1.0)?;
    let log = monitor::log();
    ensure!(
        log.contains("the kernel refused to load that module") && log.contains("lpm_late"),
        "the log does not say it: {log}"
    );
    let page = http::Client::default().body(monitor::ADDRESS, "/")?;
    ensure!(
        page.contains("The kernel refused to load lpm_late"),
        "the page does not say it: {page}"
    );
    PATCH_A.remove(seconds(30))
}

/// A monitor that sees a transition which a task holds up.
fn hold_up(guest: &mut Guest, patch: Livepatch) -> Result<()> {
    guest.start_monitor(&[])?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    patch.load()?;
    let metrics = guest.wait_for(seconds(20), "livepatch_pending_tasks", 1.0)?;
    metrics.expect(
        &format!(
            "livepatch_transition_active{{patch={},direction=patch}}",
            patch.name
        ),
        1.0,
    )
}
