//! What the monitor costs while nothing happens, while a transition is stuck, and
//! per scrape; beside it node_exporter, where the machine has one.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Table, median_and_worst, milliseconds};
use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    guest::Guest,
    helpers::{Hold, Task},
    http,
    livepatch::PATCH_A,
    monitor,
    process::{context_switches, cpu_time},
    target,
};

pub(super) const PEER: &str = "/bin/node_exporter";
pub(super) const PEER_ADDRESS: &str = "127.0.0.1:9100";
const SCRAPES: u32 = 50;
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
    Exposition::parse(&http::get(address, "/metrics")?)?;
    // Threads that only answered end after 10 s.
    thread::sleep(seconds(12));
    let (before, switches) = (cpu_time(pid)?, context_switches(pid)?);
    thread::sleep(QUIET);
    let quiet = (cpu_time(pid)? - before).as_secs_f64() * 1e3;
    let switches = context_switches(pid)?.saturating_sub(switches);

    let scrapes = Scrapes::measure(address, pid, SCRAPES, quiet / QUIET.as_secs_f64())?;
    Ok(vec![
        what.to_owned(),
        milliseconds(scrapes.median),
        milliseconds(scrapes.worst),
        format!("{:.1}", scrapes.cpu_milliseconds),
        format!("{quiet:.0}"),
        switches.to_string(),
        format!("{:.1}", scrapes.resident_mib),
        scrapes.bytes.to_string(),
    ])
}

/// What some scrapes came to.
pub(super) struct Scrapes {
    /// From the question to the end of the answer.
    pub(super) median: Duration,
    /// The slowest.
    pub(super) worst: Duration,
    /// CPU time of each.
    pub(super) cpu_milliseconds: f64,
    /// Resident memory at the end.
    pub(super) resident_mib: f64,
    /// Of the last answer.
    pub(super) bytes: usize,
}

impl Scrapes {
    /// Scrapes so many times. What the process would have used in this time anyway,
    /// in CPU milliseconds a second, is not the scrapes'.
    pub(super) fn measure(address: &str, pid: u32, count: u32, anyway: f64) -> Result<Self> {
        let scrape = || Exposition::parse(&http::get(address, "/metrics")?);
        let mut times = Vec::new();
        let before = cpu_time(pid)?;
        let begin = Instant::now();
        for _ in 0..count {
            let begin = Instant::now();
            scrape()?;
            times.push(begin.elapsed());
            thread::sleep(Duration::from_millis(100));
        }
        let used = (cpu_time(pid)? - before).as_secs_f64() * 1e3;
        let used = used - anyway * begin.elapsed().as_secs_f64();
        let end = scrape()?;
        let (median, worst) = median_and_worst(times)?;
        Ok(Self {
            median,
            worst,
            cpu_milliseconds: used.max(0.0) / f64::from(count),
            resident_mib: end.get("process_resident_memory_bytes")? / 1024.0 / 1024.0,
            bytes: end.text().len(),
        })
    }
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
