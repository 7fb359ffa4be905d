//! In a container: a root directory with only the monitor in it, separate namespaces, and the
//! host's /proc and /sys mounted somewhere else.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive};

use super::program;
use crate::{
    eventually::seconds,
    guest::{Guest, Holder},
    helpers::Hold,
    livepatch::PATCH_A,
    monitor::{self, Blockers},
    target,
};

const ROOT: &str = "/container";

const HOST_PATHS: [&str; 6] = [
    "--path.procfs",
    "/host/proc",
    "--path.sysfs",
    "/host/sys",
    "--path.kmsg",
    "/host/kmsg",
];

/// As a pod with `hostPID: true` and `hostNetwork: true` runs.
const WITH_HOST_PIDS: &[&str] = &[
    "/usr/bin/unshare",
    "--mount",
    "--uts",
    "--ipc",
    "--cgroup",
    "--root=/container",
];
/// With its own pids and /proc.
const WITH_OWN_PIDS: &[&str] = &[
    "/usr/bin/unshare",
    "--mount",
    "--uts",
    "--ipc",
    "--cgroup",
    "--pid",
    "--fork",
    "--kill-child",
    "--root=/container",
    "--mount-proc",
];

pub(super) fn inside_a_container(guest: &mut Guest) -> Result<()> {
    furnish()?;
    target::load()?;
    let holder = guest.hold(&Hold::of_a_service())?;
    let arguments = [&["--stuck-after", "3s"][..], &HOST_PATHS].concat();

    guest.start_monitor_through(WITH_HOST_PIDS, &arguments)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    let metrics = guest.wait_for(seconds(40), "livepatch_stuck_tasks", 1.0)?;
    metrics.expect_absent("livepatch_monitor_probe_attached{method=none}")?;
    target::expect_blocker_named(&metrics)?;
    expect_named(WITH_HOST_PIDS, holder)?;
    let network = [WITH_HOST_PIDS, &["--net"]].concat();
    expect_named(&network, holder)?;
    guest.stop_monitor()?;

    // The iterator would show the container's own tasks, and no blocker among them.
    guest.start_monitor_through(WITH_OWN_PIDS, &arguments)?;
    let metrics = guest.wait_for(seconds(40), "livepatch_stuck_tasks", 1.0)?;
    metrics.expect(
        "livepatch_monitor_probe_attached{probe=task_scan,method=none}",
        0.0,
    )?;
    metrics.expect_absent("livepatch_monitor_probe_attached{probe=klp_init_transition}")?;
    target::expect_blocker_named(&metrics)?;
    expect_in_log("PID namespace")?;
    expect_named(WITH_OWN_PIDS, holder)?;
    guest.stop_monitor()?;

    // With only its own /proc, it is not a host, says so, and does not count as one.
    let blind = ["--stuck-after", "3s", "--path.sysfs", "/host/sys"];
    guest.start_monitor_through(WITH_OWN_PIDS, &blind)?;
    let metrics = guest.scrape()?;
    metrics.expect("livepatch_monitor_collector_success{collector=sysfs}", 0.0)?;
    for absent in [
        "livepatch_kernel_info",
        "livepatch_patch_enabled",
        "livepatch_transition_active",
        "livepatch_pending_tasks",
        "livepatch_boot_unclean",
        "livepatch_crashes_total",
    ] {
        metrics.expect_absent(absent)?;
    }
    expect_in_log("not a host")?;
    expect_in_log("hostPID")?;
    let words = [WITH_OWN_PIDS, &[monitor::PROGRAM, "blockers"], &blind[2..]].concat();
    let answer = program::run(&words, seconds(60))?;
    ensure!(
        answer.code == Some(2) && answer.output.contains("PID namespace"),
        "{answer:?}"
    );
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))
}

/// What a container runtime would mount there.
fn furnish() -> Result<()> {
    for folder in [
        "bin",
        "dev",
        "proc",
        "sys",
        "tmp",
        "var/lib",
        "host/proc",
        "host/sys",
    ] {
        let folder = format!("{ROOT}/{folder}");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder}"))?;
    }
    let program = format!("{ROOT}{}", monitor::PROGRAM);
    fs::copy(monitor::PROGRAM, &program).with_context(|| format!("cannot make {program}"))?;
    mount(
        "sysfs",
        format!("{ROOT}/sys"),
        "sysfs",
        MountFlags::RDONLY,
        None,
    )
    .context("cannot mount the container's own /sys")?;
    mount_bind("/proc", format!("{ROOT}/host/proc")).context("cannot mount the host's /proc")?;
    mount_bind_recursive("/sys", format!("{ROOT}/host/sys"))
        .context("cannot mount the host's /sys")?;
    let kmsg = format!("{ROOT}/host/kmsg");
    fs::write(&kmsg, "").with_context(|| format!("cannot make {kmsg}"))?;
    mount_bind("/dev/kmsg", &kmsg).context("cannot mount the host's kernel log")?;
    ensure!(!Path::new("/container/usr").exists(), "not so empty a root");
    Ok(())
}

/// `blockers` in the container names the task as the host knows it.
fn expect_named(through: &[&str], holder: Holder) -> Result<()> {
    let command = [
        monitor::PROGRAM,
        "blockers",
        "--json",
        "--log.level",
        "error",
    ];
    let words = [through, &command, &HOST_PATHS].concat();
    let answer = program::run(&words, seconds(60))?;
    let json = answer
        .output
        .lines()
        .skip_while(|line| !line.starts_with('{'));
    let json: String = json.collect();
    let blockers: Blockers =
        serde_json::from_str(&json).with_context(|| format!("`blockers` ended with {answer:?}"))?;
    let task = blockers.task(holder.pid)?;
    ensure!(
        answer.code == Some(1)
            && blockers.pending == 1
            && task.pid == holder.pid
            && task.comm == "holder"
            && task.unit.as_deref() == Some("holder.service")
            && task.function.as_deref() == Some("lpm_hold")
            && task.stack.iter().any(|line| line.starts_with("lpm_hold+")),
        "{blockers:?}"
    );
    Ok(())
}

fn expect_in_log(what: &str) -> Result<()> {
    let log = monitor::log();
    ensure!(log.contains(what), "the log does not say `{what}`: {log}");
    Ok(())
}
