//! The demonstration: a livepatch gets stuck, and the monitor says on whom.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_tests::protocol::Message;

use crate::{
    eventually::{eventually, seconds},
    guest::Guest,
    helpers::Hold,
    livepatch::PATCH_A,
    monitor, target,
};

/// The exporter's port.
const PORT: u16 = 9969;

/// How long the exporter stays for the host to look at it.
const SHOW: Duration = seconds(10);

/// Patches, gets stuck, explains, lets go.
pub(crate) fn run(guest: &mut Guest) -> Result<()> {
    guest.begin("demo");
    let result = story(guest);
    let log = monitor::log_tail();
    // The machine is about to go: what stays behind goes with it.
    let cleaned = guest.clean_up();
    result
        .and(cleaned)
        .with_context(|| format!("the monitor's log ends:\n{log}"))
}

fn story(guest: &mut Guest) -> Result<()> {
    guest.note("$ livepatch-monitor serve --stuck-after 4s")?;
    guest.start_public_monitor(PORT, &["--stuck-after", "4s"])?;
    target::load()?;
    let holder = guest.hold(&Hold {
        unit: Some("holder.service".to_owned()),
        comm: Some(b"holder".to_vec()),
        ..Hold::ONE
    })?;
    guest.note(format!(
        "A task of holder.service (pid {}) is asleep in the kernel, in lpm_hold.",
        holder.pid
    ))?;
    guest.note("A livepatch comes that replaces lpm_hold:")?;
    guest.note("$ insmod lpm_patch_a.ko")?;
    PATCH_A.load()?;
    eventually(seconds(30), || {
        let stuck = guest.monitor()?.scrape()?.sum("livepatch_stuck_tasks")?;
        ensure!(stuck > 0.0, "nothing is stuck");
        Ok(())
    })?;
    guest.note("It does not land: the kernel waits for every task to leave the old code.")?;
    guest.note("Without a monitor this is all there is to see:")?;
    guest.note("$ cat /sys/kernel/livepatch/lpm_patch_a/transition")?;
    guest.note(if PATCH_A.in_transition()? { "1" } else { "0" })?;
    guest.note("With it:")?;
    show(guest, &["status"])?;
    show(guest, &["blockers"])?;
    guest.send(&Message::Serving { port: PORT })?;
    thread::sleep(SHOW);

    guest.note("The service is restarted, its task leaves lpm_hold:")?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    show(guest, &["status"])?;
    let metrics = guest.metrics(seconds(10), |metrics| {
        metrics.expect(
            "livepatch_transition_duration_seconds_count{direction=patch,outcome=completed}",
            1.0,
        )
    })?;
    for prefix in [
        "livepatch_patch_enabled",
        "livepatch_transition_active",
        "livepatch_stuck_tasks",
        "livepatch_transition_duration_seconds_sum{direction=\"patch\",outcome=\"completed\"}",
    ] {
        for line in metrics.lines(prefix) {
            guest.note(line)?;
        }
    }
    Ok(())
}

fn show(guest: &Guest, arguments: &[&str]) -> Result<()> {
    guest.note(format!("$ livepatch-monitor {}", arguments.join(" ")))?;
    let answer = monitor::command(arguments)?;
    for line in String::from_utf8_lossy(&answer.output).lines() {
        guest.note(line)?;
    }
    Ok(())
}
