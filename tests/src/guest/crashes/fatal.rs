//! Crashes that the kernel reports before the machine goes down.

use anyhow::ensure;
use livepatch_monitor_tests::protocol::{Injection, Message};

use super::*;
use crate::{
    exposition::ended,
    files,
    helpers::{Hold, Task},
    kernel,
    livepatch::{OOPSES, PATCH_A, VMLINUX},
    target,
};
use expected::{Expected, expect_one};

/// Seconds after which a CPU is stuck: twice `watchdog_thresh`.
const WATCHDOG: &str = "4";

/// Starts a monitor, and makes the kernel panic on an oops.
fn watched(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    set("panic_on_oops", "1")
}

fn sysrq() -> Result<()> {
    files::write("/proc/sysrq-trigger", "c")
}

fn broken_module(guest: &mut Guest, how: &str) -> Result<()> {
    guest.helper(&Task::Load {
        module: "lpm_crash".to_owned(),
        parameters: format!("how={how}"),
    })?;
    expect_end()
}

/// The new function of a livepatch dereferences NULL.
pub(super) mod oops_in_patch {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        OOPSES.apply(seconds(30))?;
        settle(guest, "lpm_patch_oops")?;
        announce(guest)?;
        guest.helper(&Task::Read {
            path: "/proc/cmdline".to_owned(),
        })?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(
            guest,
            memo,
            &Expected {
                implicated: "yes",
                evidence: Some(("fault_in_patch", "lpm_patch_oops")),
                function: Some(("livepatch_function", Some("lpm_patch_oops"))),
                patch: Some("lpm_patch_oops"),
                ..Expected::new("oops", "soak")
            },
        )
    }
}

/// Waits until the monitor has recorded the end of a transition.
pub(super) fn settle(guest: &mut Guest, patch: &str) -> Result<()> {
    let metrics = guest.wait_for(seconds(20), &ended("patch", "completed"), 1.0)?;
    metrics.expect_at_rest(patch)?;
    metrics.expect(&format!("livepatch_patch_enabled{{patch={patch}}}"), 1.0)
}

/// An oops in a module that is unrelated to the loaded livepatch.
///
/// On 5.10 the trace contains the start of the module's init section, which the kernel prints as a
/// bare address: sprint_backtrace() looks up the byte before it (kernel/kallsyms.c). It could be in
/// a livepatch as well, so the answer is "unknown" there, and only there.
/// The reasons for which the addresses without a name in the trace leave it unknown whether a
/// livepatch is implicated: before 5.11 there are some (seen on 5.10), later there are none.
fn unnamed() -> Result<Vec<String>> {
    let unnamed = persistent::unnamed_addresses()?;
    ensure!(
        unnamed.is_empty() == kernel::is_since(5, 11)?,
        "addresses without a name in the trace: {unnamed:?}"
    );
    let reasons = unnamed
        .iter()
        .map(|address| format!("{address} has no name: it may be in a livepatch that is gone"));
    Ok(reasons.collect())
}

pub(super) mod oops_elsewhere {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        VMLINUX.apply(seconds(30))?;
        settle(guest, "lpm_vmlinux")?;
        announce(guest)?;
        broken_module(guest, "null")
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        let unproven = unnamed()?;
        let implicated = match unproven.is_empty() {
            true => "no",
            false => "unknown",
        };
        expect_one(
            guest,
            memo,
            &Expected {
                implicated,
                unproven,
                function: Some(("lpm_crash_null", Some("lpm_crash"))),
                patch: Some("lpm_vmlinux"),
                ..Expected::new("oops", "soak")
            },
        )
    }
}

pub(super) mod soft_lockup {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        set("watchdog_thresh", WATCHDOG)?;
        set("softlockup_panic", "1")?;
        announce(guest)?;
        broken_module(guest, "spin")
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(guest, memo, &Expected::new("soft_lockup", "unpatched"))
    }
}

