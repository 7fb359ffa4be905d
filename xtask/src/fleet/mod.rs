//! `cargo xtask fleet`: a fleet of simulated hosts in front of a real Prometheus
//! with the shipped rules.

mod brief;
mod chance;
mod cost;
mod gate;
mod hosts;
mod measure;
mod recorded;
mod report;
mod run;
mod sample;
mod server;
mod story;
mod trim;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::{brief::brief, hosts::instance};
use self::{
    hosts::Hosts,
    recorded::Recordings,
    server::Server,
    story::{Event, Life, Plan},
};
use crate::{
    monitoring::prometheus::{Config, Prometheus},
    paths, process, tools,
};

/// The job of our rules and examples.
const JOB: &str = "livepatch-monitor";

/// Rules are evaluated at least this often, in seconds.
const EVALUATION: u32 = 15;

/// What a Prometheus that is looked at by hand scrapes in, in seconds.
const MANUAL_INTERVAL: u32 = 5;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Sizes of the fleet, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,14000")]
    hosts: Vec<usize>,
    /// How often a host is scraped [default: 15 up to 1,000 hosts, 30 up to 5,000, else 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=120))]
    scrape_interval: Option<u32>,
    /// Part of the hosts whose transition gets stuck
    #[arg(long, default_value_t = 0.01)]
    stuck_ratio: f64,
    /// The same number gives the same rollout
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The patch that is rolled out
    #[arg(long, default_value = "livepatch_2026_11_fix")]
    patch: String,
    /// Drop at the scrape what neither rules nor gate ask for
    #[arg(long)]
    trim: bool,
    /// The monitor whose gate is asked [default: it is built]
    #[arg(long, value_name = "FILE")]
    monitor: Option<PathBuf>,
    /// The short form, as `cargo xtask test` runs it
    #[arg(long, conflicts_with = "manual")]
    brief: bool,
    /// No story and no measurement: hosts that are patched, crashed and rebooted by HTTP
    #[arg(long)]
    manual: bool,
    /// The port of the hosts in manual mode [default: one that is free]
    #[arg(long, requires = "manual", default_value_t = 0)]
    port: u16,
}

/// Runs what is asked for; `false` when an aim is not met.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if !(0.0..=1.0).contains(&arguments.stuck_ratio) {
        bail!(
            "--stuck-ratio {} is not between 0 and 1",
            arguments.stuck_ratio
        );
    }
    tools::prepare()?;
    if arguments.brief {
        return brief(&monitor(arguments)?).map(|()| true);
    }
    if arguments.manual {
        return by_hand(arguments).map(|()| true);
    }
    if let Some(size) = arguments.hosts.iter().find(|size| **size < Plan::MIN_HOSTS) {
        bail!("--hosts {size}: the story needs {} hosts", Plan::MIN_HOSTS);
    }
    measure::all(arguments)
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

/// Simulated hosts on a port of 127.0.0.1, which end when dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    hosts: Arc<Hosts>,
    server: Server,
    waves: Vec<usize>,
}

impl Fleet {
    /// Hosts without the patch, to which things happen as they are told:
    /// [`Self::patch`], or `POST /host/NAME/patch`.
    pub(crate) fn start(hosts: usize, patch: &str) -> Result<Self> {
        Self::start_on(0, hosts, patch)
    }

    fn start_on(port: u16, hosts: usize, patch: &str) -> Result<Self> {
        let fleet = Self::with_lives(port, vec![Life::default(); hosts], vec![0; hosts], patch)?;
        fleet.hosts.begin()?;
        Ok(fleet)
    }

    /// Hosts with a story, which has not begun.
    fn with_lives(port: u16, lives: Vec<Life>, waves: Vec<usize>, patch: &str) -> Result<Self> {
        let recordings = Recordings::load(&paths::root()?.join("tests/fleet"), patch)?;
        let hosts = Arc::new(Hosts::new(recordings, lives)?);
        let server = Server::start(hosts.clone(), port)?;
        Ok(Self {
            hosts,
            server,
            waves,
        })
    }

    /// Where the hosts are, without a slash behind it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }

    /// Loads the patch on a host, counted from 0; its transition takes `seconds`.
    pub(crate) fn patch(&self, host: usize, seconds: f64) -> Result<()> {
        self.happen(host, Event::Patch { takes: seconds })
    }

    /// What held its transition up lets go.
    pub(crate) fn finish(&self, host: usize) -> Result<()> {
        self.happen(host, Event::Finish)
    }

    /// The machine dies.
    pub(crate) fn crash(&self, host: usize) -> Result<()> {
        self.happen(host, Event::Crash)
    }

    /// The machine boots, without the patch.
    pub(crate) fn reboot(&self, host: usize) -> Result<()> {
        self.happen(host, Event::Reboot)
    }

    fn happen(&self, host: usize, event: Event) -> Result<()> {
        self.hosts
            .happen(host, event)
            .map_err(|refusal| anyhow::anyhow!("{}: {refusal}", instance(host)))
    }

    /// An item of `scrape_configs` for all hosts; writes its targets under `folder`.
    pub(crate) fn scrape_config(&self, folder: &Path, interval: u32) -> Result<String> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("targets.json");
        let targets = hosts::targets(self.server.port(), &self.waves);
        fs::write(&file, targets.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(format!(
            "- job_name: {JOB}\n  scrape_interval: {interval}s\n  scrape_timeout: {}s\n  \
             file_sd_configs:\n    - files: [\"{}\"]\n",
            interval.min(10),
            file.display()
        ))
    }

    /// A Prometheus with the shipped rules that scrapes all hosts, its data under
    /// `folder`; `interval` is in seconds.
    pub(crate) fn prometheus(&self, folder: &Path, interval: u32) -> Result<Prometheus> {
        start_prometheus(folder, interval, self.scrape_config(folder, interval)?)
    }
}

fn start_prometheus(folder: &Path, interval: u32, scrape_configs: String) -> Result<Prometheus> {
    Prometheus::start(
        folder,
        &Config {
            interval: format!("{}s", interval.min(EVALUATION)),
            scrape_configs,
            alertmanager: None,
            arguments: vec!["--storage.tsdb.retention.time=2h".to_owned()],
            thresholds: &[],
        },
    )
}
