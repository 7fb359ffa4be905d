//! What operators ask a host: whether a transition has completed, whether a patch's
//! functions really run, and what the host allows.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;

use crate::{
    eventually::{eventually, seconds},
    guest::Guest,
    helpers::Hold,
    kernel,
    livepatch::{PATCH_A, REPLACE, VMLINUX},
    modules, monitor,
    probes::Probes,
    runbooks::{self, Walk},
    target,
};

/// `wait` follows a transition from a blocker to its end, and every function is in force
/// then; a patch that a cumulative one replaced is shown as left over.
pub(super) fn waited_for_and_in_force(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    let wait = &["wait", "--patch", "lpm_patch_a", "--timeout"];
    says(
        &[&wait[..], &["2s"]].concat(),
        1,
        &["still patching", "asleep in lpm_hold"],
    )?;
    let metrics = guest.scrape()?;
    metrics.expect(
        "livepatch_patch_functions_in_force{patch=lpm_patch_a,object=lpm_target}",
        0.0,
    )?;
    target::release()?;
    says(
        &[&wait[..], &["60s"]].concat(),
        0,
        &["lpm_patch_a: completed"],
    )?;

    // Four functions in lpm_target, one in the kernel, one in a module that is not loaded.
    says(
        &["status"],
        0,
        &[
            "5 of 6 functions are in force",
            "(lpm_late) is in a module that is not loaded",
            "no transition is running",
        ],
    )?;
    let metrics = guest.scrape()?;
    for (object, count) in [("lpm_target", 4.0), ("vmlinux", 1.0), ("lpm_late", 0.0)] {
        let series =
            format!("livepatch_patch_functions_in_force{{patch=lpm_patch_a,object={object}}}");
        metrics.expect(&series, count)?;
    }
    let not_in_force = "livepatch_patch_functions_not_in_force{patch=lpm_patch_a}";
    metrics.expect_sum(not_in_force, 1.0)?;
    ensure!(
        metrics.label_values(not_in_force, "reason")? == ["object_not_loaded"],
        "reasons other than object_not_loaded"
    );

    REPLACE.apply(seconds(30))?;
    PATCH_A.wait_gone(seconds(15))?;
    if modules::loaded()?.iter().any(|name| name == "lpm_patch_a") {
        says(&["status"], 0, &["lpm_patch_a: loaded, not in force"])?;
        says(
            &["preflight", "--sample", "0s", "/modules/lpm_patch_a.ko"],
            2,
            &["loaded and not in force", "rmmod lpm_patch_a first"],
        )?;
    }
    let report = monitor::command(&["doctor"])?;
    guest.note(String::from_utf8_lossy(&report.output).into_owned())?;
    for word in [
        "ok       livepatch",
        "ok       ftrace_enabled",
        "probes can be attached",
    ] {
        let text = String::from_utf8_lossy(&report.output);
        ensure!(
            text.contains(word),
            "`doctor` does not say {word:?}: {text}"
        );
    }
    Ok(())
}

/// The runbooks of a patch that is missing, refused, stuck and reversed are followed to the
/// letter while each is so. That of a stuck transition ends with giving up.
pub(super) fn runbooks_are_followed(guest: &mut Guest) -> Result<()> {
    let installed = install("lpm_vmlinux")?;
    let result = followed(guest);
    fs::remove_dir_all(&installed).with_context(|| format!("cannot remove {installed}"))?;
    result
}

