//! The switches of lpm_target (tests/modules/lpm_target.c).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    files, modules,
};

pub(crate) const NAME: &str = "lpm_target";
/// A module that lpm_patch_a patches too.
pub(crate) const LATE: &str = "lpm_late";
/// Reading it sleeps in `lpm_hold`.
pub(crate) const HOLD: &str = "/proc/lpm_target/hold";
/// Comm of the kthread that sleeps in `lpm_kthread_sleep`.
pub(crate) const SLEEPER: &str = "lpm_sleeper";
/// Comm of the kthread that spins in `lpm_spin`.
pub(crate) const SPINNER: &str = "lpm_spinner";

/// Expects that one task, asleep in `lpm_hold`, is named as the blocker of lpm_patch_a.
pub(crate) fn expect_blocker_named(metrics: &Exposition) -> Result<()> {
    metrics.expect(
        "livepatch_stuck_tasks{patch=lpm_patch_a,reason=sleeping}",
        1.0,
    )?;
    metrics.expect(
        "livepatch_blocking_tasks{patch=lpm_patch_a,object=lpm_target,function=lpm_hold}",
        1.0,
    )
}

pub(crate) fn load() -> Result<()> {
    modules::load(NAME)
}

/// Releases every task in `lpm_hold`; later ones pass through.
pub(crate) fn release() -> Result<()> {
    files::write(HOLD, "0")
}

/// From now on, tasks stay in `lpm_hold`.
pub(crate) fn hold() -> Result<()> {
    files::write(HOLD, "1")
}

/// Puts the kthread into `lpm_kthread_sleep`, or releases it.
pub(crate) fn kthread_sleep(on: bool) -> Result<()> {
    files::write("/proc/lpm_target/kthread_sleep", if on { "1" } else { "0" })?;
    wait_status("sleeping", u32::from(on))
}

/// Puts the kthread into `lpm_spin`, or releases it.
pub(crate) fn spin(on: bool) -> Result<()> {
    files::write("/proc/lpm_target/spin", if on { "1" } else { "0" })?;
    wait_status("spinning", u32::from(on))
}

/// How many tasks are in `lpm_hold`.
pub(crate) fn holders() -> Result<u32> {
    status("holders")
}

/// Waits until this many tasks are in `lpm_hold`.
pub(crate) fn wait_holders(count: u32) -> Result<()> {
    wait_status("holders", count)
}

/// Which code runs for lpm_target: the original or a livepatch's.
pub(crate) fn version() -> Result<String> {
    Ok(files::read("/proc/lpm_target/version")?.trim().to_owned())
}

/// Which code runs for lpm_late.
pub(crate) fn late_version() -> Result<String> {
    Ok(files::read("/proc/lpm_late")?.trim().to_owned())
}

/// Releases all tasks, if the module is loaded at all.
pub(crate) fn release_all() -> Result<()> {
    if Path::new(HOLD).exists() {
        release()?;
        kthread_sleep(false)?;
        spin(false)?;
        wait_holders(0)?;
    }
    Ok(())
}

fn wait_status(what: &str, expected: u32) -> Result<()> {
    eventually(seconds(30), || {
        let count = status(what)?;
        ensure!(
            count == expected,
            "lpm_target says {what} {count}, not {expected}"
        );
        Ok(())
    })
}

fn status(what: &str) -> Result<u32> {
    let status = files::read("/proc/lpm_target/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(what)?.trim().parse().ok())
        .with_context(|| format!("no `{what}` in lpm_target's status: {status}"))
}
