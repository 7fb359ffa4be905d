//! Other users of a function that a livepatch replaces, in both orders: what `preflight` forecasts,
//! what the kernel then does, and which code runs.
//!
//! fail_function and bpf_override_return need CONFIG_FUNCTION_ERROR_INJECTION, which Debian's
//! kernels do not have. Modules of the scenarios replace them, with the same flags of ftrace.

mod onlookers;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    io::Errno,
    process::{getpgid, getpid},
};

use self::onlookers::{
    Other::{
        self, Callback, Fentry, Fexit, Fprobe, FprobeReturn, FunctionGraph, FunctionTracer, Kprobe,
        Kretprobe,
    },
    users,
};
use super::{operators::says, preflight::Report};
use crate::{
    bpf::{self, Kind, Program},
    eventually::{eventually, seconds},
    files,
    guest::Guest,
    kernel,
    livepatch::{CMDLINE_AGAIN, HOOK, LSM_HOOK, Livepatch, VMLINUX},
    modules,
    runbooks::{self, Walk},
};

const FUNCTION: &str = "cmdline_proc_show";
const KPROBES_ENABLED: &str = "/sys/kernel/debug/kprobes/enabled";
const PATCHED: &str = "patched by lpm_vmlinux\n";
const PATCHED_AGAIN: &str = "patched by lpm_refused\n";

fn cmdline() -> Result<String> {
    files::read("/proc/cmdline")
}

fn expect_cmdline(shown: &str) -> Result<()> {
    let now = cmdline()?;
    ensure!(now == shown, "/proc/cmdline is `{now}`, not `{shown}`");
    Ok(())
}

/// Since 6.0 (FTRACE_OPS_CMD_ENABLE_SHARE_IPMODIFY_PEER).
fn trampolines_share() -> Result<bool> {
    kernel::is_since(6, 0)
}

/// The other user first: forecast, load, both work.
fn first(guest: &Guest, others: &[Other]) -> Result<()> {
    let _counted = bpf::count_runs()?;
    for other in others {
        if !other.is_here()? {
            guest.note(format!("{other:?} is not on this kernel"))?;
            continue;
        }
        let attached = other.attach()?;
        attached.expect_fires()?;
        other.expect_forecast(VMLINUX)?;
        VMLINUX.apply(seconds(30))?;
        expect_cmdline(PATCHED).with_context(|| format!("{other:?}"))?;
        attached.expect_fires_beside_livepatch()?;
        says(&["status"], 0, &["1 of 1 functions are in force"])?;
        VMLINUX.remove(seconds(30))?;
        attached.detach()?;
    }
    ensure!(users(FUNCTION)? == 0, "somebody is left on {FUNCTION}");
    Ok(())
}

/// Events of tracefs, then a livepatch.
pub(super) fn events_then_livepatch(guest: &mut Guest) -> Result<()> {
    first(guest, &[Kprobe, Kretprobe, Fprobe, FprobeReturn])
}

/// Tracers, then a livepatch.
pub(super) fn tracers_then_livepatch(guest: &mut Guest) -> Result<()> {
    first(guest, &[FunctionTracer, FunctionGraph, Callback])
}

/// BPF programs on trampolines, then a livepatch: one that only observes, and one that overrides.
pub(super) fn programs_then_livepatch(guest: &mut Guest) -> Result<()> {
    if !trampolines_share()? {
        let program = Program::attach(Kind::Fentry, FUNCTION, 0)?;
        let report = Report::of(VMLINUX, 2)?;
        report.expect("failure", "tracers", "before 6.0 the kernel refuses")?;
        modules::expect_refused(VMLINUX.name, Errno::BUSY)?;
        drop(program);
        return Ok(());
    }
    first(guest, &[Fentry, Fexit])?;
    for (patch, kind) in overriders(guest)? {
        let (function, word) = hook(patch)?;
        let program = Program::attach(kind, function, -Errno::PERM.raw_os_error())?;
        expect_getpgid(Err(Errno::PERM))?;
        let named = format!("BPF program lpm_other (id {}, {word}", program.id()?);
        let report = Report::of(patch, 1)?;
        report.expect("warning", "tracers", &named)?;
        report.expect("warning", "tracers", "the new code never runs")?;
        patch.apply(seconds(30))?;
        // Accepted, enabled, and not in force.
        expect_getpgid(Err(Errno::PERM))?;
        expect_overridden(patch, &named)?;
        drop(program);
        eventually(seconds(10), || expect_getpgid(Err(Errno::XDEV)))?;
        says(&["status"], 0, &["1 of 1 functions are in force"])?;
        patch.remove(seconds(30))?;
        expect_getpgid(Ok(()))?;
    }
    Ok(())
}

