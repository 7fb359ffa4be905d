//! The engines of each layout, started with the shipped example configurations.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::HOSTS;
use crate::{
    fleet::{
        hosts::{instance, metrics_path},
        simulation::Fleet,
    },
    host::{engines::Suite, paths, prometheus_tools},
    monitoring::{Server, free_port, prometheus::Prometheus},
};

/// The hosts that crash, one of each site. They have agents too.
pub(super) const VICTIMS: [usize; 2] = [20, 23];
/// The hosts with an agent of their own, by turns of one site and the other. In each site one
/// is patched and three are at rest: fewer would not show that a site has gone.
const WITH_AGENTS: [usize; 8] = [18, 19, 20, 21, 22, 23, 24, 25];
/// The scrape interval here, in place of the examples'.
const INTERVAL: &str = "scrape_interval: 5s";
const EXAMPLES: &str = "dashboards/prometheus/layouts";
const READY: &str = "/-/ready";
const HEALTH: &str = "/health";

/// How a program is started, so that it can be started again.
struct Start {
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    log: PathBuf,
    ready: &'static str,
}

impl Start {
    fn run(&self) -> Result<Server> {
        Server::start_until(
            &self.program,
            &self.arguments,
            self.port,
            self.log.clone(),
            self.ready,
        )
        .with_context(|| format!("{}", self.program.display()))
    }
}

/// What scrapes hosts and sends their series.
struct Sender {
    start: Start,
    /// The site it is in.
    site: usize,
    /// The host it runs on, if it is an agent on a host.
    host: Option<usize>,
    server: Option<Server>,
}

/// A layout that runs.
pub(super) struct Layout {
    pub(super) name: &'static str,
    /// Where all series arrive, and rules are evaluated or written to.
    pub(super) store: Prometheus,
    /// The hosts it sees.
    pub(super) hosts: Vec<usize>,
    senders: Vec<Sender>,
    /// Stopped with it.
    _vmalert: Option<Server>,
}

impl Layout {
    /// The second site dies with all that scrapes there.
    pub(super) fn stop_site(&mut self) {
        let of_site = self.senders.iter_mut().filter(|sender| sender.site == 1);
        of_site.for_each(|sender| drop(sender.server.take()));
    }

    /// It comes back.
    pub(super) fn start_site(&mut self) -> Result<()> {
        for sender in &mut self.senders {
            if sender.server.is_none() {
                sender.server = Some(sender.start.run()?);
            }
        }
        Ok(())
    }

    /// A host crashes, and what runs on it.
    pub(super) fn crash(&mut self, host: usize) {
        let on_host = self.senders.iter_mut().filter(|it| it.host == Some(host));
        on_host.for_each(|sender| drop(sender.server.take()));
    }
}

/// Starts all layouts.
pub(super) fn start_all(folder: &Path, fleet: &Fleet) -> Result<Vec<Layout>> {
    let targets = fleet.targets(folder)?;
    Ok(vec![
        shards_to_prometheus(&folder.join("shards-prometheus"), &targets)?,
        shards_to_victoria(&folder.join("shards-victoria"), &targets)?,
        vmagents(&folder.join("vmagents"), &targets)?,
        agents(&folder.join("agents"), fleet)?,
    ])
}

/// Prometheus 2.42 as shards, 3.5 as the global one.
fn shards_to_prometheus(folder: &Path, targets: &Path) -> Result<Layout> {
    let store = global_prometheus(folder)?;
    let shard = prometheus_tools::path("prometheus")?;
    let senders = shards(folder, targets, &shard, store.port())?;
    Ok(Layout {
        name: "Prometheus shards that write to a Prometheus",
        store,
        hosts: (0..HOSTS).collect(),
        senders,
        _vmalert: None,
    })
}

/// Prometheus 2.53 as shards, VictoriaMetrics 1.112 with its vmalert.
fn shards_to_victoria(folder: &Path, targets: &Path) -> Result<Layout> {
    let (store, vmalert) = victoria(folder, Suite::Trixie)?;
    let senders = shards(
        folder,
        targets,
        &Suite::Trixie.program("prometheus")?,
        store.port(),
    )?;
    Ok(Layout {
        name: "Prometheus shards that write to VictoriaMetrics",
        store,
        hosts: (0..HOSTS).collect(),
        senders,
        _vmalert: Some(vmalert),
    })
}

