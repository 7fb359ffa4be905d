//! Many tasks.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    eventually::seconds, files, guest::Guest, helpers::Hold, livepatch::PATCH_A, monitor, target,
};

const HELD: u32 = 500;
const IDLE: u32 = 9_500;
const SCRAPE: Duration = seconds(1);
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
    guest.metrics(seconds(90), |metrics| {
        metrics.expect(
            "livepatch_stuck_tasks{patch=lpm_patch_a,reason=sleeping}",
            held,
        )?;
        metrics.expect_sum("livepatch_pending_tasks", held)?;
        metrics.expect(
            "livepatch_blocking_tasks{patch=lpm_patch_a,object=lpm_target,function=lpm_hold}",
            held,
        )
    })?;

    let mut slowest = Duration::ZERO;
    let mut memory = 0.0_f64;
    for _ in 0..10 {
        let begin = Instant::now();
        let metrics = guest.monitor()?.scrape()?;
        slowest = slowest.max(begin.elapsed());
        memory = memory.max(metrics.get("process_resident_memory_bytes")?);
        metrics.expect_sum("livepatch_pending_tasks", held)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    guest.note(format!(
        "slowest of ten scrapes {slowest:?}, resident memory {:.1} MiB",
        memory / 1024.0 / 1024.0
    ))?;
    ensure!(slowest < SCRAPE, "a scrape took {slowest:?}");
    ensure!(memory < MEMORY, "the monitor uses {memory} bytes");

    let begin = Instant::now();
    let blockers = monitor::blockers()?;
    guest.note(format!("`blockers` took {:?}", begin.elapsed()))?;
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
    guest.metrics(seconds(20), |metrics| {
        metrics.expect_sum("livepatch_pending_tasks", 0.0)?;
        metrics.expect("livepatch_patch_enabled{patch=lpm_patch_a}", 1.0)
    })?;
    Ok(())
}
