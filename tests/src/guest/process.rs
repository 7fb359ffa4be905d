//! What the kernel shows about a running process.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::files;

/// CPU time that a process has used, to the nanosecond, including threads that have ended.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let pid = i32::try_from(pid).context("an absurd pid")?;
    let mut clock = 0;
    // SAFETY: writes the number of a clock to an integer of its type.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(error == 0, "process {pid} has no CPU clock: error {error}");
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes a time to a structure of its type.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(result == 0, "cannot read the CPU clock of process {pid}");
    Ok(Duration::new(
        time.tv_sec.try_into().context("an absurd time")?,
        time.tv_nsec.try_into().context("an absurd time")?,
    ))
}

/// CPU time of children that have ended and were waited for.
pub(crate) fn cpu_time_of_children() -> Result<Duration> {
    // SAFETY: the structure is plain numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes to a structure of its type.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    ensure!(result == 0, "cannot read what the children have used");
    let sum = |time: libc::timeval| -> Result<Duration> {
        let seconds = time.tv_sec.try_into().context("an absurd time")?;
        let micros: u64 = time.tv_usec.try_into().context("an absurd time")?;
        Ok(Duration::from_secs(seconds) + Duration::from_micros(micros))
    };
    Ok(sum(usage.ru_utime)? + sum(usage.ru_stime)?)
}

/// A line of /proc/PID/status in KiB: `VmHWM`, `VmRSS`.
pub(crate) fn memory(pid: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = files::read(&path)?;
    let value = text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        value.split_whitespace().next()?.parse().ok()
    });
    value.with_context(|| format!("no {name} in {path}"))
}

/// Context switches of all current threads.
pub(crate) fn context_switches(pid: u32) -> Result<u64> {
    Ok(context_switches_by_thread(pid)?.values().sum())
}

/// Context switches of each thread, by its id and name.
pub(crate) fn context_switches_by_thread(pid: u32) -> Result<BTreeMap<String, u64>> {
    let folder = format!("/proc/{pid}/task");
    let mut switches = BTreeMap::new();
    for task in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let task = task.context("a task")?;
        let text = files::read(&task.path().join("status").to_string_lossy())?;
        let counts = text.lines().filter(|line| line.contains("ctxt_switches:"));
        let sum = counts
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        let name = text.lines().next().unwrap_or_default();
        let name = name.trim_start_matches("Name:").trim();
        let id = task.file_name().to_string_lossy().into_owned();
        switches.insert(format!("{id} {name}"), sum);
    }
    Ok(switches)
}

/// Fails unless every thread sleeps interruptibly: none runs, and none waits for a disk
/// (proc_pid_stat(5)).
pub(crate) fn expect_idle(pid: u32) -> Result<()> {
    let folder = format!("/proc/{pid}/task");
    for task in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let stat = task.context("a task")?.path().join("stat");
        let text = files::read(&stat.to_string_lossy())?;
        let state = text.rsplit_once(") ").map(|(_, rest)| rest);
        ensure!(
            state.is_some_and(|state| state.starts_with('S')),
            "a thread is at work: {text}"
        );
    }
    Ok(())
}

/// Resources that a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Resident memory in KiB, counted page by page.
    pub(crate) resident: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Holdings {
    /// Current usage of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = files::read(&path)?;
        let resident = text.lines().find_map(|line| {
            let value = line.strip_prefix("Rss:")?;
            value.split_whitespace().next()?.parse().ok()
        });
        Ok(Self {
            resident: resident.with_context(|| format!("no Rss in {path}: {text}"))?,
            descriptors: entries(&format!("/proc/{pid}/fd"))?,
            threads: entries(&format!("/proc/{pid}/task"))?,
        })
    }
}

fn entries(folder: &str) -> Result<usize> {
    Ok(fs::read_dir(folder)
        .with_context(|| format!("cannot read {folder}"))?
        .count())
}

/// Bytes of all files in a folder and those below it.
pub(crate) fn bytes_in(folder: &str) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))? {
        let path = entry.context("an entry")?.path();
        // A file that is being replaced may have disappeared.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        sum += match metadata.is_dir() {
            true => bytes_in(&path.to_string_lossy())?,
            false => metadata.len(),
        };
    }
    Ok(sum)
}
