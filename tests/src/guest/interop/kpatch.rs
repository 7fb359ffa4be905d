//! kpatch's script loads and unloads the livepatches.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, ensure};

use super::program::{self, Ended, Running};
use crate::{
    eventually::{eventually, seconds},
    exposition::ended,
    guest::Guest,
    helpers::Hold,
    livepatch::{PATCH_A, VMLINUX},
    modules, monitor, target,
};

const ROUNDS: usize = 3;
const FILE: &str = "/modules/lpm_vmlinux.ko";
const HELD_FILE: &str = "/modules/lpm_patch_a.ko";

/// kpatch waits by `sleep 1s`, 15 times and then 60 times: with this one first on its
/// PATH it times out sooner.
const IMPATIENT: &str = "/tmp/impatient";
const SHORT_SLEEP: &str = "#!/bin/sh\nexec /usr/bin/sleep 0.1\n";

pub(super) fn kpatch_drives(guest: &mut Guest) -> Result<()> {
    let without = rounds()?;
    guest.start_monitor(&["--stuck-after", "5s"])?;
    let with = rounds()?;
    compare(&without, &with)?;
    guest.wait_for(seconds(10), &ended("patch", "completed"), 3.0)?;
    let metrics = guest.wait_for(seconds(10), &ended("unpatch", "completed"), 3.0)?;
    metrics.expect_sum("livepatch_patch_load_failures_total", 0.0)?;
    held(guest)?;
    given_up(guest)
}

/// The output of a round of load, list and unload.
struct Round {
    codes: Vec<Option<i32>>,
    said: Vec<String>,
}

fn rounds() -> Result<Vec<Round>> {
    (0..ROUNDS).map(|_| round()).collect()
}

fn round() -> Result<Round> {
    let steps = [
        &["kpatch", "load", FILE][..],
        &["kpatch", "list"],
        &["kpatch", "unload", VMLINUX.name],
    ];
    let mut round = Round {
        codes: Vec::new(),
        said: Vec::new(),
    };
    for step in steps {
        let answer = program::run(step, seconds(60))?;
        round.codes.push(answer.code);
        round.said.extend(settled(&answer));
    }
    Ok(round)
}

/// Its output, without how long it waited: a first attempt may fail on any machine.
fn settled(answer: &Ended) -> Vec<String> {
    let waiting = ["waiting (up to", "transition complete ("];
    let lines = answer.output.lines();
    lines
        .filter(|line| !waiting.iter().any(|start| line.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

fn compare(without: &[Round], with: &[Round]) -> Result<()> {
    for round in without.iter().chain(with) {
        ensure!(
            round.codes == [Some(0); 3],
            "kpatch ended with {:?} and said {:?}",
            round.codes,
            round.said
        );
    }
    for (with, without) in with.iter().zip(without) {
        ensure!(
            with.said == without.said,
            "with the monitor kpatch says {:?}, without {:?}",
            with.said,
            without.said
        );
    }
    Ok(())
}

/// kpatch waits for a task, and both name it.
fn held(guest: &mut Guest) -> Result<()> {
    target::load()?;
    let holder = guest.hold(&Hold::of_a_service())?;
    let mut load = Running::start(&["kpatch", "load", HELD_FILE], None)?;
    let metrics = guest.wait_for(seconds(40), "livepatch_stuck_tasks", 1.0)?;
    target::expect_blocker_named(&metrics)?;
    load.wait_for("waiting (up to 15 seconds)", seconds(10))?;
    let list = program::run(&["kpatch", "list"], seconds(60))?.success()?;
    ensure!(
        list.output.contains("lpm_patch_a [enabling...]"),
        "{list:?}"
    );
    let blockers = monitor::blockers()?;
    let ours: BTreeSet<u32> = blockers.tasks.iter().map(|task| task.tid).collect();
    ensure!(
        ours == stalled(&list.output) && ours == BTreeSet::from([holder.pid]),
        "the monitor names {ours:?}, kpatch says {}",
        list.output
    );

    // On this kernel the signals are the kernel's, which kpatch's output shows.
    load.wait_for("patch transition has stalled!", seconds(60))?;
    guest.wait_until(seconds(40), |metrics| {
        let signals = metrics.get("livepatch_transition_signals_total")?;
        ensure!(signals >= 1.0, "the kernel's signals are not counted");
        Ok(())
    })?;
    target::release()?;
    let load = load.end(seconds(60))?.success()?;
    ensure!(load.output.contains("transition complete ("), "{load:?}");
    let metrics = guest.wait_for(seconds(10), &ended("patch", "completed"), 4.0)?;
    metrics.expect_at_rest(PATCH_A.name)?;
    metrics.expect("livepatch_patch_enabled{patch=lpm_patch_a}", 1.0)?;
    program::run(&["kpatch", "unload", PATCH_A.name], seconds(60))?.success()?;
    modules::unload(target::NAME)
}

/// The thread ids under kpatch's "Stalled processes:", each before its name.
fn stalled(output: &str) -> BTreeSet<u32> {
    let mut lines = output
        .lines()
        .skip_while(|line| !line.starts_with("Stalled processes"));
    let mut found = BTreeSet::new();
    let mut before = lines.next().unwrap_or_default();
    for line in lines {
        if line == "stack:"
            && let Some(tid) = before.split_whitespace().next()
        {
            found.extend(tid.parse::<u32>());
        }
        before = line;
    }
    found
}

/// kpatch times out, reverses the transition, and unloads.
fn given_up(guest: &mut Guest) -> Result<()> {
    let sleep = format!("{IMPATIENT}/sleep");
    fs::create_dir_all(IMPATIENT).with_context(|| format!("cannot make {IMPATIENT}"))?;
    fs::write(&sleep, SHORT_SLEEP).with_context(|| format!("cannot write {sleep}"))?;
    fs::set_permissions(&sleep, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {sleep} a program"))?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    let reversals = guest
        .monitor()?
        .scrape()?
        .get("livepatch_transition_reversals_total")?;
    let mut load = Running::start(&["kpatch", "load", HELD_FILE], Some(IMPATIENT))?;
    load.wait_for("did not complete its transition", seconds(120))?;
    let reversed = "livepatch_transition_reversals_total";
    guest.wait_for(seconds(20), reversed, reversals + 1.0)?;
    // The task that had not switched is already in the state that the reversal needs: it ends at
    // once.
    let load = load.end(seconds(120))?;
    ensure!(
        load.code == Some(1) && load.output.contains("(transition stalled)"),
        "{load:?}"
    );
    PATCH_A.wait_gone(seconds(15))?;
    guest
        .wait_for(seconds(10), &ended("unpatch", "completed"), 5.0)?
        .expect_none_loaded()?;
    eventually(seconds(10), || {
        ensure!(
            !modules::loaded()?.contains(&PATCH_A.name.to_owned()),
            "kpatch has not unloaded the module"
        );
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalled_tasks_are_read() {
        let output = "Loaded patch modules:\na [enabling...]\n\nStalled processes:\n\
                      154 holder\nstack:\n[<0>] lpm_hold+0x94/0xd0\n[<0>] x+0x1/0x2\n\
                      17 kworker/1:2\nstack:\n\n\nInstalled patch modules:\n";
        assert_eq!(stalled(output), BTreeSet::from([17, 154]));
        assert_eq!(stalled("Loaded patch modules:\n"), BTreeSet::new());
    }
}
