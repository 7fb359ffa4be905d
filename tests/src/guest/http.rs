//! Just enough HTTP to scrape an exporter.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The body that `http://ADDRESS/PATH` answers with; anything but 200 is an error.
pub(crate) fn get(address: &str, path: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT)).context("timeout")?;
    // 1.0, so that no server cuts its answer into chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .with_context(|| format!("cannot ask {address} for {path}"))?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("no whole answer from {address} for {path}"))?;
    body(&answer)
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("not an HTTP answer: {answer:?}"))?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("{status}: {body}");
    }
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            bail!("not a header: {line:?}");
        };
        if name.eq_ignore_ascii_case("content-length") {
            let length: usize = value.trim().parse().context("Content-Length")?;
            ensure!(
                body.len() == length,
                "{length} bytes announced, {} sent",
                body.len()
            );
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("an encoded answer: {line}");
        }
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_taken_whole() {
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 4\r\n\r\na 1\n";
        assert_eq!(body(answer).unwrap(), "a 1\n");
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\na 1\n").unwrap(), "a 1\n");
    }

    #[test]
    fn other_answers_are_errors() {
        for answer in [
            "",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na 1\n",
        ] {
            assert!(body(answer).is_err(), "{answer:?}");
        }
    }
}
