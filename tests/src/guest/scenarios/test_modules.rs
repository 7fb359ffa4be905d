//! The test modules and the harness do what the other scenarios rely on. No monitor is involved.

use anyhow::{Result, ensure};
use rustix::io::Errno;

use crate::{
    eventually::seconds,
    files,
    guest::Guest,
    helpers::Hold,
    livepatch::{PATCH_A, PATCH_B, REPLACE, VMLINUX},
    modules, target,
};

/// A task asleep in a patched function holds a transition, in both directions,
/// and nothing else does.
pub(super) fn held_transition_is_real(guest: &mut Guest) -> Result<()> {
    target::load()?;
    expect_version("original")?;
    let holder = guest.hold(&Hold {
        unit: Some("holder.service".to_owned()),
        ..Hold::ONE
    })?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    ensure!(
        holder.patch_state()? == 0,
        "the holder was switched to the patch"
    );
    let stack = holder.stack()?;
    ensure!(
        stack.contains("lpm_hold+") && stack.contains("[lpm_target]"),
        "the holder is not in lpm_hold:\n{stack}"
    );
    target::release()?;
    PATCH_A.wait_transition_done(seconds(20))?;
    expect_version("patched by lpm_patch_a")?;

    target::hold()?;
    let holder = guest.hold(&Hold::ONE)?;
    PATCH_A.disable()?;
    PATCH_A.expect_held()?;
    ensure!(holder.patch_state()? == 1, "the holder was switched back");
    let stack = holder.stack()?;
    ensure!(
        stack.contains("livepatch_hold+") && stack.contains("[lpm_patch_a]"),
        "the holder is not in the patch's function:\n{stack}"
    );
    target::release()?;
    PATCH_A.wait_transition_done(seconds(20))?;
    modules::unload(PATCH_A.name)?;
    expect_version("original")
}

/// A kthread in uninterruptible sleep, and one that never stops running.
pub(super) fn kthreads_hold_too(_: &mut Guest) -> Result<()> {
    target::load()?;
    target::kthread_sleep(true)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    target::kthread_sleep(false)?;
    PATCH_A.wait_transition_done(seconds(20))?;
    PATCH_A.remove(seconds(20))?;

    target::spin(true)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    target::spin(false)?;
    PATCH_A.wait_transition_done(seconds(20))?;
    PATCH_A.remove(seconds(20))
}

/// Livepatches stack; a task in the lower one's function holds the upper one; an
/// atomic replace removes both.
pub(super) fn stack_and_replace(guest: &mut Guest) -> Result<()> {
    target::load()?;
    PATCH_A.apply(seconds(20))?;
    let holder = guest.hold(&Hold::ONE)?;
    let stack = holder.stack()?;
    ensure!(
        stack.contains("livepatch_hold+") && stack.contains("[lpm_patch_a]"),
        "the holder is not in the lower patch's function:\n{stack}"
    );
    PATCH_B.load()?;
    PATCH_B.expect_held()?;
    target::release()?;
    PATCH_B.wait_transition_done(seconds(20))?;
    expect_version("patched by lpm_patch_b")?;

    REPLACE.apply(seconds(20))?;
    expect_version("patched by lpm_replace")?;
    modules::unload(PATCH_A.name)?;
    modules::unload(PATCH_B.name)?;
    REPLACE.remove(seconds(20))?;
    expect_version("original")
}

/// Modules that are loaded after their livepatch, also while it is held up.
pub(super) fn late_modules_are_patched(guest: &mut Guest) -> Result<()> {
    PATCH_A.apply(seconds(20))?;
    target::load()?;
    expect_version("patched by lpm_patch_a")?;
    PATCH_A.remove(seconds(20))?;
    expect_version("original")?;

    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    modules::load(target::LATE)?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(20))?;
    let version = target::late_version()?;
    ensure!(
        version == "patched by lpm_patch_a",
        "lpm_late answers `{version}`"
    );
    Ok(())
}

/// A pre-patch callback that refuses, and a livepatch during another one's transition. The clean
/// one completes by itself.
pub(super) fn refusals(guest: &mut Guest) -> Result<()> {
    modules::expect_refused("lpm_fails", Errno::NODEV)?;
    VMLINUX.apply(seconds(20))?;
    let command_line = files::read("/proc/cmdline")?;
    ensure!(
        command_line == "patched by lpm_vmlinux\n",
        "/proc/cmdline holds `{command_line}`"
    );
    VMLINUX.remove(seconds(20))?;

    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    modules::expect_refused("lpm_refused", Errno::BUSY)?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(20))
}

fn expect_version(expected: &str) -> Result<()> {
    let version = target::version()?;
    ensure!(
        version == expected,
        "lpm_target answers `{version}`, not `{expected}`"
    );
    Ok(())
}
