//! What is around the monitor's process: a pipe that is its log, a group with limits, the
//! clock.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Pid,
    time::{ClockId, Timespec, clock_gettime, clock_settime},
};

use crate::{
    files,
    guest::Guest,
    helpers::{self, Confinement, Task},
};

pub(super) const HOUR: i64 = 3600;

/// A pipe for the log and a group for the limits.
pub(super) fn make() -> Result<()> {
    mknodat(CWD, helpers::LOG_PIPE, FileType::Fifo, Mode::RWXU, 0)
        .with_context(|| format!("cannot make {}", helpers::LOG_PIPE))?;
    files::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids")?;
    fs::create_dir_all(helpers::GROUP).with_context(|| format!("cannot make {}", helpers::GROUP))
}

/// Starts the monitor, and a reader of its log.
pub(super) fn start(guest: &mut Guest) -> Result<u32> {
    let reader = read_log(guest)?;
    guest.start_monitor_confined(Confinement::Surrounded, &[])?;
    Ok(reader)
}

/// Starts a reader of the log.
pub(super) fn read_log(guest: &mut Guest) -> Result<u32> {
    guest.helper(&Task::ReadLog)
}

pub(super) fn pid(guest: &Guest) -> Result<Pid> {
    let pid = i32::try_from(guest.monitor()?.pid()).context("an absurd pid")?;
    Pid::from_raw(pid).context("pid 0")
}

/// Limits the monitor's group; `max` is no limit.
pub(super) fn limit(file: &str, value: &str) -> Result<()> {
    files::write(&in_group(file), value)
}

/// Lets the monitor have no more of `what` (`pids`, `memory`) than it has.
pub(super) fn no_more(what: &str) -> Result<()> {
    let current = files::read(&in_group(&format!("{what}.current")))?;
    limit(&format!("{what}.max"), current.trim())
}

fn in_group(file: &str) -> String {
    format!("{}/{file}", helpers::GROUP)
}

/// Moves the clock.
pub(super) fn jump(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec {
        tv_sec: now.tv_sec + seconds,
        ..now
    };
    clock_settime(ClockId::Realtime, then).context("cannot set the clock")
}
