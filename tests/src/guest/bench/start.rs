//! The time from the start of the program to its first answer, alternately with node_exporter.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Table, cost, median_and_worst, milliseconds, ratio};
use crate::{guest::Guest, monitor};

const ROUNDS: usize = 5;

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    ensure!(Path::new(cost::PEER).exists(), "there is no {}", cost::PEER);
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        guest.start_monitor(&[])?;
        ours.push(begin.elapsed());
        guest.stop_monitor()?;
        let begin = Instant::now();
        let mut peer = cost::start_peer()?;
        peers.push(begin.elapsed());
        peer.kill().context("cannot kill node_exporter")?;
        peer.wait().context("cannot wait for node_exporter")?;
    }
    let mut table = Table::new(
        &format!("From exec to the first scrape, median of {ROUNDS}, in turns. Milliseconds"),
        &["monitor", "node_exporter", "ratio"],
    );
    let (ours, peers) = (median_and_worst(ours)?.0, median_and_worst(peers)?.0);
    table.row(&[
        milliseconds(ours),
        milliseconds(peers),
        ratio(peers.as_secs_f64(), ours.as_secs_f64()),
    ]);
    Ok(table)
}

/// The size of the programs on disk.
pub(super) fn size(_guest: &mut Guest) -> Result<Table> {
    let bytes = |path: &str| {
        let metadata = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?;
        Ok::<_, anyhow::Error>(metadata.len())
    };
    let mut table = Table::new(
        "Programs on disk, in bytes; the monitor is static and has its BPF programs inside",
        &["monitor", "node_exporter"],
    );
    table.row(&[bytes(monitor::PROGRAM)?, bytes(cost::PEER)?]);
    Ok(table)
}
