//! Surroundings that fail while a transition runs and is turned back and forth: the disk
//! of the state is full, the monitor is stopped, the clock jumps, another monitor starts on
//! the same state. Nothing is lost or counted twice, and the next scrape is right again.

use std::{
    fs::{self, File},
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Pid, Signal, kill_process},
    time::{ClockId, Timespec, clock_gettime, clock_settime},
};

use super::clock::{expect_between, unix_seconds};
use crate::{
    eventually::{eventually, seconds},
    files,
    guest::Guest,
    helpers::Hold,
    livepatch::PATCH_A,
    monitor, target,
};

/// A disk of its own, which is soon full.
const DISK: &str = "/tmp/small";
const STATE: &str = "/tmp/small/state";
const FILLER: &str = "/tmp/small/filler";
const SIZE: &str = "size=1m,mode=0755";

const START: &str = "livepatch_transition_start_timestamp_seconds{patch=lpm_patch_a}";
const REVERSALS: &str = "livepatch_transition_reversals_total";
const HOUR: i64 = 3600;

pub(super) fn surroundings_fail(guest: &mut Guest) -> Result<()> {
    fs::create_dir_all(DISK).with_context(|| format!("cannot make {DISK}"))?;
    let options = std::ffi::CString::new(SIZE).context("options")?;
    mount(
        "tmpfs",
        DISK,
        "tmpfs",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .with_context(|| format!("cannot mount {DISK}"))?;
    let result = with_small_disk(guest);
    // The monitor has files open there.
    guest.stop_monitor().and(result)?;
    unmount(DISK, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {DISK}"))
}

fn with_small_disk(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--state-dir", STATE])?;
    target::load()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    // Born in the new function, it holds up the way back.
    guest.hold(&Hold::ONE)?;
    let mut turns = 0;
    turned(guest, &mut turns)?;

    guest.note("the disk of the state is full")?;
    fill()?;
    turned(guest, &mut turns)?;
    fs::remove_file(FILLER).with_context(|| format!("cannot remove {FILLER}"))?;

    guest.note("the monitor is stopped, and goes on")?;
    let pid = i32::try_from(guest.monitor()?.pid()).context("an absurd pid")?;
    let pid = Pid::from_raw(pid).context("pid 0")?;
    kill_process(pid, Signal::STOP).context("cannot stop the monitor")?;
    turn(&mut turns)?;
    turn(&mut turns)?;
    thread::sleep(seconds(2));
    kill_process(pid, Signal::CONT).context("the monitor cannot go on")?;
    counted(guest, turns)?;

    guest.note("the clock jumps an hour forth and back")?;
    let turned_at = unix_seconds()?;
    turned(guest, &mut turns)?;
    jump(HOUR)?;
    let metrics = guest.scrape()?;
    let start = metrics.get(START)?;
    let hour = 3600.0;
    expect_between(
        "the start by the new clock",
        start,
        turned_at + hour,
        unix_seconds()?,
    )?;
    jump(-HOUR)?;
    turned(guest, &mut turns)?;

    guest.note("another monitor starts on the same state")?;
    let mut other = Command::new(monitor::PROGRAM)
        .args([
            "serve",
            "--web.listen-address",
            "127.0.0.1:9970",
            "--state-dir",
            STATE,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start another monitor")?;
    let listens = eventually(seconds(60), || {
        std::net::TcpStream::connect("127.0.0.1:9970").context("it does not listen")
    });
    turned(guest, &mut turns)?;
    other.kill().context("cannot kill the other monitor")?;
    other.wait().context("cannot wait for the other monitor")?;
    listens?;
    turned(guest, &mut turns)?;

    guest.note("killed and started again, it has what was on the disk")?;
    let start = guest.scrape()?.get(START)?;
    guest.kill_monitor()?;
    guest.start_monitor(&["--state-dir", STATE])?;
    let metrics = guest.wait_for(seconds(20), "livepatch_pending_tasks", 1.0)?;
    expect_between(
        "the start after the restart",
        metrics.get(START)?,
        start,
        start,
    )?;
    metrics.expect("livepatch_recorder_errors_total", 0.0)?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    let metrics = guest.wait_for(
        seconds(10),
        "livepatch_transition_duration_seconds_count{outcome=completed}",
        1.0,
    )?;
    metrics.expect_sum("livepatch_transition_duration_seconds_count", 1.0)?;
    metrics.expect_at_rest("lpm_patch_a")
}

/// Turns the transition back, or forth again.
fn turn(turns: &mut u32) -> Result<()> {
    let enabled = if turns.is_multiple_of(2) { "0" } else { "1" };
    files::write("/sys/kernel/livepatch/lpm_patch_a/enabled", enabled)?;
    *turns += 1;
    Ok(())
}

/// Turns it, and expects that it is counted, once, and that the journal is whole.
fn turned(guest: &mut Guest, turns: &mut u32) -> Result<()> {
    turn(turns)?;
    counted(guest, *turns)
}

fn counted(guest: &mut Guest, turns: u32) -> Result<()> {
    let metrics = guest.wait_for(seconds(20), REVERSALS, f64::from(turns))?;
    let direction = if turns.is_multiple_of(2) {
        "patch"
    } else {
        "unpatch"
    };
    let active = format!("livepatch_transition_active{{patch=lpm_patch_a,direction={direction}}}");
    metrics.expect(&active, 1.0)?;
    metrics.expect("livepatch_monitor_events_lost_total", 0.0)?;
    metrics.expect("livepatch_monitor_log_lines_lost_total", 0.0)?;
    // Space for the journal is reserved.
    metrics.expect("livepatch_recorder_errors_total", 0.0)
}

/// Fills the disk to its last byte.
fn fill() -> Result<()> {
    let mut filler = File::create(FILLER).with_context(|| format!("cannot make {FILLER}"))?;
    for size in [4096, 1] {
        let piece = vec![b'x'; size];
        while filler.write_all(&piece).is_ok() {}
    }
    let more = fs::write("/tmp/small/more", "x");
    ensure!(more.is_err(), "the disk is not full");
    Ok(())
}

fn jump(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec {
        tv_sec: now.tv_sec + seconds,
        ..now
    };
    clock_settime(ClockId::Realtime, then).context("cannot set the clock")
}
