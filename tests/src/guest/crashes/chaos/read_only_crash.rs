//! The machine goes down while the disk of the state is read-only.

use super::{
    device::{self, state_on_it},
    turns::Turns,
    *,
};

const DIRECTORY: &str = "read-only";

pub(in crate::crashes) fn provoke(guest: &mut Guest) -> Result<()> {
    let _disk = state_on_it(DIRECTORY)?;
    guest.start_monitor(&[])?;
    let mut turns = Turns::begin(guest)?;
    guest.wait_idle()?;
    // What the monitor has written is on the disk; that of the test is not yet.
    rustix::fs::sync();

    guest.note("the machine goes down while the disk is read-only")?;
    device::make_all_read_only()?;
    turns.turn_counted(guest)?;
    guest.wait_until(seconds(20), |metrics| {
        let unrecorded = count(metrics, UNRECORDED)?;
        ensure!(unrecorded > 0.0, "every entry is on a read-only disk");
        Ok(())
    })?;
    crash(guest)
}

pub(in crate::crashes) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
    let _disk = state_on_it(DIRECTORY)?;
    expect_one(guest, memo, &expected())
}
