//! The monitoring of a rollout: Prometheus and Alertmanager with the shipped configuration of
//! `dashboards/`, a pager that receives the notifications, and the gate.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::host::Host;
use crate::{
    host::{http, paths},
    lab::artifacts,
    monitoring::{
        alertmanager::Alertmanager,
        prometheus::{Config, Prometheus},
        wait_for,
        webhook::{Alert, Webhook},
    },
};

/// The time limit for things that take a few intervals.
const PATIENCE: Duration = Duration::from_secs(120);

/// Prometheus, Alertmanager, and a pager.
pub(crate) struct Stack {
    /// With the shipped rules.
    pub(crate) prometheus: Prometheus,
    /// With the shipped routes.
    pub(crate) alertmanager: Alertmanager,
    /// The receiver of Alertmanager's notifications.
    pub(crate) pager: Webhook,
    monitor: PathBuf,
    folder: PathBuf,
}

/// The exporters as scrape targets, each with its host's name.
fn scrape_configs(hosts: &[&Host]) -> String {
    let mut text = String::from("- job_name: livepatch-monitor\n  static_configs:\n");
    for host in hosts {
        text.push_str(&format!(
            "    - targets: [\"127.0.0.1:{}\"]\n      labels: {{instance: {}, env: test}}\n",
            host.exporter(),
            host.name()
        ));
    }
    text
}

impl Stack {
    /// Starts the servers for these hosts, with `interval` for scrapes and rules and with these
    /// thresholds instead of the shipped ones. `monitor` is the monitor's program.
    pub(crate) fn start(
        folder: &Path,
        monitor: &Path,
        hosts: &[&Host],
        interval: Duration,
        thresholds: &'static [(&'static str, u32)],
    ) -> Result<Self> {
        let pager = Webhook::start()?;
        let alertmanager = Alertmanager::start(folder, &pager_config(&pager.url())?)?;
        let prometheus = Prometheus::start(
            folder,
            &Config {
                interval: format!("{}s", interval.as_secs()),
                scrape_configs: scrape_configs(hosts),
                alertmanager: Some(alertmanager.port()),
                arguments: Vec::new(),
                thresholds,
            },
        )?;
        Ok(Self {
            prometheus,
            alertmanager,
            pager,
            monitor: monitor.to_path_buf(),
            folder: folder.to_path_buf(),
        })
    }

    /// Waits until Prometheus has the metrics of this many hosts.
    pub(crate) fn wait_for_hosts(&self, count: u32) -> Result<()> {
        self.wait_for_value("count(livepatch_kernel_info)", f64::from(count))
    }

    /// Waits until an instant query returns exactly this value.
    pub(crate) fn wait_for_value(&self, query: &str, expected: f64) -> Result<()> {
        wait_for(query, PATIENCE, || {
            let value = self.prometheus.value(query)?;
            ensure!(
                (value - expected).abs() < 1e-9,
                "it is {value}, not {expected}"
            );
            Ok(())
        })
    }

    /// Waits for a page about a host, or about the fleet if `host` is empty. Its runbook must
    /// exist.
    pub(crate) fn wait_for_page(&self, alert: &str, host: &str, patch: &str) -> Result<Alert> {
        let page = self.pager.wait_for(alert, PATIENCE, |alert| {
            alert.label("instance") == host && alert.label("patch") == patch
        })?;
        let link = page.annotation("runbook_url");
        let file = link.rsplit_once('/').map_or(link, |(_, file)| file);
        let runbook = paths::root()?.join("dashboards/runbooks").join(file);
        ensure!(
            file == format!("{alert}.md") && runbook.is_file(),
            "the link `{link}` of {alert} leads to no runbook"
        );
        Ok(page)
    }

    /// Runs the gate, which must end with this exit code; returns its output.
    pub(crate) fn gate(&self, patch: &str, arguments: &[&str], code: i32) -> Result<String> {
        let output = Command::new(&self.monitor)
            .args(["gate", "--prometheus", &self.prometheus.url()])
            .args(["--patch", patch])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.monitor.display()))?;
        let mut words = String::from_utf8_lossy(&output.stdout).into_owned();
        words.push_str(&String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.code() == Some(code),
            "the gate for {patch} ended with {}, not {code}:\n{words}",
            output.status
        );
        Ok(words)
    }

    /// Stores a page or an exposition of a host.
    pub(crate) fn keep(&self, host: &Host, path: &str, name: &str) -> Result<PathBuf> {
        let text = wait_for(&format!("{} of {}", path, host.name()), PATIENCE, || {
            http::get(host.exporter(), path)
        })?;
        artifacts::store(&self.folder, name, &text)
    }
}

/// The routes of the shipped example, with one pager for all and without delays.
fn pager_config(url: &str) -> Result<String> {
    let path = paths::root()?.join("dashboards/alertmanager/alertmanager.yml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut config = String::new();
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let word = line.trim_start().trim_start_matches("- ");
        let dash = if line.trim_start().starts_with("- ") {
            "- "
        } else {
            ""
        };
        let replaced = match word.split_once(':').map(|(key, _)| key) {
            Some("url") => format!("{indent}{dash}url: {url}"),
            Some("group_wait") => format!("{indent}{dash}group_wait: 1s"),
            Some("group_interval") => format!("{indent}{dash}group_interval: 2s"),
            _ => line.to_owned(),
        };
        config.push_str(&replaced);
        config.push('\n');
    }
    Ok(config)
}
