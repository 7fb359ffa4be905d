//! The HTTP client of the tests and of xtask: ureq without redirects, proxies and automatic errors.

use std::time::Duration;

/// Far longer than any response takes, on an emulated processor too: a test that waits this long
/// hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest response, in bytes: a query about all hosts of a large fleet.
const LONGEST: u64 = 1 << 30;

/// A response, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The whole body as text.
    pub body: String,
}

/// Why there is no response, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, not HTTP, or a truncated body.
    #[error("cannot get {url}: {source}")]
    Transport {
        /// The URL that was requested.
        url: String,
        /// What the HTTP library reported.
        source: Box<ureq::Error>,
    },
    /// A response with a status other than 200.
    #[error("{url} answers {status}: {body}")]
    Status {
        /// The URL that was requested.
        url: String,
        /// The HTTP status code that came instead.
        status: u16,
        /// The body that came with it.
        body: String,
    },
}

impl Response {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A client that keeps its connection from one request to the next.
#[derive(Clone, Debug)]
pub struct Client(ureq::Agent);

impl Default for Client {
    fn default() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_age(Duration::from_secs(3600))
            .timeout_global(Some(TIMEOUT));
        Self(config.build().into())
    }
}

impl Client {
    /// Requests `http://ADDRESS/PATH` with further headers.
    ///
    /// # Errors
    /// There is no connection, or no complete response.
    pub fn get(
        &self,
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, Error> {
        let url = format!("http://{address}{path}");
        self.fetch(&url, headers).map_err(|error| Error::Transport {
            url,
            source: Box::new(error),
        })
    }

    /// The body of the response of `http://ADDRESS/PATH`.
    ///
    /// # Errors
    /// As [`Client::get`], and a status other than 200.
    pub fn body(&self, address: &str, path: &str) -> Result<String, Error> {
        match self.get(address, path, &[])? {
            Response {
                status: 200, body, ..
            } => Ok(body),
            Response { status, body, .. } => Err(Error::Status {
                url: format!("http://{address}{path}"),
                status,
                body,
            }),
        }
    }

    fn fetch(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response, ureq::Error> {
        let mut request = self.0.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.call()?;
        let headers = answer.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let headers = headers.collect();
        Ok(Response {
            status: answer.status().as_u16(),
            headers,
            body: answer
                .body_mut()
                .with_config()
                .limit(LONGEST)
                .read_to_string()?,
        })
    }
}

/// Like [`Client::get`], over a separate connection that is then closed.
///
/// # Errors
/// As [`Client::get`].
pub fn get(address: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response, Error> {
    Client::default().get(address, path, headers)
}

/// Like [`Client::body`], over a separate connection that is then closed.
///
/// # Errors
/// As [`Client::body`].
pub fn body(address: &str, path: &str) -> Result<String, Error> {
    Client::default().body(address, path)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers each connection with one of these, then closes it.
    fn serve(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for (stream, answer) in listener.incoming().flatten().zip(answers) {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn the_body_is_taken_whole() {
        let address = serve(&["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n"]);
        assert_eq!(body(&address, "/metrics").unwrap(), "a 1\n");
    }

    #[test]
    fn other_answers_are_errors() {
        let address = serve(&[
            "",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone",
            "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na 1\n",
            "SSH-2.0\r\n",
        ]);
        for _ in 0..5 {
            assert!(body(&address, "/metrics").is_err());
        }
    }
}
