//! What the monitor costs while nothing happens, while a transition is stuck, and
//! per scrape; beside it node_exporter, where the machine has one.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Table, cpu_time, median_and_worst, milliseconds};
use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    guest::Guest,
    helpers::{Hold, Task},
    http,
    livepatch::PATCH_A,
    monitor, target,
};

pub(super) const PEER: &str = "/bin/node_exporter";
const PEER_ADDRESS: &str = "127.0.0.1:9100";
const SCRAPES: usize = 50;
/// Without a scrape: what a program does of itself.
const QUIET: Duration = seconds(60);

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let mut table = Table::new(
        &format!(
            "On a machine that forks and computes; scrapes: median of {SCRAPES}, \
             quiet: {} s without one",
            QUIET.as_secs()
        ),
        &[
            "",
            "scrape ms",
            "worst ms",
            "CPU ms per scrape",
            "quiet: CPU ms",
            "quiet: context switches",
            "resident MiB",
            "scrape bytes",
        ],
    );
    target::load()?;
    guest.helper(&Task::Busy { threads: 1 })?;
    guest.start_monitor(&[])?;
    let pid = guest.monitor()?.pid();
    let ours = |what: &str| cost(what, monitor::ADDRESS, pid);
    table.row(&ours("monitor, nothing runs")?);
    guest.note("cost with nothing running is measured")?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    table.row(&ours("monitor, transition stuck")?);
    guest.note("cost of a stuck transition is measured")?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(90))?;
    table.row(&ours("monitor, one patch loaded")?);
    guest.note("cost with a patch loaded is measured")?;
    guest.stop_monitor()?;
    if Path::new(PEER).exists() {
        let mut peer = start_peer()?;
        let row = cost("node_exporter", PEER_ADDRESS, peer.id());
        peer.kill().context("cannot kill node_exporter")?;
        peer.wait().context("cannot wait for node_exporter")?;
        table.row(&row?);
    }
    Ok(table)
}

fn cost(what: &str, address: &str, pid: u32) -> Result<Vec<String>> {
    let scrape = || Exposition::parse(&http::get(address, "/metrics")?);
    scrape()?;
    // Threads that only answered end after 10 s.
    thread::sleep(seconds(12));
    let (before, switches) = (cpu_time(pid)?, context_switches(pid)?);
    thread::sleep(QUIET);
    let between = cpu_time(pid)?;
    let switches = context_switches(pid)?.saturating_sub(switches);
    let quiet = (between - before).as_secs_f64() * 1e3;

    let mut times = Vec::new();
    let begin = Instant::now();
    for _ in 0..SCRAPES {
        let begin = Instant::now();
        scrape()?;
        times.push(begin.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    let used = (cpu_time(pid)? - between).as_secs_f64() * 1e3;
    // What it would have used in this time anyway is not the scrapes'.
    let anyway = quiet * begin.elapsed().as_secs_f64() / QUIET.as_secs_f64();
    let scrapes = f64::from(u32::try_from(SCRAPES).unwrap_or(u32::MAX));
    let each = (used - anyway).max(0.0) / scrapes;
    let end = scrape()?;
    let (median, worst) = median_and_worst(times)?;
    let memory = end.get("process_resident_memory_bytes")? / 1024.0 / 1024.0;
    Ok(vec![
        what.to_owned(),
        milliseconds(median),
        milliseconds(worst),
        format!("{each:.1}"),
        format!("{quiet:.0}"),
        switches.to_string(),
        format!("{memory:.1}"),
        end.text().len().to_string(),
    ])
}

/// Of all threads there are.
fn context_switches(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let path = task.context("a task")?.path().join("status");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let counts = text.lines().filter(|line| line.contains("ctxt_switches:"));
        sum += counts
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

/// node_exporter, answering.
pub(super) fn start_peer() -> Result<Child> {
    let child = Command::new(PEER)
        .arg(format!("--web.listen-address={PEER_ADDRESS}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {PEER}"))?;
    eventually(seconds(60), || http::get(PEER_ADDRESS, "/metrics"))?;
    Ok(child)
}
