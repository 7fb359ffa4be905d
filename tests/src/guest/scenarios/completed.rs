//! Transitions that nothing holds up.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    counters::{ATTEMPT, Counters},
    eventually::seconds,
    exposition::{Exposition, ended},
    files,
    guest::Guest,
    helpers::Hold,
    livepatch::{self, PATCH_A, PATCH_B, REPLACE, VMLINUX},
    modules,
    probes::Probes,
    target,
};

/// A livepatch is loaded and removed, and the metrics show each step once.
pub(super) fn clean_patch_and_unpatch(guest: &mut Guest) -> Result<()> {
    let counters = Counters::of(&[ATTEMPT])?;
    guest.start_monitor(&[])?;
    let metrics = guest.scrape()?;
    metrics.expect("livepatch_supported", 1.0)?;
    metrics.expect_absent("livepatch_monitor_probe_attached{method=none}")?;
    let probes = Probes::read()?;
    probes.expect_none_by("sysfs")?;
    metrics.expect_sum("livepatch_monitor_probes_attached", probes.len())?;
    metrics.expect_none_loaded()?;
    metrics.expect(&ended("patch", "completed"), 0.0)?;

    VMLINUX.apply(seconds(30))?;
    let srcversion = files::read("/sys/module/lpm_vmlinux/srcversion")?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 1.0)?;
    metrics.expect_sum(
        &format!(
            "livepatch_patch_info{{patch=lpm_vmlinux,srcversion={}}}",
            srcversion.trim()
        ),
        1.0,
    )?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_vmlinux}", 1.0)?;
    metrics.expect("livepatch_patch_forced{patch=lpm_vmlinux}", 0.0)?;
    metrics.expect(
        "livepatch_patch_functions{patch=lpm_vmlinux,object=vmlinux}",
        1.0,
    )?;
    expect_patched(&metrics, "lpm_vmlinux", "vmlinux", 1.0)?;
    metrics.expect_at_rest("lpm_vmlinux")?;
    metrics.expect_series_at_most(60)?;
    Probes::read()?.expect_received("klp_init_transition", 1.0)?;
    metrics.expect(
        "livepatch_transition_attempts_total",
        counters.metric(ATTEMPT)?,
    )?;

    VMLINUX.remove(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("unpatch", "completed"), 1.0)?;
    metrics.expect_none_loaded()?;
    metrics.expect_sum("livepatch_transitions_total", 2.0)?;
    metrics.expect("livepatch_patch_load_failures_total", 0.0)?;
    metrics.expect("livepatch_monitor_events_lost_total", 0.0)
}

/// An atomic replace is one transition; what it replaced is gone.
pub(super) fn atomic_replace_of_two(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    target::load()?;
    PATCH_A.apply(seconds(30))?;
    PATCH_B.apply(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 2.0)?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_patch_a}", 1.0)?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_patch_b}", 1.0)?;
    metrics.expect_sum("livepatch_patch_info", 2.0)?;

    REPLACE.apply(seconds(30))?;
    PATCH_A.wait_gone(seconds(15))?;
    PATCH_B.wait_gone(seconds(15))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 3.0)?;
    metrics.expect_sum("livepatch_patch_info", 1.0)?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_replace}", 1.0)?;
    metrics.expect_at_rest("lpm_replace")?;
    metrics.expect_absent("livepatch_patch_enabled{patch=lpm_patch_a}")?;
    metrics.expect_absent("livepatch_patch_enabled{patch=lpm_patch_b}")?;
    metrics.expect(
        "livepatch_patch_functions{patch=lpm_replace,object=lpm_target}",
        4.0,
    )?;
    metrics.expect_sum("livepatch_transitions_total", 3.0)?;
    // sysfs has shown it since 6.11.
    let replace = metrics.label_values("livepatch_patch_info", "replace")?;
    ensure!(
        replace == ["true"] || replace == ["unknown"],
        "an atomic replace is shown as {replace:?}"
    );
    Ok(())
}

/// A livepatch waits for its modules; one of them is loaded during the transition.
pub(super) fn target_module_loaded_later(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    PATCH_A.apply(seconds(30))?;
    // What sysfs shows is right at once.
    let metrics = guest.scrape()?;
    expect_patched(&metrics, "lpm_patch_a", "vmlinux", 1.0)?;
    expect_patched(&metrics, "lpm_patch_a", "lpm_target", 0.0)?;
    target::load()?;
    let metrics = guest.scrape()?;
    expect_patched(&metrics, "lpm_patch_a", "lpm_target", 1.0)?;
    expect_patched(&metrics, "lpm_patch_a", "lpm_late", 0.0)?;
    PATCH_A.remove(seconds(30))?;

    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    modules::load(target::LATE)?;
    let metrics = guest.scrape()?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    expect_patched(&metrics, "lpm_patch_a", "lpm_late", 1.0)?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 2.0)?;
    metrics.expect_at_rest("lpm_patch_a")
}

/// Whether an object is patched is in sysfs since 6.1, and so in the metrics.
fn expect_patched(metrics: &Exposition, patch: &str, object: &str, expected: f64) -> Result<()> {
    let series = format!("livepatch_patch_object_patched{{patch={patch},object={object}}}");
    if Path::new(&livepatch::patched_file(patch, object)).exists() {
        metrics.expect(&series, expected)
    } else {
        metrics.expect_absent(&series)
    }
}
