//! The cost of finding the pending tasks: the monitor, which scans after each of the kernel's
//! attempts, about once a second, compared with two ways without BPF, a program that walks /proc
//! and a shell loop.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Table, cost::Scrapes, median_and_worst, milliseconds, ratio};
use crate::{
    eventually::seconds, files, guest::Guest, helpers::Hold, livepatch::PATCH_A, monitor,
    process::cpu_time, target,
};

const THREADS: &[u32] = &[100, 1_000, 10_000, 30_000];
/// How long the monitor's CPU time is measured: about one scan per second.
const WATCHED: Duration = seconds(30);
const HELD: u32 = 10;
const ROUNDS: usize = 5;
const SCRAPES: u32 = 10;
const SHELL: &str = "/bin/sh";

/// What an operator might type; kpatch does the same with a `cat` for each task.
const LOOP: &str = "pending=0; for file in /proc/[0-9]*/task/[0-9]*/patch_state; do \
    read -r state < \"$file\" && [ \"$state\" = 0 ] && pending=$((pending + 1)); \
    done 2> /dev/null; echo $pending";

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let mut table = Table::new(
        &format!(
            "Finding the {HELD} tasks that hold a transition. Monitor: all its CPU time for each \
             of the kernel's attempts (events, scan, stacks, reasons), over {} s. Walk and loop \
             only count: no stacks, no reasons; median of {ROUNDS}. Milliseconds",
            WATCHED.as_secs()
        ),
        &[
            "threads",
            "monitor",
            "scrape",
            "walk of /proc",
            "ratio",
            "shell loop",
            "ratio",
            "`blockers`",
        ],
    );
    files::write("/proc/sys/kernel/threads-max", "70000")?;
    files::write("/proc/sys/kernel/pid_max", "100000")?;
    files::write("/proc/sys/vm/max_map_count", "200000")?;
    for threads in THREADS {
        table.row(&row(guest, *threads)?);
        guest.clean_up()?;
        guest.note(format!("{threads} threads measured"))?;
    }
    Ok(table)
}

fn row(guest: &mut Guest, threads: u32) -> Result<Vec<String>> {
    target::load()?;
    guest.start_monitor(&[])?;
    guest.hold(&Hold {
        threads: HELD,
        idle_threads: threads - HELD,
        ..Hold::ONE
    })?;
    PATCH_A.load()?;
    guest.wait_for(seconds(120), "livepatch_pending_tasks", f64::from(HELD))?;
    let scan = scan_cost(guest)?;
    let pid = guest.monitor()?.pid();
    let scrapes = Scrapes::of_monitor(pid, SCRAPES, 0.0)?;
    let (mut walk, mut shell, mut command) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        walk.push(timed(count_in_proc)?);
        shell.push(timed(count_in_shell)?);
        command.push(timed(|| {
            let pending = monitor::blockers()?.pending;
            u32::try_from(pending).context("an absurd number of tasks")
        })?);
    }
    target::release()?;
    PATCH_A.wait_transition_done(seconds(90))?;
    let mut row = vec![
        threads.to_string(),
        format!("{scan:.1}"),
        milliseconds(scrapes.median),
    ];
    for durations in [walk, shell] {
        let (median, _) = median_and_worst(durations)?;
        row.push(milliseconds(median));
        row.push(ratio(median.as_secs_f64() * 1e3, scan));
    }
    row.push(milliseconds(median_and_worst(command)?.0));
    Ok(row)
}

/// CPU milliseconds of the monitor for each of the kernel's attempts.
pub(super) fn scan_cost(guest: &Guest) -> Result<f64> {
    let attempts = || {
        let metrics = guest.monitor()?.scrape()?;
        metrics.get("livepatch_transition_attempts_total")
    };
    let pid = guest.monitor()?.pid();
    let first = attempts()?;
    let before = cpu_time(pid)?;
    thread::sleep(WATCHED);
    let after = cpu_time(pid)?;
    Ok((after - before).as_secs_f64() * 1e3 / (attempts()? - first).max(1.0))
}

fn timed(count: impl FnOnce() -> Result<u32>) -> Result<Duration> {
    let begin = Instant::now();
    let found = count()?;
    let took = begin.elapsed();
    ensure!(found == HELD, "{found} tasks found, {HELD} are held");
    Ok(took)
}

fn count_in_proc() -> Result<u32> {
    let mut pending = 0;
    for process in entries("/proc")? {
        // A task that has exited meanwhile is not pending.
        for task in entries(&format!("/proc/{process}/task")).unwrap_or_default() {
            let path = format!("/proc/{process}/task/{task}/patch_state");
            if fs::read_to_string(path).is_ok_and(|state| state.trim() == "0") {
                pending += 1;
            }
        }
    }
    Ok(pending)
}

fn entries(folder: &str) -> Result<Vec<u32>> {
    let listing = fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))?;
    Ok(listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

fn count_in_shell() -> Result<u32> {
    let output = Command::new(SHELL)
        .args(["-c", LOOP])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {SHELL}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .with_context(|| format!("the shell loop says `{text}`"))
}
