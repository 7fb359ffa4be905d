//! The cost of the monitor while nothing happens, while a transition is stuck, and per scrape,
//! compared with node_exporter if the machine has one.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use livepatch_monitor_test_support::http;

use super::{Table, median_and_worst, milliseconds};
use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    guest::Guest,
    helpers::{Hold, Task},
    livepatch::PATCH_A,
    monitor,
    process::{context_switches, cpu_time},
    target,
};

pub(super) const PEER: &str = "/bin/node_exporter";
const PEER_ADDRESS: &str = "127.0.0.1:9100";
const SCRAPES: u32 = 50;
/// How long a program is measured without scrapes.
const QUIET: Duration = seconds(60);

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let mut table = Table::new(
        &format!(
            "On a machine that forks and computes; scrapes: median of {SCRAPES}, the first two \
             in turns; quiet: {} s without one",
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
    let ours = (monitor::ADDRESS, guest.monitor()?.pid());
    if Path::new(PEER).exists() {
        let mut peer = start_peer()?;
        let rows = costs(&[
            ("monitor, nothing runs", ours),
            ("node_exporter", (PEER_ADDRESS, peer.id())),
        ]);
        peer.kill().context("cannot kill node_exporter")?;
        peer.wait().context("cannot wait for node_exporter")?;
        for row in rows? {
            table.row(&row);
        }
    } else {
        table.row(&only(costs(&[("monitor, nothing runs", ours)])?)?);
    }
    guest.note("cost with nothing running is measured")?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    table.row(&only(costs(&[("monitor, transition stuck", ours)])?)?);
    guest.note("cost of a stuck transition is measured")?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(90))?;
    table.row(&only(costs(&[("monitor, one patch loaded", ours)])?)?);
    guest.note("cost with a patch loaded is measured")?;
    guest.stop_monitor()?;
    Ok(table)
}

/// An exporter: its address and its process.
type Exporter = (&'static str, u32);

fn only<T>(values: Vec<T>) -> Result<T> {
    values.into_iter().next().context("nothing was measured")
}

/// The rows of the exporters: measured at the same time without scrapes, then scraped alternately.
fn costs(exporters: &[(&str, Exporter)]) -> Result<Vec<Vec<String>>> {
    let of_each: Vec<Exporter> = exporters.iter().map(|(_, exporter)| *exporter).collect();
    for (address, _) in &of_each {
        Exposition::parse(&http::body(address, "/metrics")?)?;
    }
    // Threads that answered scrapes end after 10 s without work.
    thread::sleep(seconds(12));
    let used = |(_, pid): &Exporter| Ok((cpu_time(*pid)?, context_switches(*pid)?));
    let before = of_each.iter().map(used).collect::<Result<Vec<_>>>()?;
    thread::sleep(QUIET);
    let mut quiet = Vec::new();
    for (exporter, (cpu, switches)) in of_each.iter().zip(before) {
        let (cpu_now, switches_now) = used(exporter)?;
        let cpu = (cpu_now - cpu).as_secs_f64() * 1e3;
        quiet.push((cpu, switches_now.saturating_sub(switches)));
    }
    let anyway: Vec<f64> = quiet
        .iter()
        .map(|(cpu, _)| cpu / QUIET.as_secs_f64())
        .collect();
    let scrapes = Scrapes::in_turns(&of_each, SCRAPES, &anyway)?;
    Ok(exporters
        .iter()
        .zip(quiet)
        .zip(scrapes)
        .map(|(((what, _), (cpu, switches)), scrapes)| {
            vec![
                (*what).to_owned(),
                milliseconds(scrapes.median),
                milliseconds(scrapes.worst),
                format!("{:.1}", scrapes.cpu_milliseconds),
                format!("{cpu:.0}"),
                switches.to_string(),
                format!("{:.1}", scrapes.resident_mib),
                scrapes.bytes.to_string(),
            ]
        })
        .collect())
}

/// The result of a series of scrapes.
pub(super) struct Scrapes {
    /// From the request to the end of the response.
    pub(super) median: Duration,
    pub(super) worst: Duration,
    /// CPU time of one scrape.
    pub(super) cpu_milliseconds: f64,
    /// Resident memory at the end.
    pub(super) resident_mib: f64,
    /// The size of the last response.
    pub(super) bytes: usize,
}

impl Scrapes {
    /// Scrapes the monitor `count` times. `anyway` is what it would have used without scrapes, in
    /// CPU milliseconds per second, which is subtracted.
    pub(super) fn of_monitor(pid: u32, count: u32, anyway: f64) -> Result<Self> {
        only(Self::in_turns(
            &[(monitor::ADDRESS, pid)],
            count,
            &[anyway],
        )?)
    }

    /// The same for several exporters, scraped alternately, so that the machine is equally busy for
    /// all of them.
    fn in_turns(exporters: &[Exporter], count: u32, anyway: &[f64]) -> Result<Vec<Self>> {
        let scrape = |address| Exposition::parse(&http::body(address, "/metrics")?);
        let used = |(_, pid): &Exporter| cpu_time(*pid);
        let mut times = vec![Vec::new(); exporters.len()];
        let before = exporters.iter().map(used).collect::<Result<Vec<_>>>()?;
        let begin = Instant::now();
        for _ in 0..count {
            for ((address, _), times) in exporters.iter().zip(&mut times) {
                let begin = Instant::now();
                scrape(address)?;
                times.push(begin.elapsed());
                thread::sleep(Duration::from_millis(100));
            }
        }
        let elapsed = begin.elapsed().as_secs_f64();
        let mut results = Vec::new();
        for (((exporter, before), times), anyway) in
            exporters.iter().zip(before).zip(times).zip(anyway)
        {
            let used = (used(exporter)? - before).as_secs_f64() * 1e3 - anyway * elapsed;
            let end = scrape(exporter.0)?;
            let (median, worst) = median_and_worst(times)?;
            results.push(Self {
                median,
                worst,
                cpu_milliseconds: used.max(0.0) / f64::from(count),
                resident_mib: end.get("process_resident_memory_bytes")? / 1024.0 / 1024.0,
                bytes: end.text().len(),
            });
        }
        Ok(results)
    }
}

pub(super) fn start_peer() -> Result<Child> {
    let child = Command::new(PEER)
        .arg(format!("--web.listen-address={PEER_ADDRESS}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {PEER}"))?;
    eventually(seconds(60), || Ok(http::body(PEER_ADDRESS, "/metrics")?))?;
    Ok(child)
}
