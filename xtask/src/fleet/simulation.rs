//! Simulated hosts, and the Prometheus that scrapes them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use super::{
    hosts::{self, Hosts, instance},
    recorded::Recordings,
    scenario::{Event, Timeline},
    server,
};
use crate::{
    host::{paths, server::Server},
    monitoring::prometheus::{Config, Prometheus},
};

/// The job name in the shipped rules and examples.
pub(super) const JOB: &str = "livepatch-monitor";

/// Rules are evaluated at least this often, in seconds.
pub(super) const EVALUATION: u32 = 15;

/// Simulated hosts on a port of 127.0.0.1, which end when dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) hosts: Arc<Hosts>,
    server: Server,
    /// The wave in which each host is patched.
    pub(super) waves: Vec<usize>,
}

impl Fleet {
    /// Hosts without the patch. [`Self::patch`] and the like change them, or `POST
    /// /host/NAME/patch`.
    pub(super) fn start(hosts: usize, patch: &str) -> Result<Self> {
        Self::start_on(0, hosts, patch)
    }

    pub(super) fn start_on(port: u16, hosts: usize, patch: &str) -> Result<Self> {
        let fleet = Self::with_timelines(
            port,
            vec![Timeline::default(); hosts],
            vec![0; hosts],
            patch,
        )?;
        fleet.hosts.begin()?;
        Ok(fleet)
    }

    /// Hosts with a scenario that has not begun yet.
    pub(super) fn with_timelines(
        port: u16,
        timelines: Vec<Timeline>,
        waves: Vec<usize>,
        patch: &str,
    ) -> Result<Self> {
        let recordings = Recordings::load(&paths::root()?.join("tests/fleet"), patch)?;
        let hosts = Arc::new(Hosts::new(recordings, timelines)?);
        let server = server::start(hosts.clone(), port)?;
        Ok(Self {
            hosts,
            server,
            waves,
        })
    }

    /// The URL of the hosts, without a trailing slash.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Loads the patch on a host, counted from 0; its transition takes `seconds`.
    pub(super) fn patch(&self, host: usize, seconds: f64) -> Result<()> {
        self.happen(host, Event::Patch { takes: seconds })
    }

    /// Ends what held up its transition.
    pub(super) fn finish(&self, host: usize) -> Result<()> {
        self.happen(host, Event::Finish)
    }

    pub(super) fn crash(&self, host: usize) -> Result<()> {
        self.happen(host, Event::Crash)
    }

    /// Boots a host without the patch.
    pub(super) fn reboot(&self, host: usize) -> Result<()> {
        self.happen(host, Event::Reboot)
    }

    fn happen(&self, host: usize, event: Event) -> Result<()> {
        self.hosts
            .happen(host, event)
            .map_err(|refusal| anyhow::anyhow!("{}: {refusal}", instance(host)))
    }

    /// Writes the file with all hosts as targets.
    pub(super) fn targets(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("targets.json");
        let targets = hosts::targets(self.server.port(), &self.waves);
        fs::write(&file, targets.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// An item of `scrape_configs` for all hosts; writes its targets under `folder`.
    pub(super) fn scrape_config(&self, folder: &Path, interval: u32) -> Result<String> {
        let file = self.targets(folder)?;
        Ok(format!(
            "- job_name: {JOB}\n  scrape_interval: {interval}s\n  scrape_timeout: {}s\n  \
             file_sd_configs:\n    - files: [\"{}\"]\n",
            interval.min(10),
            file.display()
        ))
    }

    /// Starts a Prometheus with the shipped rules that scrapes all hosts. Its data are under
    /// `folder`; `interval` is in seconds.
    pub(super) fn prometheus(&self, folder: &Path, interval: u32) -> Result<Prometheus> {
        start_prometheus(folder, interval, self.scrape_config(folder, interval)?)
    }
}

/// Starts a Prometheus with the shipped rules and these `scrape_configs`.
pub(super) fn start_prometheus(
    folder: &Path,
    interval: u32,
    scrape_configs: String,
) -> Result<Prometheus> {
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
