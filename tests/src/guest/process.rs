//! What the kernel shows about a running process.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::files;

/// What a process has used of the CPUs, threads that have ended included, in
/// steps of 10 ms.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = files::read(&path)?;
    // utime and stime, the 12th and 13th field after the name.
    let ticks = text.rsplit_once(')').and_then(|(_, rest)| {
        let mut words = rest.split_whitespace().skip(11);
        let user: u64 = words.next()?.parse().ok()?;
        let system: u64 = words.next()?.parse().ok()?;
        Some(user + system)
    });
    let ticks = ticks.with_context(|| format!("{path} holds `{text}`"))?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Context switches of all threads there are.
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

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Resident memory in KiB, counted page by page.
    pub(crate) resident: u64,
    /// File descriptors.
    pub(crate) descriptors: usize,
    /// Threads.
    pub(crate) threads: usize,
}

impl Holdings {
    /// What it holds now.
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
        // A file that is being replaced may be gone by now.
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
