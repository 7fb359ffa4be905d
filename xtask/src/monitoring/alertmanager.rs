//! A real Alertmanager with a configuration of the tests, on loopback.

use std::{fs, ops::Deref, path::Path};

use anyhow::{Context as _, Result};

use super::{Server, free_port};
use crate::host::{paths, prometheus_tools};

#[derive(Debug)]
pub(crate) struct Alertmanager(Server);

impl Deref for Alertmanager {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Alertmanager {
    /// Starts one without state, under `folder`, with the text of a configuration.
    pub(crate) fn start(folder: &Path, config: &str) -> Result<Self> {
        let folder = folder.join("alertmanager");
        paths::empty(&folder)?;
        let file = folder.join("alertmanager.yml");
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let port = free_port(9093)?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            // It has no peers.
            "--cluster.listen-address=".to_owned(),
            "--log.level=warn".to_owned(),
        ];
        Server::start(
            &prometheus_tools::path("prometheus-alertmanager")?,
            &arguments,
            port,
            folder.join("log"),
        )
        .map(Self)
        .context("Alertmanager")
    }
}
