//! `cargo xtask fleet`: a fleet of simulated hosts in front of a real Prometheus
//! with the shipped rules.

pub(crate) mod ansible;
mod cost;
mod gate;
mod hosts;
pub(crate) mod layouts;
mod measure;
mod prng;
mod recorded;
pub(crate) mod replay;
mod report;
mod run;
mod sample;
mod scenario;
pub(crate) mod series;
mod server;
mod simulation;
pub(crate) mod smoke;
mod trim;

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Result, bail};

use self::{measure::Setup, replay::Day, scenario::Plan, simulation::Fleet};
use crate::host::{paths, process, prometheus_tools};

/// The day that is replayed.
pub(crate) const DAY: Day = Day {
    hosts: 1000,
    hours: 24,
    seed: 1,
};

/// The scrape interval in manual mode, in seconds.
const MANUAL_INTERVAL: u32 = 5;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Sizes of the fleet, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,14000")]
    hosts: Vec<usize>,
    /// How often a host is scraped [default: 15 up to 1,000 hosts, 30 up to 5,000, else 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=120))]
    scrape_interval: Option<u32>,
    /// Fraction of the hosts whose transition gets stuck
    #[arg(long, default_value_t = 0.01)]
    stuck_ratio: f64,
    /// The same number gives the same rollout
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The patch that is rolled out
    #[arg(long, default_value = "livepatch_2026_11_fix")]
    patch: String,
    /// Drop series at the scrape that neither rules nor the gate use
    #[arg(long)]
    trim: bool,
    /// The monitor whose gate is run [default: it is built]
    #[arg(long, value_name = "FILE")]
    monitor: Option<PathBuf>,
    /// The short form, as `cargo xtask test` runs it
    #[arg(long, conflicts_with = "manual")]
    smoke: bool,
    /// The layouts of several servers, each with its real engines (ten minutes)
    #[arg(long, conflicts_with_all = ["manual", "smoke"])]
    layouts: bool,
    /// A day of 1,000 hosts on which scrapes get lost, with and without crashes, replayed: the
    /// pages are counted
    #[arg(long, conflicts_with_all = ["manual", "smoke", "layouts"])]
    replay: bool,
    /// How long the day is that is replayed; the whole rollout happens in it
    #[arg(long, default_value_t = DAY.hours, requires = "replay")]
    hours: usize,
    /// No scenario and no measurement: hosts that are patched, crashed and rebooted by HTTP
    #[arg(long)]
    manual: bool,
    /// The port of the hosts in manual mode [default: one that is free]
    #[arg(long, requires = "manual", default_value_t = 0)]
    port: u16,
}

/// Runs the command; `false` if an aim is not met.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if !(0.0..=1.0).contains(&arguments.stuck_ratio) {
        bail!(
            "--stuck-ratio {} is not between 0 and 1",
            arguments.stuck_ratio
        );
    }
    prometheus_tools::prepare()?;
    if arguments.smoke {
        return smoke::run(&monitor(arguments)?).map(|()| true);
    }
    if arguments.replay {
        let day = Day {
            hours: arguments.hours,
            seed: arguments.seed,
            ..DAY
        };
        return replay::run(day).map(|()| true);
    }
    if arguments.layouts {
        return layouts::run(&monitor(arguments)?).map(|()| true);
    }
    if arguments.manual {
        return by_hand(arguments).map(|()| true);
    }
    if let Some(size) = arguments.hosts.iter().find(|size| **size < Plan::MIN_HOSTS) {
        bail!(
            "--hosts {size}: the scenario needs {} hosts",
            Plan::MIN_HOSTS
        );
    }
    let setup = Setup {
        patch: arguments.patch.clone(),
        seed: arguments.seed,
        stuck_ratio: arguments.stuck_ratio,
        trim: arguments.trim,
        gate: monitor(arguments)?,
        folder: paths::target()?.join("fleet"),
    };
    measure::all(&setup, &arguments.hosts, arguments.scrape_interval)
}

fn monitor(arguments: &Arguments) -> Result<PathBuf> {
    match &arguments.monitor {
        Some(program) => Ok(program.clone()),
        None => process::step("build the monitor, for its gate", gate::build),
    }
}

fn by_hand(arguments: &Arguments) -> Result<()> {
    let [hosts] = arguments.hosts[..] else {
        bail!("--manual needs one size, as in --hosts 20");
    };
    let fleet = Fleet::start_on(arguments.port, hosts, &arguments.patch)?;
    let interval = arguments.scrape_interval.unwrap_or(MANUAL_INTERVAL);
    let prometheus = fleet.prometheus(&paths::target()?.join("fleet/manual"), interval)?;
    println!(
        "{hosts} hosts without the patch {}: {url}\nPrometheus: {}\n\n\
         curl -X POST {url}/host/host-00001/patch\n\
         curl {url}\n\n\
         Ctrl-C ends it.",
        arguments.patch,
        prometheus.url(),
        url = fleet.url(),
    );
    loop {
        thread::sleep(Duration::from_secs(3_600));
    }
}