/// A livepatch, then each of the other users; for each of them a second livepatch is forecast.
pub(super) fn livepatch_then_others(guest: &mut Guest) -> Result<()> {
    let _counted = bpf::count_runs()?;
    VMLINUX.apply(seconds(30))?;
    for other in [
        Kprobe,
        Kretprobe,
        Fprobe,
        FprobeReturn,
        FunctionTracer,
        FunctionGraph,
        Callback,
        Fentry,
        Fexit,
    ] {
        if !other.is_here()? {
            guest.note(format!(
                "{other:?} is not beside a livepatch on this kernel"
            ))?;
            continue;
        }
        let attached = other.attach()?;
        expect_cmdline(PATCHED).with_context(|| format!("{other:?}"))?;
        attached.expect_fires_beside_livepatch()?;
        other.expect_forecast(CMDLINE_AGAIN)?;
        attached.detach()?;
    }
    says(&["status"], 0, &["1 of 1 functions are in force"])?;
    VMLINUX.remove(seconds(30))
}

/// A livepatch, then a BPF program that overrides the function if it returns other than 0.
pub(super) fn livepatch_then_overriders(guest: &mut Guest) -> Result<()> {
    if !trampolines_share()? {
        return guest.note("a livepatch and a trampoline share no function on this kernel");
    }
    for (patch, kind) in overriders(guest)? {
        let (function, word) = hook(patch)?;
        patch.apply(seconds(30))?;
        expect_getpgid(Err(Errno::XDEV))?;
        // A program that lets the function run: whether it always will is unknown.
        for (returns, then) in [(0, Errno::XDEV), (-Errno::PERM.raw_os_error(), Errno::PERM)] {
            let program = Program::attach(kind, function, returns)?;
            ensure!(
                users(function)? == 2,
                "{kind:?} is not in enabled_functions"
            );
            expect_getpgid(Err(then))?;
            let named = format!("BPF program lpm_other (id {}, {word}", program.id()?);
            expect_overridden(patch, &named)?;
            runbooks::follow(
                guest,
                &Walk {
                    page: "LivepatchNotInForce",
                    given: &[("PATCH", patch.name)],
                    seen: &[&named, function],
                },
            )?;
            drop(program);
            eventually(seconds(10), || {
                expect_getpgid(Err(Errno::XDEV))?;
                ensure!(users(function)? == 1, "the trampoline is left");
                Ok(())
            })?;
        }
        says(&["status"], 0, &["1 of 1 functions are in force"])?;
        patch.remove(seconds(30))?;
    }
    Ok(())
}

