//! The kernel's log, record by record (Documentation/ABI/testing/dev-kmsg).

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::{
    io::Errno,
    time::{ClockId, clock_gettime},
};

const LOG: &str = "/dev/kmsg";

/// `O_NONBLOCK`: the end of the log is an error instead of a wait.
const NON_BLOCKING: i32 = 0o4000;

/// A record with its prefix and dictionary (`PRINTK_MESSAGE_MAX`,
/// kernel/printk/internal.h; half of it before 6.4).
const RECORD: usize = 16 << 10;

/// How many lines that are still in the log match.
pub(crate) fn count(is_one: impl Fn(&str) -> bool) -> Result<u32> {
    let mut log = open()?;
    let mut count = 0;
    while let Some(record) = next(&mut log)? {
        count += u32::from(text(&record).is_some_and(&is_one));
    }
    Ok(count)
}

/// The whole log as dmesg(1) prints it.
pub(crate) fn as_dmesg() -> Result<String> {
    let mut log = open()?;
    let mut text = String::new();
    while let Some(record) = next(&mut log)? {
        text.push_str(&dmesg_line(&record).unwrap_or_default());
    }
    Ok(text)
}

/// The minimum and maximum by which the log's clock is ahead of `CLOCK_MONOTONIC`, in seconds: it
/// is another clock (local_clock(), kernel/printk/printk.c), which started at another moment.
pub(crate) fn clock_ahead() -> Result<(f64, f64)> {
    const LINE: &str = "the clock of the log is asked for";
    let mut log = open()?;
    log.seek(SeekFrom::End(0)).context("cannot go to its end")?;
    let before = monotonic()?;
    // An incomplete line is not shown before the next one (vprintk_store, kernel/printk/printk.c).
    log.write_all(format!("{LINE}\n").as_bytes())
        .with_context(|| format!("cannot write to {LOG}"))?;
    let after = monotonic()?;
    while let Some(record) = next(&mut log)? {
        if let Some(stamp) = stamp(&record, LINE) {
            let stamp = stamp.as_secs_f64();
            return Ok((stamp - after.as_secs_f64(), stamp - before.as_secs_f64()));
        }
    }
    anyhow::bail!("{LOG} does not have the line that was written to it")
}

fn open() -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(NON_BLOCKING)
        .open(LOG)
        .with_context(|| format!("cannot open {LOG}"))
}

/// The next record; `None` at the end.
fn next(log: &mut File) -> Result<Option<String>> {
    let mut buffer = vec![0; RECORD];
    loop {
        match log.read(&mut buffer) {
            Ok(length) => {
                let record = buffer.get(..length).unwrap_or_default();
                return Ok(Some(String::from_utf8_lossy(record).into_owned()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // Records were overwritten; the oldest remaining one comes next.
            Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {LOG}")),
        }
    }
}

fn monotonic() -> Result<Duration> {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).context("the clock is negative")
}

fn text(record: &str) -> Option<&str> {
    record.split_once(';')?.1.lines().next()
}

/// `[   10.894377] text`.
fn dmesg_line(record: &str) -> Option<String> {
    let micros: u64 = record.split([',', ';']).nth(2)?.parse().ok()?;
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    Some(format!("[{seconds:5}.{micros:06}] {}\n", text(record)?))
}

/// The time of a record of this text.
fn stamp(record: &str, line: &str) -> Option<Duration> {
    (text(record)? == line).then_some(())?;
    let micros = record.split([',', ';']).nth(2)?.parse().ok()?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_time() {
        let record = "12,300,1500000,-;abc\n SUBSYSTEM=x\n";
        assert_eq!(stamp(record, "abc"), Some(Duration::from_millis(1500)));
        assert_eq!(stamp(record, "ab"), None);
        assert_eq!(stamp("12,300,x,-;abc\n", "abc"), None);
        let line = dmesg_line(record);
        assert_eq!(line.as_deref(), Some("[    1.500000] abc\n"));
    }
}
