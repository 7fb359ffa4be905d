//! Signals that the machine survives: the metrics show them at once. And a boot that ends
//! as it should.

use anyhow::ensure;

use super::*;
use crate::{
    eventually::eventually,
    helpers::{Confinement, Task},
    kernel, kernel_log,
    livepatch::{OOPSES, VMLINUX},
    probes::Probes,
    runbooks::{self, Walk},
};
use expected::{Expected, expect_last, expect_none, expect_one, expect_signal};

/// Loads a module that does something wrong, and waits until it has done it: what the
/// kernel has to say of it is in its log then.
fn broken_module(guest: &mut Guest, parameters: &str) -> Result<()> {
    let helper = guest.helper(&Task::Load {
        module: "lpm_crash".to_owned(),
        parameters: parameters.to_owned(),
    })?;
    guest.wait_helper(helper, seconds(90))
}

/// The new function of a livepatch dereferences NULL; its caller is killed.
pub(super) mod oops_in_patch_is_survived {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor(&[])?;
        set("panic_on_oops", "0")?;
        OOPSES.apply(seconds(30))?;
        fatal::settle(guest, "lpm_patch_oops")?;
        guest.helper(&Task::Read {
            path: "/proc/cmdline".to_owned(),
        })?;
        expect_signal(guest, "oops", "soak", |metrics| {
            metrics.expect(
                "livepatch_crash_signals_implicating_total{signal=oops,patch=lpm_patch_oops}",
                1.0,
            )?;
            metrics.expect("livepatch_crashes_total", 1.0)?;
            expect_last(metrics, "oops", "soak", "yes")
        })?;
        // The second one ends with the patch disabled.
        for page in ["LivepatchCrashSignal", "LivepatchCrashImplicatesPatch"] {
            let seen = &["implicated  yes", "livepatch_function"];
            expected::follow(guest, page, OOPSES.name, seen)?;
        }
        OOPSES.wait_gone(seconds(15))
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
                ended_boot: false,
                ..Expected::new("oops", "soak")
            },
        )
    }
}

/// After so many seconds RCU complains of a CPU (kernel/rcu/update.c).
const RCU_TIMEOUT: &str = "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout";

/// A CPU that runs nothing else, until [`Spinning::end`].
struct Spinning {
    helper: u32,
}

impl Spinning {
    fn start(guest: &mut Guest) -> Result<Self> {
        let helper = guest.helper(&Task::Load {
            module: "lpm_crash".to_owned(),
            parameters: "how=spin seconds=120".to_owned(),
        })?;
        Ok(Self { helper })
    }

    /// Waits until the kernel has reported it so often, and ends it.
    fn end(self, guest: &mut Guest, reports: u32, is_one: fn(&str) -> bool) -> Result<()> {
        eventually(seconds(110), || {
            let count = kernel_log::count(is_one)?;
            ensure!(count >= reports, "{count} reports of {reports}");
            Ok(())
        })?;
        files::write("/sys/module/lpm_crash/parameters/stop", "1")?;
        guest.wait_helper(self.helper, seconds(60))
    }
}

/// A warning is a signal and no crash.
pub(super) mod warning_is_survived {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor(&[])?;
        broken_module(guest, "how=warn")?;
        expect_signal(guest, "warning", "unpatched", |metrics| {
            metrics.expect_sum("livepatch_crashes_total", 0.0)
        })?;
        // Such a report is no crash, and has no record.
        runbooks::follow(
            guest,
            &Walk {
                page: "LivepatchCrashSignal",
                seen: &["lpm_crash", "warning"],
                ..Walk::default()
            },
        )
    }

    pub(in super::super) fn verify(guest: &mut Guest, _memo: &Memo) -> Result<()> {
        expect_none(guest)
    }
}

/// A monitor that may not use BPF reads the kernel's log.
pub(super) mod warning_without_bpf {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor_confined(Confinement::NoBpf, &[])?;
        broken_module(guest, "how=warn")?;
        expect_signal(guest, "warning", "unpatched", |metrics| {
            metrics.expect(
                "livepatch_monitor_probe_attached{probe=printk_console,method=none}",
                0.0,
            )
        })
    }

    pub(in super::super) fn verify(guest: &mut Guest, _memo: &Memo) -> Result<()> {
        expect_none(guest)
    }
}

/// Reported more than once, and counted once.
pub(super) mod soft_lockup_is_survived {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor(&[])?;
        set("watchdog_thresh", "3")?;
        // RCU must not complain first.
        files::write(RCU_TIMEOUT, "120")?;
        // Before 5.13 the kernel reports it once (kernel/watchdog.c, soft_watchdog_warn).
        let reports = if kernel::is_since(5, 13)? { 2 } else { 1 };
        Spinning::start(guest)?.end(guest, reports, |line| line.contains("BUG: soft lockup"))?;
        expect_signal(guest, "soft_lockup", "unpatched", |metrics| {
            metrics.expect("livepatch_crashes_total", 1.0)?;
            expect_last(metrics, "soft_lockup", "unpatched", "no")
        })
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(
            guest,
            memo,
            &Expected {
                ended_boot: false,
                ..Expected::new("soft_lockup", "unpatched")
            },
        )
    }
}

pub(super) mod rcu_stall_is_survived {
    use std::path::Path;

    use super::*;

    const TRACEPOINT: &str = "/sys/kernel/tracing/events/rcu/rcu_stall_warning";

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor(&[])?;
        // The soft lockup detector must not fire first.
        set("watchdog_thresh", "60")?;
        files::write(RCU_TIMEOUT, "3")?;
        // By the CPU itself or by another one (kernel/rcu/tree_stall.h).
        Spinning::start(guest)?.end(guest, 1, |line| {
            line.contains("self-detected stall on CPU")
                || line.contains("detected stalls on CPUs/tasks")
        })?;
        // Where the kernel has no tracepoint for it, its log does.
        let method = match Path::new(TRACEPOINT).exists() {
            true => "tracepoint",
            false => "log",
        };
        expect_signal(guest, "rcu_stall", "unpatched", |metrics| {
            Probes::read()?.expect("rcu_stall_warning", method)?;
            metrics.expect_sum("livepatch_crashes_total", 0.0)
        })
    }

    pub(in super::super) fn verify(guest: &mut Guest, _memo: &Memo) -> Result<()> {
        expect_none(guest)
    }
}

/// Neither a reboot nor `kill -9` of the monitor is a crash.
pub(super) mod clean_reboot {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor(&[])?;
        VMLINUX.apply(seconds(30))?;
        fatal::settle(guest, "lpm_vmlinux")?;
        guest.kill_monitor()?;
        guest.start_monitor(&[])?;
        let metrics = guest.scrape()?;
        metrics.expect_sum("livepatch_crashes_total", 0.0)?;
        metrics.expect_absent("livepatch_boot_unclean")
    }

    pub(in super::super) fn verify(guest: &mut Guest, _memo: &Memo) -> Result<()> {
        expect_none(guest)
    }
}
