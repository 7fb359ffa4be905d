//! A minimal HTTP client for fetching a scrape.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// An emulated guest answers slowly.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Gets `path` from a port of this machine; an answer other than 200 is an error.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:{port}{path}");
    fetch(port, path).with_context(|| format!("cannot fetch {url}"))
}

fn fetch(port: u16, path: &str) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("cannot connect")?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set the timeout")?;
    // HTTP/1.0: the response is not chunked and ends with the connection.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    )
    .context("cannot ask")?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .context("the answer broke off")?;
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> Result<String> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("not an HTTP answer: {answer:?}");
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("the answer is `{status}`");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_follows_the_blank_line() {
        let answer = "HTTP/1.0 200 OK\r\nA: b\r\n\r\nx 1\r\n\r\ny 2\n";
        assert_eq!(body(answer).unwrap(), "x 1\r\n\r\ny 2\n");
    }

    #[test]
    fn other_answers_are_errors() {
        let error = body("HTTP/1.0 503 Busy\r\n\r\n").unwrap_err().to_string();
        assert!(error.contains("503 Busy"), "{error}");
        assert!(body("").is_err());
    }
}
