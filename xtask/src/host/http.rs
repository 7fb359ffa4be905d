//! Fetches pages from programs on this machine.

use anyhow::Result;
use livepatch_monitor_test_support::http;

/// Gets `path` from a port of this machine; an answer other than 200 is an error.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    Ok(http::body(&format!("127.0.0.1:{port}"), path)?)
}
