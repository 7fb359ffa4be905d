//! The machine goes down while nobody reads the log, the clock has jumped, and the monitor
//! may have no more threads and no more memory.

use super::{
    surroundings::{self, HOUR, jump, no_more, start},
    turns::Turns,
    *,
};

pub(in crate::crashes) fn provoke(guest: &mut Guest) -> Result<()> {
    surroundings::make()?;
    let reader = start(guest)?;
    let mut turns = Turns::begin(guest)?;
    guest.wait_idle()?;

    guest.note("nobody reads the log, the clock jumps an hour back, no more threads")?;
    guest.end_helper(reader)?;
    jump(-HOUR)?;
    no_more("pids")?;
    let metrics = turns.turn_counted(guest)?;
    metrics.expect(UNRECORDED, 0.0)?;
    ensure!(count(&metrics, UNLOGGED)? > 0.0, "no log line was lost");

    guest.note("the machine goes down, and there is no more memory")?;
    // Whether the monitor is killed for what the turn takes or not.
    no_more("memory")?;
    turns.turn()?;
    crash(guest)
}

/// It has the date that the clock showed.
pub(in crate::crashes) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
    let expected = Expected {
        clock: -3600.0,
        ..expected()
    };
    expect_one(guest, memo, &expected)
}
