//! The probes' cost for a transition: measured alternately with and without the monitor.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Table, median_and_worst, milliseconds, ratio};
use crate::{eventually::seconds, guest::Guest, livepatch::VMLINUX};

const ROUNDS: usize = 10;
/// How long to wait after the start or end of a monitor, until its effects are over.
const REST: Duration = seconds(3);
const POLL: Duration = Duration::from_millis(5);

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let (mut with, mut without) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        guest.start_monitor(&[])?;
        with.add()?;
        guest.stop_monitor()?;
        without.add()?;
    }
    let mut table = Table::new(
        &format!(
            "Enabling a livepatch of one function, median of {ROUNDS}, in turns. Milliseconds"
        ),
        &["", "with the monitor", "without", "ratio"],
    );
    for (what, with, without) in [
        ("insmod", with.load, without.load),
        ("until the transition is over", with.over, without.over),
    ] {
        let (with, without) = (median_and_worst(with)?.0, median_and_worst(without)?.0);
        table.row(&[
            what.to_owned(),
            milliseconds(with),
            milliseconds(without),
            ratio(with.as_secs_f64(), without.as_secs_f64()),
        ]);
    }
    Ok(table)
}

#[derive(Default)]
struct Times {
    load: Vec<Duration>,
    over: Vec<Duration>,
}

impl Times {
    fn add(&mut self) -> Result<()> {
        thread::sleep(REST);
        let begin = Instant::now();
        VMLINUX.load()?;
        self.load.push(begin.elapsed());
        while VMLINUX.in_transition()? {
            ensure!(begin.elapsed() < seconds(60), "no end in a minute");
            thread::sleep(POLL);
        }
        self.over.push(begin.elapsed());
        VMLINUX.remove(seconds(60))
    }
}