/// Other users that redirect the function too.
pub(super) fn redirections_and_livepatch(_: &mut Guest) -> Result<()> {
    // Like fail_function: a kprobe with a post-handler.
    modules::load("lpm_kprobe")?;
    let report = Report::of(VMLINUX, 2)?;
    report.expect("failure", "tracers", "may redirect cmdline_proc_show")?;
    report.expect_not("tracers", "still fires")?;
    modules::expect_refused(VMLINUX.name, Errno::BUSY)?;
    modules::unload("lpm_kprobe")?;

    VMLINUX.apply(seconds(30))?;
    // Since 6.14 the kernel reports success for what it did not arm; enabled_functions shows it.
    match kernel::is_since(6, 14)? {
        true => {
            modules::load("lpm_kprobe")?;
            Report::of(CMDLINE_AGAIN, 1)?.expect_not("tracers", "kprobe")?;
            modules::unload("lpm_kprobe")?;
        }
        false => modules::expect_refused("lpm_kprobe", Errno::BUSY)?,
    }
    ensure!(users(FUNCTION)? == 1, "two may redirect {FUNCTION}");
    expect_cmdline(PATCHED)?;

    // All kprobes are disarmed, and none is disabled.
    let seen = Kprobe.attach()?;
    files::write(KPROBES_ENABLED, "0")?;
    let disarmed = Report::of(CMDLINE_AGAIN, 1);
    files::write(KPROBES_ENABLED, "1")?;
    disarmed?.expect("warning", "tracers", "and not armed")?;
    Kprobe.expect_forecast(CMDLINE_AGAIN)?;
    seen.detach()?;

    // A second livepatch: the newer one's code runs.
    let report = Report::of(CMDLINE_AGAIN, 1)?;
    report.expect("info", "stacked", "is already patched by lpm_vmlinux")?;
    CMDLINE_AGAIN.apply(seconds(30))?;
    expect_cmdline(PATCHED_AGAIN)?;
    says(&["status"], 0, &["is replaced by lpm_refused"])?;
    CMDLINE_AGAIN.remove(seconds(30))?;
    expect_cmdline(PATCHED)?;

    // Like bpf_override_return: the kernel accepts it in both orders, and the older one wins.
    let unknown = [
        "how many of its functions are in force is unknown",
        "its handler may redirect the call",
    ];
    modules::load("lpm_redirect")?;
    expect_cmdline(PATCHED)?;
    says(&["status"], 0, &unknown)?;
    VMLINUX.remove(seconds(30))?;
    expect_redirected()?;
    let report = Report::of(VMLINUX, 1)?;
    report.expect(
        "warning",
        "tracers",
        "could redirect the call, which nothing shows",
    )?;
    VMLINUX.apply(seconds(30))?;
    expect_redirected()?;
    says(&["status"], 0, &unknown)?;
    modules::unload("lpm_redirect")?;
    expect_cmdline(PATCHED)?;
    VMLINUX.remove(seconds(30))
}

fn expect_redirected() -> Result<()> {
    let read = fs::read("/proc/cmdline");
    let errno = read.as_ref().err().and_then(std::io::Error::raw_os_error);
    ensure!(
        errno == Some(Errno::NODATA.raw_os_error()),
        "/proc/cmdline is {read:?}: nobody redirects it"
    );
    Ok(())
}

fn hook(patch: Livepatch) -> Result<(&'static str, &'static str)> {
    match patch {
        HOOK => Ok(("security_task_getpgid", "fmod_ret")),
        LSM_HOOK => Ok(("bpf_lsm_task_getpgid", "lsm")),
        other => bail!("{} has no hook", other.name),
    }
}

/// The livepatches of hooks, and the kind of program that overrides each.
fn overriders(guest: &Guest) -> Result<Vec<(Livepatch, Kind)>> {
    let mut all = vec![(HOOK, Kind::FmodRet)];
    match has_bpf_lsm()? {
        true => all.push((LSM_HOOK, Kind::Lsm)),
        false => guest.note("this kernel has no BPF LSM")?,
    }
    Ok(all)
}

fn has_bpf_lsm() -> Result<bool> {
    let path = "/sys/kernel/security/lsm";
    Ok(Path::new(path).exists() && files::read(path)?.split(',').any(|lsm| lsm.trim() == "bpf"))
}

/// getpgid() of a process calls security_task_getpgid.
fn expect_getpgid(expected: Result<(), Errno>) -> Result<()> {
    let got = getpgid(Some(getpid())).map(|_| ());
    ensure!(got == expected, "getpgid gives {got:?}, not {expected:?}");
    Ok(())
}

/// `status` names the program, and the process that holds it.
fn expect_overridden(patch: Livepatch, program: &str) -> Result<()> {
    let named = format!("may be overridden by {program}");
    says(
        &["status"],
        0,
        &[
            patch.name,
            "0 of 1 functions are in force",
            &named,
            "held by init (1)",
        ],
    )
}
