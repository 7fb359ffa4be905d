//! A livepatch of the scenarios, driven through /sys/kernel/livepatch.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    counters::{ATTEMPT, Counters},
    eventually::{eventually, seconds},
    files, modules,
};

/// Patches all of lpm_target, lpm_late and a function of the kernel image.
pub(crate) const PATCH_A: Livepatch = Livepatch::new("lpm_patch_a");
/// The same again, to stack on [`PATCH_A`].
pub(crate) const PATCH_B: Livepatch = Livepatch::new("lpm_patch_b");
/// The same again, replacing all others.
pub(crate) const REPLACE: Livepatch = Livepatch::new("lpm_replace");
/// The same again, for the scenario after which a module cannot be unloaded.
pub(crate) const FORCED: Livepatch = Livepatch::new("lpm_forced");
/// A function of the kernel image in which no task sleeps.
pub(crate) const VMLINUX: Livepatch = Livepatch::new("lpm_vmlinux");
/// The same function again.
pub(crate) const CMDLINE_AGAIN: Livepatch = Livepatch::new("lpm_refused");
/// security_task_getpgid, which fmod_ret programs may override.
pub(crate) const HOOK: Livepatch = Livepatch::new("lpm_hook");
/// The hook of BPF LSM behind it.
pub(crate) const LSM_HOOK: Livepatch = Livepatch::new("lpm_lsm");
/// klp_force_transition, on which the monitor has a probe.
pub(crate) const PROBED: Livepatch = Livepatch::new("lpm_probed");

/// Its function dereferences NULL: what reads /proc/cmdline oopses.
pub(crate) const OOPSES: Livepatch = Livepatch::new("lpm_patch_oops");

const FOLDER: &str = "/sys/kernel/livepatch";

/// The kernel tries about once a second (kernel/livepatch/transition.c,
/// klp_try_complete_transition).
const ATTEMPTS: Duration = seconds(60);

/// A livepatch by its module's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Livepatch {
    pub(crate) name: &'static str,
}

impl Livepatch {
    const fn new(name: &'static str) -> Self {
        Self { name }
    }

    /// Loads the module, which enables the livepatch. Returns after the first
    /// attempt of the transition.
    pub(crate) fn load(self) -> Result<()> {
        modules::load(self.name)
    }

    /// Loads it and waits until it is in force.
    pub(crate) fn apply(self, timeout: Duration) -> Result<()> {
        self.load()?;
        self.wait_transition_done(timeout)?;
        ensure!(self.is_enabled()?, "{} is not enabled", self.name);
        Ok(())
    }

    /// Starts to unpatch, or reverses a running transition to the patch.
    pub(crate) fn disable(self) -> Result<()> {
        files::write(&self.file("enabled"), "0")
    }

    /// Switches the remaining tasks without a check.
    pub(crate) fn force(self) -> Result<()> {
        files::write(&self.file("force"), "1")
    }

    /// Unpatches, and unloads the module.
    pub(crate) fn remove(self, timeout: Duration) -> Result<()> {
        self.disable()?;
        self.wait_transition_done(timeout)?;
        modules::unload(self.name)
    }

    pub(crate) fn is_enabled(self) -> Result<bool> {
        files::read_flag(&self.file("enabled"))
    }

    /// What `transition` says; a livepatch that is gone is in none.
    pub(crate) fn in_transition(self) -> Result<bool> {
        in_transition(self.name)
    }

    /// Waits for the end of the transition, in either direction.
    pub(crate) fn wait_transition_done(self, timeout: Duration) -> Result<()> {
        wait_transition_done(self.name, timeout)
    }

    /// Fails unless the transition is still running after a whole attempt of the kernel
    /// that began later than this.
    pub(crate) fn expect_held(self) -> Result<()> {
        let counters = Counters::of(&[ATTEMPT])?;
        // The first is over when the second begins.
        let held = eventually(ATTEMPTS, || {
            let attempts = counters.get(ATTEMPT)?;
            let held = self.in_transition()?;
            ensure!(!held || attempts >= 2, "{attempts} attempts");
            Ok(held)
        })?;
        ensure!(
            held,
            "the transition of {} ended although a task should hold it",
            self.name
        );
        Ok(())
    }

    /// Waits until sysfs no longer shows it: the kernel frees it some time after the end
    /// of the transition.
    pub(crate) fn wait_gone(self, timeout: Duration) -> Result<()> {
        eventually(timeout, || {
            ensure!(
                !known()?.iter().any(|name| name == self.name),
                "{} is still loaded",
                self.name
            );
            Ok(())
        })
    }

    fn file(self, file: &str) -> String {
        format!("{FOLDER}/{}/{file}", self.name)
    }
}

/// The file that says whether a livepatch's object is patched (6.1 and later).
pub(crate) fn patched_file(patch: &str, object: &str) -> String {
    format!("{FOLDER}/{patch}/{object}/patched")
}

fn in_transition(name: &str) -> Result<bool> {
    let path = format!("{FOLDER}/{name}/transition");
    match files::read_flag(&path) {
        Err(_) if !Path::new(&path).exists() => Ok(false),
        result => result,
    }
}

/// Waits until a livepatch of this name is in no transition.
pub(crate) fn wait_transition_done(name: &str, timeout: Duration) -> Result<()> {
    eventually(timeout, || {
        ensure!(!in_transition(name)?, "{name} is still in transition");
        Ok(())
    })
}

/// The names of the livepatches that the kernel knows.
pub(crate) fn known() -> Result<Vec<String>> {
    fs::read_dir(FOLDER)
        .with_context(|| format!("cannot read {FOLDER}: no livepatch support?"))?
        .map(|entry| {
            let entry = entry.with_context(|| format!("cannot read {FOLDER}"))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

/// Disables all livepatches; every task that held one up must have been released.
pub(crate) fn disable_all(timeout: Duration) -> Result<()> {
    // The kernel starts no transition while another one runs.
    for name in known()? {
        wait_transition_done(&name, timeout)?;
    }
    for name in known()? {
        let path = format!("{FOLDER}/{name}/enabled");
        // One that an atomic replace superseded vanishes by itself.
        if files::read_flag(&path).unwrap_or(false) {
            files::write(&path, "0")?;
            wait_transition_done(&name, timeout)?;
        }
    }
    eventually(timeout, || {
        let names = known()?;
        if !names.is_empty() {
            bail!("{} still there", names.join(", "));
        }
        Ok(())
    })
}
