//! The privileges that the monitor has, and drops once it has what it needs.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{
    eventually::seconds,
    exposition::{Exposition, ended},
    files,
    guest::Guest,
    helpers::{Confinement, Hold},
    livepatch::PATCH_A,
    monitor,
    probes::Probes,
    target,
};

const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
const DMESG_RESTRICT: &str = "/proc/sys/kernel/dmesg_restrict";
const NO_UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// The kernel's security modules.
const LSM: &str = "/sys/kernel/security/lsm";

/// Number of collectors.
const COLLECTORS: f64 = 3.0;

const NOTHING: &str = "0000000000000000";
/// The capability sets of a process that has CAP_BPF alone, as /proc/PID/status shows them.
const BPF: &str = "0000008000000000";

/// Started by root: no thread has a capability left, none can be regained, and the monitor still
/// names the task that holds up a transition.
pub(super) fn privileges_are_given_up(guest: &mut Guest) -> Result<()> {
    restricted(|| {
        guest.start_monitor(&["--stuck-after", "1s"])?;
        watches(guest, &[])?;
        expect_given_up(guest, &["CapInh", "CapBnd", "CapAmb"])
    })
}

/// Started as the unit does: as a separate user with few capabilities. It gets its signals, and
/// then has no capability either.
pub(super) fn a_dynamic_user_is_enough(guest: &mut Guest) -> Result<()> {
    restricted(|| {
        guest.start_monitor_confined(Confinement::Unit, &["--stuck-after", "1s"])?;
        guest.scrape()?;
        let by = Probes::read()?.method("klp_init_transition")?.to_owned();
        let unit = if by == "fentry" {
            // The one function that fentry does not support before 6.17, on a kernel that restricts
            // kprobes to CAP_SYS_ADMIN.
            watches(guest, &["panic"])?;
            Confinement::Unit
        } else {
            guest.stop_monitor()?;
            // Its log is right about kprobes.
            monitor::forget()?;
            let unit = Confinement::UnitForKprobes;
            guest.start_monitor_confined(unit, &["--stuck-after", "1s"])?;
            watches(guest, &[])?;
            unit
        };
        // The unit limits what could be gained, and CAP_SETPCAP is not in it.
        expect_given_up(guest, &["CapInh", "CapAmb"])?;
        let uids = status(guest.monitor()?.pid(), "Uid")?;
        ensure!(!uids.starts_with('0'), "it runs as root: {uids}");
        guest.stop_monitor()?;
        joins(guest, unit)
    })
}

/// Runs on a machine that shows unprivileged processes as little as possible.
fn restricted(run: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = files::read(KPTR_RESTRICT)?;
    files::write(KPTR_RESTRICT, "1")?;
    files::write(DMESG_RESTRICT, "1")?;
    let bpf = files::read(NO_UNPRIVILEGED_BPF)?;
    ensure!(bpf.trim() != "0", "unprivileged processes may use BPF");
    let result = run();
    files::write(KPTR_RESTRICT, before.trim())?;
    result
}

/// The blocker of a transition is named as always; these probes may be missing.
fn watches(guest: &mut Guest, missing: &[&str]) -> Result<()> {
    let metrics = guest.scrape()?;
    let probes = Probes::read()?;
    probes.expect_none_by("sysfs")?;
    let without = "livepatch_monitor_probe_attached{method=none}";
    for probe in metrics.label_values(without, "probe")? {
        ensure!(missing.contains(&probe), "{probe} is not attached");
    }
    ensure!(
        probes.has_given_up("no_new_privs"),
        "no_new_privs is not set"
    );
    let landlock = files::read(LSM)?.contains("landlock");
    ensure!(
        probes.has_given_up("files") == landlock,
        "Landlock: {landlock}, and {probes:?}"
    );
    metrics.expect_sum("livepatch_recorder_errors_total", 0.0)?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    let metrics = guest.wait_for(seconds(30), "livepatch_stuck_tasks", 1.0)?;
    target::expect_blocker_named(&metrics)?;
    let metrics = release(guest)?;
    metrics.expect_sum("livepatch_recorder_errors_total", 0.0)?;
    metrics.expect_sum("livepatch_monitor_collector_success", COLLECTORS)?;
    metrics.expect("livepatch_monitor_events_lost_total", 0.0)?;
    PATCH_A.remove(seconds(30))?;
    let log = monitor::log();
    let expected = |line: &&str| !missing.iter().any(|probe| line.contains(probe));
    let log = log.lines().filter(expected).collect::<Vec<_>>().join("\n");
    for trouble in [
        "stacks are shown as addresses",
        "cannot",
        "ermission denied",
        "not permitted",
    ] {
        ensure!(!log.contains(trouble), "the log reports trouble:\n{log}");
    }
    guest.note(sandbox_line(&log)?)
}

/// The log's lines about the sandbox.
fn sandbox_line(log: &str) -> Result<String> {
    let mut lines = log.lines().filter(|line| line.contains("sandboxed"));
    let line = lines.next().context("the log says nothing of a sandbox")?;
    Ok(line.to_owned())
}

/// Started during a transition, as the unit does: the kernel's log has the start.
fn joins(guest: &mut Guest, unit: Confinement) -> Result<()> {
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    guest.start_monitor_confined(unit, &["--stuck-after", "1s"])?;
    let metrics = guest.wait_for(seconds(30), "livepatch_stuck_tasks", 1.0)?;
    target::expect_blocker_named(&metrics)?;
    metrics.get("livepatch_transition_start_timestamp_seconds{patch=lpm_patch_a}")?;
    release(guest)?;
    Ok(())
}

/// Releases the task; returns the first scrape in which the transition has completed.
fn release(guest: &mut Guest) -> Result<Exposition> {
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 1.0)?;
    metrics.expect_at_rest("lpm_patch_a")?;
    target::hold()?;
    Ok(metrics)
}

/// No thread has a capability or can gain one.
fn expect_given_up(guest: &Guest, sets: &[&str]) -> Result<()> {
    // If each bpf() call needs CAP_BPF (before 5.19), that is what remains.
    let kept = if monitor::log().contains("kept=\"CAP_BPF\"") {
        BPF
    } else {
        NOTHING
    };
    let pid = guest.monitor()?.pid();
    let tasks = format!("/proc/{pid}/task");
    let mut threads = 0;
    for entry in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let name = entry.with_context(|| tasks.clone())?.file_name();
        let tid = name.to_string_lossy().parse().context("a tid")?;
        let nothing = sets.iter().map(|set| (*set, NOTHING));
        for (set, expected) in nothing.chain([("CapPrm", kept), ("CapEff", kept)]) {
            let value = status(tid, set)?;
            ensure!(value == expected, "thread {tid} has {set} {value}");
        }
        let no_new_privs = status(tid, "NoNewPrivs")?;
        ensure!(
            no_new_privs == "1",
            "thread {tid} has NoNewPrivs {no_new_privs}"
        );
        threads += 1;
    }
    // The journal's writer and one that answers scrapes, in addition to the first.
    ensure!(threads >= 3, "the monitor has {threads} threads only");
    guest.note(format!("{threads} threads without privileges"))
}

/// A line of /proc/TID/status.
fn status(tid: u32, key: &str) -> Result<String> {
    let path = format!("/proc/{tid}/status");
    let text = files::read(&path)?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(value
        .with_context(|| format!("no {key} in {path}"))?
        .trim()
        .to_owned())
}
