//! Fetches pages from programs on this machine.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// An emulated guest answers slowly.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer, in bytes: a query about all hosts of a large fleet.
const LONGEST: u64 = 1 << 30;

/// Gets `path` from a port of this machine; an answer other than 200 is an error.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:{port}{path}");
    fetch(&url).with_context(|| format!("cannot fetch {url}"))
}

fn fetch(url: &str) -> Result<String> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(TIMEOUT));
    let mut answer = ureq::Agent::from(config.build()).get(url).call()?;
    let body = answer.body_mut().with_config().limit(LONGEST);
    let body = body.read_to_string().context("cannot read the answer")?;
    let status = answer.status();
    ensure!(status == 200, "the answer is {status}: {body}");
    Ok(body)
}