/// vmagent, VictoriaMetrics and vmalert 1.145.
fn vmagents(folder: &Path, targets: &Path) -> Result<Layout> {
    let (store, vmalert) = victoria(folder, Suite::Sid)?;
    let config = example(
        "vmagent.yml",
        &[
            ("scrape_interval: 15s", INTERVAL),
            ("targets/*.yml", &targets.display().to_string()),
        ],
    )?;
    let config = written(folder, "vmagent.yml", &config)?;
    let mut senders = Vec::new();
    for site in 0..2 {
        let port = free_port(0)?;
        let start = Start {
            program: Suite::Sid.program("vmagent")?,
            arguments: vec![
                format!("-promscrape.config={}", config.display()),
                format!(
                    "-remoteWrite.url=http://127.0.0.1:{}/api/v1/write",
                    store.port()
                ),
                "-remoteWrite.queues=1".to_owned(),
                format!("-remoteWrite.label=shard={site}"),
                format!(
                    "-remoteWrite.tmpDataPath={}",
                    folder.join(format!("queue{site}")).display()
                ),
                "-promscrape.cluster.membersCount=2".to_owned(),
                format!("-promscrape.cluster.memberNum={site}"),
                format!("-httpListenAddr=127.0.0.1:{port}"),
            ],
            port,
            log: folder.join(format!("vmagent{site}.log")),
            ready: HEALTH,
        };
        senders.push(Sender::start(start, site, None)?);
    }
    Ok(Layout {
        name: "vmagents that write to VictoriaMetrics",
        store,
        hosts: (0..HOSTS).collect(),
        senders,
        _vmalert: Some(vmalert),
    })
}

/// Prometheus 2.53 in agent mode on each host, 3.5 as the global one.
fn agents(folder: &Path, fleet: &Fleet) -> Result<Layout> {
    let store = global_prometheus(folder)?;
    let mut senders = Vec::new();
    for host in WITH_AGENTS {
        let config = example(
            "agent.yml",
            &[
                ("scrape_interval: 15s", INTERVAL),
                (
                    "- job_name: livepatch-monitor",
                    &format!(
                        "- job_name: livepatch-monitor\n    metrics_path: {}",
                        metrics_path(host)
                    ),
                ),
                ("127.0.0.1:9969", fleet.url().trim_start_matches("http://")),
                ("web1.example", &instance(host)),
                ("http://global.example:9090", &store.url()),
            ],
        )?;
        let name = instance(host);
        let config = written(folder, &format!("{name}.yml"), &config)?;
        let port = free_port(0)?;
        let start = Start {
            program: Suite::Trixie.program("prometheus")?,
            arguments: vec![
                "--enable-feature=agent".to_owned(),
                format!("--config.file={}", config.display()),
                format!("--storage.agent.path={}", folder.join(&name).display()),
                format!("--web.listen-address=127.0.0.1:{port}"),
                "--log.level=warn".to_owned(),
            ],
            port,
            log: folder.join(format!("{name}.log")),
            ready: READY,
        };
        let site = host % 2;
        senders.push(Sender::start(start, site, Some(host))?);
    }
    Ok(Layout {
        name: "Prometheus agents that write to a Prometheus",
        store,
        hosts: WITH_AGENTS.to_vec(),
        senders,
        _vmalert: None,
    })
}

impl Sender {
    fn start(start: Start, site: usize, host: Option<usize>) -> Result<Self> {
        let server = Some(start.run()?);
        Ok(Self {
            start,
            site,
            host,
            server,
        })
    }
}