fn followed(guest: &mut Guest) -> Result<()> {
    let follow = |guest: &Guest, page, seen| {
        let given = &[("PATCH", "lpm_patch_a")];
        runbooks::follow(guest, &Walk { page, given, seen })
    };
    guest.start_monitor(&["--stuck-after", "1s"])?;
    let metrics = guest.scrape()?;
    metrics.expect("livepatch_patch_missing{patch=lpm_vmlinux}", 1.0)?;
    metrics.expect("livepatch_crash_evidence_ready{source=pstore}", 0.0)?;
    runbooks::follow(
        guest,
        &Walk {
            page: "LivepatchPatchMissing",
            seen: &["lpm_vmlinux", "not loaded"],
            ..Walk::default()
        },
    )?;
    follow(
        guest,
        "LivepatchNoCrashEvidence",
        &["WARNING  pstore", "(null)"],
    )?;

    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    modules::expect_refused("lpm_refused", Errno::BUSY)?;
    guest.wait_for(seconds(10), "livepatch_patch_load_failures_total", 1.0)?;
    guest.wait_for(seconds(20), "livepatch_stuck_tasks", 1.0)?;
    runbooks::follow(
        guest,
        &Walk {
            page: "LivepatchLoadFailed",
            seen: &["lpm_refused", "asleep in lpm_hold"],
            ..Walk::default()
        },
    )?;
    let held = &["1 task asleep in lpm_hold (lpm_target)", "lpm_hold+0x"];
    follow(guest, "LivepatchTransitionStuckLong", held)?;
    ensure!(PATCH_A.is_enabled()?, "a runbook has given up too early");
    follow(guest, "LivepatchTransitionStuck", held)?;
    // It has given up, and waited for the end.
    ensure!(!PATCH_A.in_transition()?, "the reversal still runs");

    guest.wait_for(seconds(10), "livepatch_transition_reversals_total", 1.0)?;
    runbooks::follow(
        guest,
        &Walk {
            page: "LivepatchReversed",
            seen: &["transition reversed", "blocker: asleep in lpm_hold"],
            ..Walk::default()
        },
    )
}

/// Puts a livepatch where kpatch installs it; returns the directory.
fn install(module: &str) -> Result<String> {
    let folder = format!("/var/lib/kpatch/{}", kernel::release()?);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder}"))?;
    let (from, to) = (
        format!("/modules/{module}.ko"),
        format!("{folder}/{module}.ko"),
    );
    fs::copy(&from, &to).with_context(|| format!("cannot copy {from} to {to}"))?;
    Ok("/var/lib/kpatch".to_owned())
}

/// With ftrace off the kernel refuses livepatches and the probes receive nothing: preflight,
/// doctor and the metrics say so, and a load that was refused is counted all the same. With
/// ftrace on again everything is seen.
pub(super) fn without_ftrace(guest: &mut Guest) -> Result<()> {
    const MISSING: &str = "livepatch_monitor_probe_attached{probe=klp_init_transition}";
    guest.start_monitor(&[])?;
    let metrics = guest.scrape()?;
    metrics.expect_absent(MISSING)?;
    set_ftrace(false)?;
    let result = blind(guest);
    set_ftrace(true)?;
    result?;
    let metrics = guest.scrape()?;
    metrics.expect_absent(MISSING)?;
    VMLINUX.apply(seconds(30))?;
    guest.wait_until(seconds(10), |_| {
        Probes::read()?.expect_received("klp_complete_transition", 1.0)
    })?;
    Ok(())
}

fn blind(guest: &mut Guest) -> Result<()> {
    let preflight = ["preflight", "--sample", "0s", "/modules/lpm_vmlinux.ko"];
    says(&preflight, 2, &["kernel.ftrace_enabled is 0", "EBUSY"])?;
    says(&["doctor"], 1, &["FAILURE  ftrace_enabled"])?;
    let metrics = guest.scrape()?;
    metrics.expect(
        "livepatch_monitor_probe_attached{probe=klp_init_transition,method=none}",
        0.0,
    )?;
    modules::expect_refused("lpm_vmlinux", Errno::BUSY)?;
    guest.wait_for(seconds(10), "livepatch_patch_load_failures_total", 1.0)?;
    Ok(())
}

fn set_ftrace(on: bool) -> Result<()> {
    let file = "/proc/sys/kernel/ftrace_enabled";
    let value = if on { "1" } else { "0" };
    // A livepatch of the scenario before may still be on its way out (EBUSY).
    eventually(seconds(15), || {
        fs::write(file, value).with_context(|| format!("cannot write {value} to {file}"))
    })
}

/// Runs a command, which must end with this code and say all of this.
pub(super) fn says(arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let answer = monitor::command(arguments)?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&answer.output),
        answer.errors
    );
    ensure!(
        answer.code == code && words.iter().all(|word| text.contains(word)),
        "`{}` must end with {code} and say {words:?}; it ended with {} and said\n{text}",
        arguments.join(" "),
        answer.code
    );
    Ok(())
}
