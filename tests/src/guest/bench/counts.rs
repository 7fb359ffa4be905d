//! The monitor's cost in instructions, compared with node_exporter: on a machine that counts them,
//! a millisecond of CPU time is a million instructions.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_test_support::http;

use super::{Table, cost, latency, milliseconds, ratio};
use crate::{
    eventually::seconds,
    guest::Guest,
    helpers::Hold,
    livepatch::{self, PATCH_A},
    modules, monitor,
    process::{cpu_time, cpu_time_of_children, memory},
    target,
};

/// Before the measurement: caches are warm, and packages have been read once.
const WARM_UP: u32 = 3;
const SCRAPES: u32 = 20;
/// Enough for the heap to reach its final size.
const MANY: u32 = 500;
const FUNCTIONS: u32 = 1_000;
const PATCHES: u32 = 50;
/// Loading a thousand functions takes the kernel itself a while.
const PATIENCE: Duration = seconds(240);
const PEER: &str = "127.0.0.1:9100";

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    ensure!(Path::new(cost::PEER).exists(), "there is no {}", cost::PEER);
    let mut table = Table::new(
        &format!(
            "Millions of instructions, kernel included; scrapes: mean of {SCRAPES}. The peak is \
             that of the start, resident memory that after {MANY} scrapes"
        ),
        &["what", "monitor", "node_exporter", "ratio"],
    );
    target::load()?;
    guest.start_monitor(&[])?;
    let pid = guest.monitor()?.pid();
    let start = cpu_time(pid)?;
    let peak = memory(pid, "VmHWM")?;
    let mut peer = cost::start_peer()?;
    let peers_start = cpu_time(peer.id())?;
    compared(&mut table, "start", start, peers_start);
    let ours = scrape(monitor::ADDRESS, pid)?;
    let peers = scrape(PEER, peer.id())?;
    compared(&mut table, "scrape", ours, peers);
    peer.kill().context("cannot kill node_exporter")?;
    peer.wait().context("cannot wait for node_exporter")?;
    for _ in 0..MANY {
        http::body(monitor::ADDRESS, "/metrics")?;
    }
    mebibytes(&mut table, "peak MiB", peak);
    mebibytes(&mut table, "resident MiB", memory(pid, "VmRSS")?);
    guest.note("start, scrape and memory are measured")?;

    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    let before = cpu_time_of_children()?;
    let found = monitor::blockers()?;
    let took = cpu_time_of_children()? - before;
    ensure!(found.pending == 1, "{found:?}");
    alone(&mut table, "blockers", took);
    target::release()?;
    PATCH_A.wait_transition_done(seconds(90))?;
    alone(
        &mut table,
        "scrape, patched",
        scrape(monitor::ADDRESS, pid)?,
    );
    guest.note("a patched host is measured")?;
    PATCH_A.remove(seconds(60))?;
    for (what, took) in latency::work(guest)? {
        alone(&mut table, what, took);
    }
    guest.note("events that are shown are measured")?;
    guest.clean_up()?;

    guest.start_monitor(&[])?;
    let pid = guest.monitor()?.pid();
    target::load()?;
    modules::load("lpm_many")?;
    modules::load_with("/modules/lpm_functions.ko", &format!("count={FUNCTIONS}"))?;
    livepatch::wait_transition_done("lpm_functions", PATIENCE)?;
    let functions = scrape(monitor::ADDRESS, pid)?;
    alone(&mut table, "scrape, 1,000 functions", functions);
    guest.note(format!("{FUNCTIONS} functions are measured"))?;
    guest.clean_up()?;

    guest.start_monitor(&[])?;
    let pid = guest.monitor()?.pid();
    for number in 0..PATCHES {
        let name = format!("lpm_stacked_{number:03}");
        modules::load_renamed("lpm_stacked_000", &name)?;
        livepatch::wait_transition_done(&name, PATIENCE)?;
    }
    alone(
        &mut table,
        "scrape, 50 patches",
        scrape(monitor::ADDRESS, pid)?,
    );
    let bytes = fs::metadata(monitor::PROGRAM).context("cannot look at the program")?;
    table.row(&["program, bytes", &bytes.len().to_string(), "", ""]);
    Ok(table)
}

/// What an exporter uses for a scrape.
fn scrape(address: &str, pid: u32) -> Result<Duration> {
    let scrapes = |count| -> Result<()> {
        for _ in 0..count {
            http::body(address, "/metrics")?;
        }
        Ok(())
    };
    scrapes(WARM_UP)?;
    let before = cpu_time(pid)?;
    scrapes(SCRAPES)?;
    Ok((cpu_time(pid)? - before) / SCRAPES)
}

fn compared(table: &mut Table, what: &str, ours: Duration, peers: Duration) {
    let times = ratio(peers.as_secs_f64(), ours.as_secs_f64());
    table.row(&[what.to_owned(), exact(ours), exact(peers), times]);
}

fn alone(table: &mut Table, what: &str, ours: Duration) {
    table.row(&[what.to_owned(), exact(ours), String::new(), String::new()]);
}

/// Small counts with two more decimal places than [`milliseconds`] has.
fn exact(time: Duration) -> String {
    match time < Duration::from_millis(100) {
        true => format!("{:.3}", time.as_secs_f64() * 1e3),
        false => milliseconds(time),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "kibibytes of a process are far below 2^52"
)]
fn mebibytes(table: &mut Table, what: &str, kibibytes: u64) {
    let value = format!("{:.2}", kibibytes as f64 / 1024.0);
    table.row(&[what, &value, "", ""]);
}