/// Two shards with the example configuration; they write to a port of this machine.
fn shards(folder: &Path, targets: &Path, program: &Path, to: u16) -> Result<Vec<Sender>> {
    let mut senders = Vec::new();
    for site in 0..2 {
        let config = example(
            "shard.yml",
            &[
                ("scrape_interval: 15s", INTERVAL),
                ("shard: \"0\"", &format!("shard: \"{site}\"")),
                ("regex: \"0\"", &format!("regex: \"{site}\"")),
                ("modulus: 3", "modulus: 2"),
                ("targets/*.yml", &targets.display().to_string()),
                ("global.example:9090", &format!("127.0.0.1:{to}")),
            ],
        )?;
        let config = written(folder, &format!("shard{site}.yml"), &config)?;
        let port = free_port(0)?;
        let start = Start {
            program: program.to_owned(),
            arguments: vec![
                format!("--config.file={}", config.display()),
                format!(
                    "--storage.tsdb.path={}",
                    folder.join(format!("shard{site}")).display()
                ),
                format!("--web.listen-address=127.0.0.1:{port}"),
                "--log.level=warn".to_owned(),
            ],
            port,
            log: folder.join(format!("shard{site}.log")),
            ready: READY,
        };
        senders.push(Sender::start(start, site, None)?);
    }
    Ok(senders)
}

/// Prometheus 3.5 that receives and evaluates the rules.
fn global_prometheus(folder: &Path) -> Result<Prometheus> {
    paths::empty(folder)?;
    let config = example("global.yml", &[])?;
    let config = written(folder, "global.yml", &config)?;
    let port = free_port(0)?;
    let start = Start {
        program: Suite::Sid.program("prometheus")?,
        arguments: vec![
            "--web.enable-remote-write-receiver".to_owned(),
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.join("global").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ],
        port,
        log: folder.join("global.log"),
        ready: READY,
    };
    Ok(Prometheus::of(start.run()?))
}

/// VictoriaMetrics and vmalert, with the flags of dashboards/README.md.
fn victoria(folder: &Path, suite: Suite) -> Result<(Prometheus, Server)> {
    paths::empty(folder)?;
    let (port, alerts) = (free_port(0)?, free_port(0)?);
    let mut arguments = flags("victoria-metrics")?;
    arguments.extend([
        format!("-storageDataPath={}", folder.join("victoria").display()),
        format!("-httpListenAddr=127.0.0.1:{port}"),
    ]);
    let store = Start {
        program: suite.program("victoria-metrics")?,
        arguments,
        port,
        log: folder.join("victoria.log"),
        ready: HEALTH,
    };
    let store = Prometheus::of(store.run()?);
    let url = store.url();
    let rules = paths::root()?.join("dashboards/prometheus");
    let mut arguments = flags("vmalert")?;
    arguments.extend([
        format!("-rule={}", rules.join("thresholds.yml").display()),
        format!("-rule={}/*.rules.yml", rules.display()),
        format!("-datasource.url={url}"),
        format!("-remoteWrite.url={url}"),
        format!("-remoteRead.url={url}"),
        "-notifier.blackhole".to_owned(),
        format!("-httpListenAddr=127.0.0.1:{alerts}"),
    ]);
    let vmalert = Start {
        program: suite.program("vmalert")?,
        arguments,
        port: alerts,
        log: folder.join("vmalert.log"),
        ready: HEALTH,
    };
    Ok((store, vmalert.run()?))
}

/// The flags that dashboards/README.md gives a program of VictoriaMetrics.
fn flags(program: &str) -> Result<Vec<String>> {
    let path = paths::root()?.join("dashboards/README.md");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let prefix = format!("{program} -");
    let line = text.lines().find(|line| line.starts_with(&prefix));
    let line = line.with_context(|| format!("{} has no line `{prefix}…`", path.display()))?;
    let flags = line.split_whitespace().skip(1);
    Ok(flags.map(str::to_owned).collect())
}

/// An example configuration with these texts replaced; each must be there.
fn example(file: &str, replaced: &[(&str, &str)]) -> Result<String> {
    let root = paths::root()?;
    let path = root.join(EXAMPLES).join(file);
    let mut text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (from, to) in replaced {
        ensure!(text.contains(from), "{} has no `{from}`", path.display());
        text = text.replace(from, to);
    }
    // The rules are where they are, and the configuration elsewhere.
    let rules = format!("{}/", root.join("dashboards/prometheus").display());
    Ok(text.replace("../", &rules))
}

fn written(folder: &Path, file: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(file);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
