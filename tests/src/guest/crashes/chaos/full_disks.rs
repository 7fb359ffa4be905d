//! The disks of the state, of the log and of the text file are full.

use std::{fs, os::unix::fs::symlink, time::Duration};

use super::{
    small_disk::{Filler, fill_last_block, left_in, mount_small},
    turns::Turns,
    *,
};
use crate::{eventually::eventually, monitor, scenarios::clock::unix_seconds};

/// The file system of the state directory, which outlives the boot.
const STATE_DISK: &str = "/var/lib";
const LOG_DISK: &str = "/tmp/log-disk";
const TEXT_DISK: &str = "/tmp/text-disk";
const TEXT: &str = "/tmp/text-disk/livepatch_monitor.prom";
/// During a transition it is written every two seconds; so long once more for the writing.
const NEXT_TEXT: Duration = seconds(4);
const DISKS: [&str; 3] = [STATE_DISK, LOG_DISK, TEXT_DISK];

pub(in crate::crashes) fn provoke(guest: &mut Guest) -> Result<()> {
    mount_small(LOG_DISK)?;
    mount_small(TEXT_DISK)?;
    symlink(format!("{LOG_DISK}/monitor.log"), monitor::LOG)
        .with_context(|| format!("cannot make {}", monitor::LOG))?;
    guest.start_monitor(&["--textfile", TEXT_DISK])?;
    let mut turns = Turns::begin(guest)?;
    expect_text(&turns)?;
    guest.wait_idle()?;

    guest.note("the disks are full")?;
    let fillers = fill_all()?;
    let before = fs::read(TEXT).with_context(|| format!("cannot read {TEXT}"))?;
    turns.turn_counted(guest)?;
    warn(guest)?;
    let metrics = guest.wait_for(seconds(20), WARNING, 1.0)?;
    turns.expect(&metrics)?;
    let lost = guest
        .wait_until(seconds(20), |metrics| {
            let lost = count(metrics, UNLOGGED)?;
            ensure!(lost > 0.0, "no log line was lost");
            Ok(())
        })
        .and_then(|metrics| count(&metrics, UNLOGGED))?;
    guest.note(format!("{lost} log lines lost"))?;
    let meanwhile = fs::read(TEXT).with_context(|| format!("cannot read {TEXT}"))?;
    ensure!(meanwhile == before, "{TEXT} was written on a full disk");

    guest.note("there is space again")?;
    fillers.into_iter().try_for_each(Filler::free)?;
    let metrics = a_second_later(guest)?;
    turns.expect(&metrics)?;
    metrics.expect(WARNING, 1.0)?;
    // Space for the journal is reserved.
    metrics.expect(UNRECORDED, 0.0)?;
    expect_text(&turns)?;
    turns.turn_counted(guest)?;
    expect_logged(&monitor::log(), LOGGED_AGAIN)?;

    // Another monitor knows what the first one wrote on the full disk.
    let begun = turns::start(&guest.scrape()?)?;
    guest.wait_idle()?;
    guest.kill_monitor()?;
    guest.start_monitor(&["--textfile", TEXT_DISK])?;
    turns.expect_taken_over(guest, begun)?;

    guest.note("the machine goes down while the disks are full")?;
    let _fillers = fill_all()?;
    turns.turn_counted(guest)?;
    guest.wait_idle()?;
    crash(guest)
}

/// Not a byte more can be written anywhere, not even to the log.
fn fill_all() -> Result<Vec<Filler>> {
    let fillers = DISKS.into_iter().map(Filler::fill).collect::<Result<_>>()?;
    fill_last_block(monitor::LOG)?;
    Ok(fillers)
}

/// The next text file is right too.
fn expect_text(turns: &Turns) -> Result<()> {
    let since = unix_seconds()?;
    let text = eventually(NEXT_TEXT, || {
        let text = fs::read_to_string(TEXT).with_context(|| format!("cannot read {TEXT}"))?;
        let text = Exposition::parse(&text)?;
        let written = text.get("livepatch_monitor_textfile_timestamp_seconds")?;
        ensure!(
            written >= since,
            "{TEXT} was written {} s before",
            since - written
        );
        Ok(text)
    })?;
    turns.expect(&text)
}

pub(in crate::crashes) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
    let known = known_while_full(guest);
    // Whatever it knew: the test machine needs its disk.
    left_in(STATE_DISK).free()?;
    known?;
    guest.kill_monitor()?;
    expect_one(guest, memo, &expected())
}

/// The disk is still full after the crash. What earlier boots left on it is read; the record of
/// the crash cannot be written yet.
fn known_while_full(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    let metrics = guest.scrape()?;
    metrics.expect("livepatch_crashes_total", 1.0)?;
    metrics.expect_sum(
        "livepatch_last_crash_info{kind=panic,phase=transition,patch=lpm_patch_a}",
        1.0,
    )
}
