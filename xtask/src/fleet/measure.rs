//! Measures fleets of several sizes, one after the other, as long as there is enough memory.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{
    cost::{self, RESERVE, gibibytes},
    gate::Gate,
    report::{Figures, Report},
    run::Run,
    scenario::Plan,
    simulation::{Fleet, start_prometheus},
    trim,
};
use crate::host::process;

/// An upper bound for the memory of a series in Prometheus, in bytes: a size that would exceed the
/// memory is not tried.
const BYTES_PER_SERIES: f64 = 3_300.0;

/// The part of a host's series that is left with `--trim`.
const TRIMMED: f64 = 0.5;

/// The settings for all sizes.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// The patch that is rolled out.
    pub(super) patch: String,
    /// The seed of the random numbers.
    pub(super) seed: u64,
    /// The fraction of hosts whose transition gets stuck.
    pub(super) stuck_ratio: f64,
    /// Whether series that no rule and no gate query uses are dropped.
    pub(super) trim: bool,
    /// The monitor, whose gate is run.
    pub(super) gate: PathBuf,
    /// Where Prometheus's data go.
    pub(super) folder: PathBuf,
}

/// Measures every size in `sizes`; `false` if an aim is not met or a size could not be measured.
/// `scrape_interval` is in seconds; without it each size has its own.
pub(super) fn all(setup: &Setup, sizes: &[usize], scrape_interval: Option<u32>) -> Result<bool> {
    let folder = &setup.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut report = Report::default();
    for hosts in sizes {
        let interval = scrape_interval.unwrap_or_else(|| interval(*hosts));
        let what = format!("{hosts} hosts, each scraped every {interval} s");
        match process::step(&what, || one(setup, *hosts, interval)) {
            Ok(figures) => report.sizes.push(figures),
            Err(error) => {
                println!("    {error:#}");
                report.not_measured.insert(*hosts, format!("{error:#}"));
            }
        }
        // Written now, so that it is kept whatever happens at the next size.
        report.write(&folder.join(if setup.trim {
            "report-trimmed.json"
        } else {
            "report.json"
        }))?;
    }
    println!("\n{}", report.table());
    Ok(report.holds())
}

/// The scrape interval, in seconds, that two cores can handle.
fn interval(hosts: usize) -> u32 {
    match hosts {
        0..=1_000 => 15,
        1_001..=5_000 => 30,
        _ => 60,
    }
}

fn one(setup: &Setup, hosts: usize, interval: u32) -> Result<Figures> {
    let scenario = Plan {
        hosts,
        seed: setup.seed,
        interval: f64::from(interval),
        stuck_ratio: setup.stuck_ratio,
    }
    .scenario();
    let fleet = Fleet::with_timelines(
        0,
        scenario.timelines.clone(),
        scenario.waves.clone(),
        &setup.patch,
    )?;
    refuse_what_does_not_fit(hosts, fleet.hosts.series_of_a_host(), setup.trim)?;
    let mut scrape = fleet.scrape_config(&setup.folder, interval)?;
    if setup.trim {
        scrape.push_str(&trim::relabelling()?);
    }
    let prometheus = start_prometheus(&setup.folder, interval, scrape)?;
    let gate = Gate::new(&setup.gate, prometheus.url(), &setup.patch);
    let figures = Run::whole(&fleet, &scenario, &prometheus, gate, interval, &setup.patch);
    drop(prometheus);
    // The data are large and no longer needed, whatever the result.
    let data = setup.folder.join("prometheus/data");
    fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    figures
}

fn refuse_what_does_not_fit(hosts: usize, series: usize, trim: bool) -> Result<()> {
    let float = |number: usize| u32::try_from(number).map_or(f64::INFINITY, f64::from);
    let kept = if trim { TRIMMED } else { 1.0 };
    let needed = float(hosts) * float(series) * kept * BYTES_PER_SERIES;
    let available = cost::available_memory()? - RESERVE;
    ensure!(
        needed <= available,
        "{hosts} hosts with {series} series may take {:.1} GiB of memory, and {:.1} GiB can be \
         had; ask for fewer hosts, or give --trim",
        gibibytes(needed),
        gibibytes(available),
    );
    Ok(())
}
