//! A transition that hundreds of ten thousand threads hold up: the cost of scans and scrapes.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    eventually::seconds, exposition::ended, files, guest::Guest, helpers::Hold, livepatch::PATCH_A,
    monitor, process::cpu_time, target,
};

const HELD: u32 = 500;
const IDLE: u32 = 9_500;
/// One after the other: most of them share a scan of the tasks.
const SCRAPES: u32 = 10;
/// CPU time of one of them, its share of the scans included, on an emulated processor.
const COST: Duration = Duration::from_millis(500);
const MEMORY: f64 = 64.0 * 1024.0 * 1024.0;

/// Ten thousand threads, of which five hundred hold the transition.
pub(super) fn ten_thousand_threads(guest: &mut Guest) -> Result<()> {
    files::write("/proc/sys/kernel/threads-max", "30000")?;
    target::load()?;
    guest.start_monitor(&["--stuck-after", "3s"])?;
    let holder = guest.hold(&Hold {
        threads: HELD,
        idle_threads: IDLE,
        unit: Some("holder.service".to_owned()),
        ..Hold::ONE
    })?;
    guest.note(format!("{} threads are there", HELD + IDLE))?;
    PATCH_A.load()?;
    let held = f64::from(HELD);
    let metrics = guest.wait_for(seconds(90), "livepatch_stuck_tasks", held)?;
    metrics.expect(
        "livepatch_stuck_tasks{patch=lpm_patch_a,reason=sleeping}",
        held,
    )?;
    metrics.expect_sum("livepatch_pending_tasks", held)?;
    metrics.expect(
        "livepatch_blocking_tasks{patch=lpm_patch_a,object=lpm_target,function=lpm_hold}",
        held,
    )?;

    let pid = guest.monitor()?.pid();
    let before = cpu_time(pid)?;
    let mut memory = 0.0_f64;
    for _ in 0..SCRAPES {
        let metrics = guest.scrape()?;
        memory = memory.max(metrics.get("process_resident_memory_bytes")?);
        metrics.expect_sum("livepatch_pending_tasks", held)?;
    }
    let cost = (cpu_time(pid)? - before) / SCRAPES;
    guest.note(format!(
        "CPU time of a scrape {cost:?}, resident memory {:.1} MiB",
        memory / 1024.0 / 1024.0
    ))?;
    ensure!(cost < COST, "a scrape costs {cost:?} of CPU time");
    ensure!(memory < MEMORY, "the monitor uses {memory} bytes");

    let blockers = monitor::blockers()?;
    ensure!(
        blockers.pending == u64::from(HELD),
        "`blockers` counts {} pending tasks",
        blockers.pending
    );
    ensure!(
        blockers
            .tasks
            .iter()
            .all(|task| task.pid == holder.pid && task.reason == "sleeping"),
        "`blockers` says {:?}",
        blockers.tasks
    );

    target::release()?;
    PATCH_A.wait_transition_done(seconds(90))?;
    let metrics = guest.wait_for(seconds(20), &ended("patch", "completed"), 1.0)?;
    metrics.expect_at_rest("lpm_patch_a")?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_patch_a}", 1.0)
}
