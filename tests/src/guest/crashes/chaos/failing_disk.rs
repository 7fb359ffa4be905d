//! The disk of the state directory fails, becomes read-only, and works again. No WARN is provoked
//! here, because the file system has its own when a disk fails.

use super::{
    device::{self, state_on_it},
    turns::Turns,
    *,
};
use crate::{eventually::eventually, monitor};

const DIRECTORY: &str = "state";
/// What the monitor says when its state is on the disk again.
const RECORDED_AGAIN: &str = "the journal can be written again";

pub(in crate::crashes) fn provoke(guest: &mut Guest) -> Result<()> {
    let disk = state_on_it(DIRECTORY)?;
    guest.start_monitor(&[])?;
    let mut turns = Turns::begin(guest)?;
    guest.wait_idle()?;
    guest.scrape()?.expect(UNRECORDED, 0.0)?;

    guest.note("the disk fails")?;
    disk.fail()?;
    turns.turn_counted(guest)?;
    expect_unrecorded(guest, 0.0)?;
    expect_logged(&monitor::log(), "/recorder/")?;
    guest.note("the disk works again")?;
    disk.work()?;
    let metrics = a_second_later(guest)?;
    turns.expect(&metrics)?;
    let unrecorded = expect_recorded(guest, &mut turns, 1)?;

    guest.note("the disk is read-only")?;
    device::make_all_read_only()?;
    turns.turn_counted(guest)?;
    expect_unrecorded(guest, unrecorded)?;
    guest.note("the disk is writable again")?;
    device::make_all_writable()?;
    let metrics = a_second_later(guest)?;
    turns.expect(&metrics)?;
    expect_recorded(guest, &mut turns, 2)?;

    guest.note("killed and started again, it has what was on the disk")?;
    let begun = turns::start(&guest.scrape()?)?;
    guest.kill_monitor()?;
    guest.start_monitor(&[])?;
    turns.expect_taken_over(guest, begun)?;
    guest.wait_idle()?;
    // Without a journal, fsync(2) of a file writes no bitmaps back (ext4_fsync_nojournal,
    // fs/ext4/fsync.c), and nothing checks the file system at the next boot: new files would get
    // the inodes of existing files. syncfs(2) would report the earlier failures.
    rustix::fs::sync();
    turns.turn_counted(guest)?;
    guest.wait_idle()?;

    guest.note("the machine goes down while the disk fails")?;
    disk.fail()?;
    crash(guest)
}

pub(in crate::crashes) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
    let _disk = state_on_it(DIRECTORY)?;
    expect_one(guest, memo, &expected())
}

/// Waits until more entries than so many are not on the disk.
fn expect_unrecorded(guest: &mut Guest, before: f64) -> Result<()> {
    guest.wait_until(seconds(20), |metrics| {
        let unrecorded = count(metrics, UNRECORDED)?;
        ensure!(
            unrecorded > before,
            "{unrecorded} entries are not on the disk"
        );
        Ok(())
    })?;
    Ok(())
}

/// What could not be written is written now, for the `time`th time, and so is what happens next.
/// Returns how many entries could not be written at once.
fn expect_recorded(guest: &mut Guest, turns: &mut Turns, time: usize) -> Result<f64> {
    // The first sync after a failure may still report that failure (fsync(2)).
    eventually(seconds(30), || {
        let written = monitor::log().matches(RECORDED_AGAIN).count();
        ensure!(
            written == time,
            "`{RECORDED_AGAIN}` {written} times, not {time}"
        );
        Ok(())
    })?;
    let unrecorded = count(&guest.scrape()?, UNRECORDED)?;
    turns.turn_counted(guest)?;
    guest.wait_idle()?;
    guest.scrape()?.expect(UNRECORDED, unrecorded)?;
    Ok(unrecorded)
}
