//! Hosts that do not give the monitor everything it wants.

use anyhow::{Result, ensure};

use crate::{
    eventually::seconds,
    exposition::{Exposition, ended},
    guest::Guest,
    helpers::{Confinement, Hold},
    livepatch::PATCH_A,
    monitor,
    probes::Probes,
    runbooks::{self, Walk},
    target,
};

/// Without the capabilities for BPF (and for others' stacks): sysfs and /proc
/// still show that a transition is stuck and on how many tasks.
pub(super) fn without_bpf(guest: &mut Guest) -> Result<()> {
    let metrics = stuck(guest, Confinement::NoBpf)?;
    metrics.expect_sum("livepatch_pending_tasks", 1.0)?;
    expect_no_bpf(&Probes::read()?)?;
    expect_in_log("CAP_BPF")?;
    runbooks::follow(
        guest,
        &Walk {
            page: "LivepatchMonitorDegraded",
            seen: &["degraded: ", "CAP_BPF", "probes can be attached"],
            ..Walk::default()
        },
    )?;
    expect_end(guest)
}

/// Without the kernel's types: the blocking task is still known, and its function.
pub(super) fn without_btf(guest: &mut Guest) -> Result<()> {
    let metrics = stuck(guest, Confinement::NoBtf)?;
    // No types, no fentry: the same bodies run as kprobes.
    Probes::read()?.expect("klp_init_transition", "kprobe")?;
    target::expect_blocker_named(&metrics)?;
    expect_in_log("BTF")?;
    expect_end(guest)
}

/// The first scrape in which a transition is stuck on one task.
fn stuck(guest: &mut Guest, confinement: Confinement) -> Result<Exposition> {
    guest.start_monitor_confined(confinement, &["--stuck-after", "3s"])?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    let metrics = guest.wait_for(seconds(30), "livepatch_stuck_tasks", 1.0)?;
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
    Ok(metrics)
}

fn expect_no_bpf(probes: &Probes) -> Result<()> {
    for method in ["fentry", "kprobe", "tracepoint", "iterator"] {
        probes.expect_none_by(method)?;
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

/// The end is seen by polling, which takes time.
fn expect_end(guest: &mut Guest) -> Result<()> {
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(seconds(15), &ended("patch", "completed"), 1.0)?;
    metrics.expect_at_rest("lpm_patch_a")
}
