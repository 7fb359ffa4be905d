//! Hosts that do not give the monitor all that it wants.

use anyhow::{Result, ensure};

use crate::{
    eventually::seconds,
    exposition::Exposition,
    guest::Guest,
    helpers::{Confinement, Hold},
    livepatch::PATCH_A,
    monitor, target,
};

/// Without the capabilities for BPF (and for others' stacks): sysfs and /proc
/// still tell that a transition is stuck and on how many tasks.
pub(super) fn without_bpf(guest: &mut Guest) -> Result<()> {
    let metrics = hold_up(guest, Confinement::NoBpf, |metrics| {
        metrics.expect_sum("livepatch_pending_tasks", 1.0)?;
        metrics.expect_sum("livepatch_stuck_tasks", 1.0)
    })?;
    expect_no_bpf(&metrics)?;
    expect_in_log("CAP_BPF")?;
    expect_end(guest)
}

/// Without the kernel's types: who holds is still told, and where.
pub(super) fn without_btf(guest: &mut Guest) -> Result<()> {
    hold_up(guest, Confinement::NoBtf, |metrics| {
        // No types, no fentry: the same bodies run as kprobes.
        metrics.expect(
            "livepatch_monitor_probe_attached{probe=klp_init_transition,method=kprobe}",
            1.0,
        )?;
        target::expect_blocker_named(metrics)
    })?;
    expect_in_log("BTF")?;
    expect_end(guest)
}

fn hold_up(
    guest: &mut Guest,
    confinement: Confinement,
    check: impl Fn(&Exposition) -> Result<()>,
) -> Result<Exposition> {
    guest.start_monitor_confined(confinement, &["--stuck-after", "3s"])?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    guest.metrics(seconds(30), |metrics| {
        metrics.expect_sum("livepatch_patch_info{patch=lpm_patch_a}", 1.0)?;
        metrics.expect("livepatch_patch_enabled{patch=lpm_patch_a}", 1.0)?;
        metrics.expect(
            "livepatch_patch_functions{patch=lpm_patch_a,object=lpm_target}",
            4.0,
        )?;
        metrics.expect(
            "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
            1.0,
        )?;
        check(metrics)
    })
}

fn expect_no_bpf(metrics: &Exposition) -> Result<()> {
    for method in ["fentry", "kprobe", "tracepoint", "iterator"] {
        metrics.expect_absent(&format!(
            "livepatch_monitor_probe_attached{{method={method}}}"
        ))?;
    }
    Ok(())
}

fn expect_in_log(what: &str) -> Result<()> {
    let log = monitor::log();
    ensure!(
        log.contains(what),
        "the monitor's log does not say that it lacks {what}:\n{log}"
    );
    Ok(())
}

/// The end is seen by polling: give it the time.
fn expect_end(guest: &mut Guest) -> Result<()> {
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    guest.metrics(seconds(15), |metrics| {
        metrics.expect_sum("livepatch_transition_active", 0.0)?;
        metrics.expect_sum("livepatch_pending_tasks", 0.0)?;
        metrics.expect(
            "livepatch_transition_duration_seconds_count{direction=patch,outcome=completed}",
            1.0,
        )
    })?;
    Ok(())
}
