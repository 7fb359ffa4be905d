//! Kernel lockdown, which only a reboot can revert.

use anyhow::{Result, ensure};

use crate::{
    eventually::seconds,
    exposition::ended,
    files,
    guest::{Guest, Holder},
    helpers::Hold,
    livepatch::PATCH_A,
    monitor, target,
};

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Modules that are needed are loaded before: a locked-down kernel refuses unsigned modules.
pub(super) fn locked_down(guest: &mut Guest) -> Result<()> {
    target::load()?;
    let holder = guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;

    raise("integrity")?;
    guest.start_monitor(&["--stuck-after", "3s"])?;
    let metrics = guest.wait_for(seconds(40), "livepatch_stuck_tasks", 1.0)?;
    // The monitor is allowed everything that it needs.
    metrics.expect_absent("livepatch_monitor_probe_attached{method=none}")?;
    target::expect_blocker_named(&metrics)?;
    expect_named(holder)?;
    let log = monitor::log();
    ensure!(
        !log.contains("lockdown"),
        "what does lockdown cost here? {log}"
    );
    guest.stop_monitor()?;

    raise("confidentiality")?;
    guest.start_monitor(&["--stuck-after", "3s"])?;
    let metrics = guest.wait_for(seconds(40), "livepatch_stuck_tasks", 1.0)?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    metrics.expect(
        "livepatch_monitor_probe_attached{probe=task_scan,method=none}",
        0.0,
    )?;
    target::expect_blocker_named(&metrics)?;
    expect_named(holder)?;
    let log = monitor::log();
    for part in ["lockdown is at confidentiality", "lockdown=integrity"] {
        ensure!(log.contains(part), "the log does not say `{part}`: {log}");
    }
    // The reason, and not twenty refusals of the verifier.
    ensure!(!log.contains("refuses the program"), "{log}");
    expect_preflight_says_why()?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    // sysfs is read once a second, and without a blocker the transition back takes less than that:
    // nothing can be known about such a transition, so this one is held up until it is seen.
    guest.wait_for(seconds(15), &ended("patch", "completed"), 1.0)?;
    target::hold()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.disable()?;
    guest.wait_for(
        seconds(15),
        "livepatch_transition_active{patch=lpm_patch_a,direction=unpatch}",
        1.0,
    )?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    PATCH_A.wait_gone(seconds(15))?;
    let metrics = guest.wait_for(seconds(15), &ended("unpatch", "completed"), 1.0)?;
    metrics.expect_none_loaded()
}

fn expect_named(holder: Holder) -> Result<()> {
    let blockers = monitor::blockers()?;
    let task = blockers.task(holder.pid)?;
    ensure!(
        blockers.pending == 1
            && task.function.as_deref() == Some("lpm_hold")
            && task.stack.iter().any(|line| line.starts_with("lpm_hold+")),
        "{blockers:?}"
    );
    Ok(())
}

/// The answer for a module that this kernel will refuse is not clear.
fn expect_preflight_says_why() -> Result<()> {
    let file = "/modules/lpm_vmlinux.ko";
    let answer = monitor::command(&["preflight", "--sample", "0s", file])?;
    let text = String::from_utf8_lossy(&answer.output);
    ensure!(
        answer.code == 2 && text.contains("locked down (confidentiality)"),
        "preflight ended with {} and said {text}",
        answer.code
    );
    Ok(())
}

fn raise(level: &str) -> Result<()> {
    files::write(LOCKDOWN, level)?;
    let levels = files::read(LOCKDOWN)?;
    ensure!(
        levels.contains(&format!("[{level}]")),
        "{LOCKDOWN} says {levels}"
    );
    Ok(())
}