pub(super) mod hung_task {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        set("hung_task_panic", "1")?;
        set("hung_task_timeout_secs", "5")?;
        announce(guest)?;
        broken_module(guest, "hang")
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        // The monitor's journal knows the phase; the log has no module list.
        let unproven = [
            "the module list is not in the log",
            "out-of-tree modules were loaded (O), and the log does not show which: they may be \
             those of Ksplice, KernelCare or kpatch",
        ];
        let unproven = unproven.into_iter().map(str::to_owned).chain(unnamed()?);
        expect_one(
            guest,
            memo,
            &Expected {
                implicated: "unknown",
                unproven: unproven.collect(),
                ..Expected::new("hung_task", "unpatched")
            },
        )
    }
}

/// An interrupt from no known device.
pub(super) mod nmi {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        set("unknown_nmi_panic", "1")?;
        announce(guest)?;
        guest.send(&Message::Inject {
            what: Injection::Nmi,
            after_milliseconds: 0,
        })?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(guest, memo, &Expected::new("panic", "unpatched"))
    }
}

pub(super) mod sysrq_without_patch {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        announce(guest)?;
        sysrq()?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(
            guest,
            memo,
            &Expected {
                function: Some(("sysrq_handle_crash", None)),
                ..Expected::new("panic", "unpatched")
            },
        )
    }
}

/// As in 2017: the patch's module never finishes loading.
pub(super) mod lockup_while_loading {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        set("watchdog_thresh", WATCHDOG)?;
        set("softlockup_panic", "1")?;
        announce(guest)?;
        guest.helper(&Task::Load {
            module: "lpm_patch_lockup".to_owned(),
            parameters: String::new(),
        })?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(
            guest,
            memo,
            &Expected {
                implicated: "yes",
                evidence: Some(("patch_loading", "lpm_patch_lockup")),
                function: Some(("livepatch_init", Some("lpm_patch_lockup"))),
                patch: Some("lpm_patch_lockup"),
                ..Expected::new("soft_lockup", "load")
            },
        )
    }
}

/// Also run with every other pstore backend, and with none.
pub(super) mod sysrq_in_transition {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        held(guest)?;
        announce(guest)?;
        sysrq()?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        let words = files::read("/proc/cmdline")?;
        let kept = word(&words, command_line::MEMORY) != Some("none");
        let expected = Expected {
            transition: Some("lpm_patch_a"),
            patch: Some("lpm_patch_a"),
            ..Expected::new("panic", "transition")
        };
        if kept {
            expect_one(guest, memo, &expected)?;
            for page in [
                "LivepatchHostCrashed",
                "LivepatchHostSilentInTransition",
                "LivepatchHostSilentInSoak",
                "LivepatchBootUnclean",
                "LivepatchStopRollout",
            ] {
                expected::follow(guest, page, "lpm_patch_a", &["transition", "lpm_patch_a"])?;
            }
            return Ok(());
        }
        // This machine has one CPU: after panic() no user-space program runs on it, so nothing but
        // the transition is on the disk.
        expect_one(
            guest,
            memo,
            &Expected {
                kind: "reset",
                implicated: "unknown",
                ..expected
            },
        )
    }
}

/// Starts a transition that a task holds up and waits until the monitor knows about it.
pub(super) fn held(guest: &mut Guest) -> Result<()> {
    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    let metrics = guest.wait_start_noted(1.0)?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    guest.wait_for(seconds(20), "livepatch_pending_tasks", 1.0)?;
    guest.wait_idle()
}

/// During the soak after a transition.
pub(super) mod sysrq_after_transition {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        watched(guest)?;
        VMLINUX.apply(seconds(30))?;
        settle(guest, "lpm_vmlinux")?;
        guest.wait_idle()?;
        announce(guest)?;
        sysrq()?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(
            guest,
            memo,
            &Expected {
                patch: Some("lpm_vmlinux"),
                ..Expected::new("panic", "soak")
            },
        )
    }
}
