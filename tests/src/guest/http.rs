//! Just enough HTTP to scrape an exporter.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
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

/// A connection that is kept for one request after another.
pub(crate) struct Connection {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Opens it; nothing is asked yet.
    pub(crate) fn open(address: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT)).context("timeout")?;
        stream.set_nodelay(true).context("no delay")?;
        Ok(Self {
            address: address.to_owned(),
            stream: BufReader::new(stream),
        })
    }

    /// As [`get`], over this connection.
    pub(crate) fn get(&mut self, path: &str) -> Result<String> {
        let address = &self.address;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .with_context(|| format!("cannot ask {address} for {path}"))?;
        let mut head = String::new();
        let mut length = None;
        loop {
            let start = head.len();
            let read = self.stream.read_line(&mut head);
            let read = read.with_context(|| format!("no answer from {address} for {path}"))?;
            ensure!(read > 0, "{address} closed the connection after {head:?}");
            let line = head.get(start..).unwrap_or_default().trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<usize>().context("Content-Length")?);
            }
        }
        let length = length.with_context(|| format!("no Content-Length in {head:?}"))?;
        let mut bytes = vec![0; length];
        self.stream
            .read_exact(&mut bytes)
            .with_context(|| format!("no whole answer from {address} for {path}"))?;
        body(&(head + &String::from_utf8(bytes).context("the answer is not UTF-8")?))
    }
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
