//! Transitions that a task holds up, each for another reason.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_test_support::http;

use super::clock::{expect_between, unix_seconds};
use crate::{
    eventually::seconds,
    exposition::{ended, expect_no_address},
    guest::Guest,
    helpers::Hold,
    livepatch::{self, Livepatch, PATCH_A, PATCH_B},
    monitor::{self, Blockers, PendingTask},
    target,
};

/// `--stuck-after` of [`held_by_user_task`], in seconds.
const STUCK_AFTER: f64 = 12.0;

/// A livepatch that a task of a service holds up, from load to completion, and the whole
/// exposition while it is stuck.
pub(super) fn held_by_user_task(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--stuck-after", &format!("{STUCK_AFTER}s")])?;
    target::load()?;
    let holder = guest.hold(&Hold::of_a_service())?;
    let asked = unix_seconds()?;
    PATCH_A.load()?;
    let loaded = unix_seconds()?;
    let metrics = guest.wait_for(seconds(10), "livepatch_pending_tasks", 1.0)?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    metrics.expect(
        "livepatch_pending_tasks{patch=lpm_patch_a,reason=sleeping}",
        1.0,
    )?;
    // On a slow machine it may have become stuck by now.
    if unix_seconds()? - asked < STUCK_AFTER {
        metrics.expect_sum("livepatch_stuck_tasks", 0.0)?;
    }
    // A scrape before the event of the start shows the time in the kernel's log, by another clock.
    let metrics = guest.wait_start_noted(1.0)?;
    let start = metrics.get("livepatch_transition_start_timestamp_seconds{patch=lpm_patch_a}")?;
    expect_between("the transition's start", start, asked, loaded)?;

    let metrics = guest.wait_for(seconds(30), "livepatch_stuck_tasks", 1.0)?;
    target::expect_blocker_named(&metrics)?;
    metrics.expect_sum("livepatch_blocking_tasks", 1.0)?;
    metrics.expect_sum("livepatch_transitions_total", 0.0)?;
    let stuck_for = unix_seconds()? - asked;
    ensure!(
        stuck_for >= STUCK_AFTER,
        "it is stuck after {STUCK_AFTER} s, the monitor says so after {stuck_for} s"
    );
    // 6.1 and later show which objects are patched.
    let shows_objects = Path::new(&livepatch::patched_file("lpm_patch_a", "vmlinux")).exists();
    let golden = if shows_objects {
        "golden/held.prom"
    } else {
        "golden/held_without_objects.prom"
    };
    guest.file(golden, &metrics.masked())?;

    // With the stack of the task.
    let page = http::body(monitor::ADDRESS, "/")?;
    ensure!(page.contains("lpm_hold+"), "no stack on the page:\n{page}");
    expect_no_address(&page)?;

    let blockers = monitor::blockers()?;
    ensure!(
        blockers.patch.as_deref() == Some("lpm_patch_a")
            && blockers.direction.as_deref() == Some("patch")
            && blockers.pending == 1
            && blockers
                .running_for_seconds
                .is_some_and(|age| age >= STUCK_AFTER),
        "`blockers` says {blockers:?}"
    );
    let task = blockers.task(holder.pid)?;
    expect_asleep(task, "lpm_hold", "lpm_hold+")?;
    ensure!(
        task.pid == holder.pid
            && task.comm == "holder"
            && task.unit.as_deref() == Some("holder.service")
            && !task.kthread,
        "`blockers` says {task:?}"
    );
    let answer = monitor::command(&["blockers"])?;
    let text = String::from_utf8(answer.output).context("`blockers` is not UTF-8")?;
    for part in [
        &holder.pid.to_string(),
        "holder.service",
        "lpm_hold",
        "lpm_patch_a",
    ] {
        ensure!(
            text.contains(part),
            "`blockers` does not say {part}:\n{text}"
        );
    }

    let released = unix_seconds()?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let done = unix_seconds()?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 1.0)?;
    metrics.expect_at_rest("lpm_patch_a")?;
    expect_between(
        "the transition's duration",
        metrics.get("livepatch_patching_duration_seconds{patch=lpm_patch_a}")?,
        released - loaded,
        done - asked,
    )?;
    let blockers = monitor::blockers()?;
    ensure!(
        blockers.pending == 0 && blockers.tasks.is_empty(),
        "after the end `blockers` says {blockers:?}"
    );
    Ok(())
}

