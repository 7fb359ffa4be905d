//! Problems around the monitor's process: its log has no reader, it is stopped, the clock jumps, a
//! second monitor starts, it cannot have more threads or more memory.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Stdio},
};

use rustix::process::{Signal, kill_process};

use super::{
    surroundings::{self, HOUR, jump, limit, no_more, pid, read_log, start},
    turns::Turns,
    *,
};
use crate::{
    eventually::eventually,
    monitor,
    scenarios::clock::{expect_between, unix_seconds},
};

const OTHER: &str = "127.0.0.1:9970";
const OTHERS_LOG: &str = "/tmp/other.log";

pub(in crate::crashes) fn provoke(guest: &mut Guest) -> Result<()> {
    surroundings::make()?;
    let reader = start(guest)?;
    let mut turns = Turns::begin(guest)?;

    guest.note("nobody reads the log")?;
    guest.end_helper(reader)?;
    turns.turn_counted(guest)?;
    let lost = guest.wait_until(seconds(20), |metrics| {
        ensure!(count(metrics, UNLOGGED)? > 0.0, "no log line was lost");
        Ok(())
    })?;
    read_log(guest)?;
    let metrics = a_second_later(guest)?;
    turns.expect(&metrics)?;
    turns.turn_counted(guest)?;
    eventually(seconds(20), || expect_logged(&monitor::log(), LOGGED_AGAIN))?;
    let lost = count(&lost, UNLOGGED)?;
    guest.note(format!("{lost} log lines lost"))?;

    guest.note("stopped, it goes on")?;
    let pid = pid(guest)?;
    kill_process(pid, Signal::STOP).context("cannot stop the monitor")?;
    turns.turn()?;
    turns.turn()?;
    turns.turn()?;
    warn(guest)?;
    thread::sleep(seconds(2));
    kill_process(pid, Signal::CONT).context("the monitor cannot go on")?;
    let metrics = a_second_later(guest)?;
    turns.expect(&metrics)?;
    metrics.expect(WARNING, 1.0)?;

    clock_jumps(guest, &mut turns)?;
    another_monitor(guest, &mut turns)?;

    guest.note("no more threads")?;
    no_more("pids")?;
    let answers = thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| guest.monitor()?.scrape()))
            .collect();
        asking
            .into_iter()
            .map(|one| {
                one.join()
                    .map_err(|_| anyhow::anyhow!("a scrape panicked"))?
            })
            .collect::<Result<Vec<_>>>()
    })?;
    for metrics in &answers {
        turns.expect(metrics)?;
    }
    turns.turn_counted(guest)?;
    limit("pids.max", "max")?;
    let metrics = a_second_later(guest)?;
    turns.expect(&metrics)?;
    metrics.expect(WARNING, 1.0)?;
    turns.turn_counted(guest)?.expect(WARNING, 1.0)?;

    guest.note("no more memory")?;
    guest.wait_idle()?;
    let metrics = guest.scrape()?;
    metrics.expect(UNRECORDED, 0.0)?;
    let begun = turns::start(&metrics)?;
    limit("memory.max", "1M")?;
    let status = guest.wait_monitor_ended(seconds(60))?;
    ensure!(
        status.signal() == Some(Signal::KILL.as_raw()),
        "without memory the monitor ended with {status}"
    );
    limit("memory.max", "max")?;
    // A start takes longer than a second, on an emulated processor many of them.
    start(guest)?;
    turns.expect_taken_over(guest, begun)?;
    turns.turn_counted(guest)?;
    turns.expect(&a_second_later(guest)?)?;
    guest.wait_idle()?;

    guest.note("the machine goes down while it is stopped and another one runs")?;
    start_another()?;
    kill_process(surroundings::pid(guest)?, Signal::STOP).context("cannot stop the monitor")?;
    crash(guest)
}

pub(in crate::crashes) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
    expect_one(guest, memo, &expected())
}

/// What has happened keeps its time by the clock that there was; what happens next has the new
/// one.
fn clock_jumps(guest: &mut Guest, turns: &mut Turns) -> Result<()> {
    guest.note("the clock jumps an hour forth and back")?;
    let mut begun = turns::start(&guest.scrape()?)?;
    for (by, way) in [(HOUR, "forth"), (-HOUR, "back")] {
        jump(by)?;
        let metrics = a_second_later(guest)?;
        turns.expect(&metrics)?;
        let start = turns::start(&metrics)?;
        expect_between(&format!("the start, an hour {way}"), start, begun, begun)?;
        let before = unix_seconds()?;
        begun = turns::start(&turns.turn_counted(guest)?)?;
        let what = format!("the start by the clock that went {way}");
        expect_between(&what, begun, before, unix_seconds()?)?;
    }
    Ok(())
}

fn another_monitor(guest: &mut Guest, turns: &mut Turns) -> Result<()> {
    guest.note("another monitor starts on the same state")?;
    let mut other = start_another()?;
    turns.turn_counted(guest)?.expect(UNRECORDED, 0.0)?;
    other.kill().context("cannot kill the other monitor")?;
    other.wait().context("cannot wait for the other monitor")?;
    expect_logged(&files::read(OTHERS_LOG)?, "another monitor")?;
    let metrics = a_second_later(guest)?;
    turns.expect(&metrics)?;
    metrics.expect(UNRECORDED, 0.0)?;
    turns.turn_counted(guest)?.expect(UNRECORDED, 0.0)
}

/// Starts a second monitor, and waits until it serves: by then it has opened the journal.
fn start_another() -> Result<Child> {
    let log = fs::File::create(OTHERS_LOG).with_context(|| format!("cannot make {OTHERS_LOG}"))?;
    let mut other = Command::new(monitor::PROGRAM)
        .args(["serve", "--web.listen-address", OTHER])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start another monitor")?;
    let listens = eventually(seconds(60), || {
        expect_logged(&files::read(OTHERS_LOG)?, "listening")
    });
    if let Err(error) = listens {
        other.kill().context("cannot kill the other monitor")?;
        return Err(error);
    }
    Ok(other)
}
