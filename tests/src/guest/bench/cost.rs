//! What the monitor costs while nothing happens, while a transition is stuck, and
//! per scrape; beside it node_exporter, where the machine has one.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{QUIET, Table, cpu_time, median_and_worst, milliseconds};
use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    guest::Guest,
    helpers::{Hold, Task},
    http,
    livepatch::PATCH_A,
    monitor, target,
};

const PEER: &str = "/bin/node_exporter";
const PEER_ADDRESS: &str = "127.0.0.1:9100";
const SCRAPES: usize = 20;

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let mut table = Table::new(
        &format!(
            "Cost on a machine that forks and computes; scrapes: median of {SCRAPES}, \
             CPU: without scrapes over {} s",
            QUIET.as_secs()
        ),
        &[
            "",
            "scrape ms",
            "worst ms",
            "CPU ms per scrape",
            "CPU ms per s",
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
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    table.row(&ours("monitor, transition stuck")?);
    target::release()?;
    PATCH_A.wait_transition_done(seconds(90))?;
    table.row(&ours("monitor, one patch loaded")?);
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
    let before = cpu_time(pid)?;
    thread::sleep(QUIET);
    let between = cpu_time(pid)?;
    let quiet = (between - before).as_secs_f64() * 1e3 / QUIET.as_secs_f64();

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
    let anyway = quiet * begin.elapsed().as_secs_f64();
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
        format!("{quiet:.2}"),
        format!("{memory:.1}"),
        end.text().len().to_string(),
    ])
}

fn start_peer() -> Result<Child> {
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