/// A kthread in uninterruptible sleep, which no signal reaches.
pub(super) fn held_by_sleeping_kthread(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--stuck-after", "3s"])?;
    target::load()?;
    target::kthread_sleep(true)?;
    PATCH_A.load()?;
    let metrics = guest.wait_for(seconds(20), "livepatch_stuck_tasks", 1.0)?;
    metrics.expect(
        "livepatch_stuck_tasks{patch=lpm_patch_a,reason=sleeping}",
        1.0,
    )?;
    metrics.expect(
        "livepatch_blocking_tasks{patch=lpm_patch_a,object=lpm_target,function=lpm_kthread_sleep}",
        1.0,
    )?;
    let blockers = monitor::blockers()?;
    let task = with_comm(&blockers, target::SLEEPER)?;
    expect_asleep(task, "lpm_kthread_sleep", "lpm_kthread_sleep+")?;
    ensure!(task.kthread, "`blockers` says {task:?}");
    target::kthread_sleep(false)?;
    expect_completed(guest, PATCH_A, 1.0)
}

/// A kthread that never leaves its function and never sleeps.
pub(super) fn held_by_running_kthread(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--stuck-after", "3s"])?;
    target::load()?;
    target::spin(true)?;
    PATCH_A.load()?;
    let running = "livepatch_stuck_tasks{patch=lpm_patch_a,reason=running}";
    guest.wait_for(seconds(60), running, 1.0)?;
    // It is runnable at every moment, on a CPU or waiting for one.
    let blockers = monitor::blockers()?;
    let task = with_comm(&blockers, target::SPINNER)?;
    ensure!(
        task.reason == "running" && task.kthread,
        "`blockers` says {task:?}"
    );
    target::spin(false)?;
    expect_completed(guest, PATCH_A, 1.0)
}

/// A task asleep in the code of the patch below.
pub(super) fn held_by_stacked_patch(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--stuck-after", "3s"])?;
    target::load()?;
    PATCH_A.apply(seconds(30))?;
    let holder = guest.hold(&Hold::ONE)?;
    PATCH_B.load()?;
    let metrics = guest.wait_for(seconds(20), "livepatch_stuck_tasks", 1.0)?;
    metrics.expect(
        "livepatch_blocking_tasks{patch=lpm_patch_b,object=lpm_target,function=lpm_hold}",
        1.0,
    )?;
    let blockers = monitor::blockers()?;
    expect_asleep(blockers.task(holder.pid)?, "lpm_hold", "livepatch_hold+")?;
    target::release()?;
    expect_completed(guest, PATCH_B, 2.0)
}

/// A task asleep in the code of the patch that is being removed.
pub(super) fn held_during_unpatch(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--stuck-after", "3s"])?;
    target::load()?;
    PATCH_A.apply(seconds(30))?;
    let holder = guest.hold(&Hold::ONE)?;
    PATCH_A.disable()?;
    let metrics = guest.wait_for(seconds(20), "livepatch_stuck_tasks", 1.0)?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=unpatch}",
        1.0,
    )?;
    metrics.expect(
        "livepatch_blocking_tasks{patch=lpm_patch_a,object=lpm_target,function=lpm_hold}",
        1.0,
    )?;
    let blockers = monitor::blockers()?;
    ensure!(
        blockers.direction.as_deref() == Some("unpatch"),
        "`blockers` says {blockers:?}"
    );
    expect_asleep(blockers.task(holder.pid)?, "lpm_hold", "livepatch_hold+")?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    PATCH_A.wait_gone(seconds(15))?;
    guest
        .wait_for(seconds(10), &ended("unpatch", "completed"), 1.0)?
        .expect_none_loaded()
}

/// The transition to this patch completes, as the `number`th.
fn expect_completed(guest: &mut Guest, patch: Livepatch, number: f64) -> Result<()> {
    patch.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), number)?;
    metrics.expect_at_rest(patch.name)?;
    metrics.expect(
        &format!("livepatch_patch_enabled{{patch={}}}", patch.name),
        1.0,
    )
}

fn expect_asleep(task: &PendingTask, function: &str, frame: &str) -> Result<()> {
    ensure!(
        task.reason == "sleeping"
            && task.object.as_deref() == Some("lpm_target")
            && task.function.as_deref() == Some(function)
            && task.stack.iter().any(|line| line.starts_with(frame)),
        "`blockers` should name {function} and show {frame} on the stack, it says {task:?}"
    );
    Ok(())
}

fn with_comm<'a>(blockers: &'a Blockers, comm: &str) -> Result<&'a PendingTask> {
    blockers
        .tasks
        .iter()
        .find(|task| task.comm == comm)
        .with_context(|| format!("`blockers` does not name {comm}: {blockers:?}"))
}
