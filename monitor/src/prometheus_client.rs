//! Client for Prometheus's query API (`POST /api/v1/query`), which Thanos, Mimir and
//! VictoriaMetrics serve as well.

mod budget;
mod url;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use base64::Engine as _;
use thiserror::Error;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

pub use url::Url;

use self::budget::Budget;
use crate::bounded_read;
use livepatch_core::gate::answer::{self, Vector};

/// The address of Prometheus, and how to authenticate.
#[derive(Clone, Debug)]
pub struct Access {
    /// URL of Prometheus, including its path prefix.
    pub url: Url,
    /// Credentials of the monitor.
    pub login: Login,
    /// PEM file of CA certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Tenant of Mimir, sent as header `X-Scope-OrgID`.
    pub tenant: Option<String>,
    /// Timeout for one query, including reading its response.
    pub timeout: Duration,
}

/// Credentials. Secrets are in files, which each new [`Client`] reads again.
#[derive(Clone, Debug)]
pub enum Login {
    /// Requests carry no credentials.
    Open,
    /// A bearer token, in this file.
    Token(PathBuf),
    /// Basic authentication with a user name and a password.
    Password {
        /// Name that is sent as the user's.
        user: String,
        /// File that holds the password.
        file: PathBuf,
    },
}

/// The client cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("cannot read {what} {path:?}: {source}")]
    Unreadable {
        /// The flag that named the file.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The content of a file is wrong.
    #[error("{what} {path:?} {problem}")]
    Unusable {
        /// The flag that named the file.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with its content.
        problem: String,
    },
    /// The system's CA certificates were not found.
    #[error("the system has no CA certificates ({0}): give some with --ca-file")]
    NoSystemRoots(String),
}

/// Why a query got no usable response.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct Failure {
    /// A message that includes the remedy.
    pub text: String,
    /// Whether a retry may succeed without anyone changing anything.
    pub transient: bool,
}

impl Failure {
    fn lasting(text: String) -> Self {
        Self {
            text,
            transient: false,
        }
    }

    fn transient(text: String) -> Self {
        Self {
            text,
            transient: true,
        }
    }
}

/// Sends queries to one server.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    tenant: Option<String>,
    timeout: Duration,
    budget: Budget,
}

/// By how many seconds the time of an evaluation may differ from the requested one.
const LARGEST_SHIFT: f64 = 0.5;
/// Largest secret file that is read, in bytes.
const MAX_SECRET: u64 = 64 << 10;
/// Largest certificate file that is read, in bytes; the system's bundle has 200 KiB.
const MAX_PEM: u64 = 16 << 20;
/// How long to wait for a secret that comes through a pipe.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an error response that are read.
const LARGEST_ERROR: u64 = 64 << 10;

impl Client {
    /// Reads the secrets and certificates and sets up the client.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: one of the files cannot be used.
    pub fn new(access: &Access) -> Result<Self, SetupError> {
        let authorization = match &access.login {
            Login::Open => None,
            Login::Token(file) => Some(format!("Bearer {}", secret("--bearer-token-file", file)?)),
            Login::Password { user, file } => {
                let password = secret("--password-file", file)?;
                let both = format!("{user}:{password}");
                let encoded = base64::engine::general_purpose::STANDARD.encode(both);
                Some(format!("Basic {encoded}"))
            }
        };
        let mut config = Agent::config_builder()
            .user_agent(concat!("livepatch-monitor/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Following a redirect would send the credentials to a host that nobody configured.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(access.timeout));
        if access.url.as_str().starts_with("https:") {
            let roots = match &access.ca_file {
                Some(file) => roots_of(file)?,
                None => system_roots()?,
            };
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        } else if let Some(file) = &access.ca_file {
            roots_of(file)?;
        }
        Ok(Self {
            agent: config.build().new_agent(),
            url: access.url.as_str().to_owned(),
            authorization,
            tenant: access.tenant.clone(),
            timeout: access.timeout,
            budget: Budget::new(budget::MOST),
        })
    }

    /// The time by Prometheus's clock, in seconds since 1970. All queries are evaluated at
    /// this time, so that they describe the same moment and depend on no other clock.
    ///
    /// # Errors
    ///
    /// The query failed or its response is invalid; the server evaluates queries at another time
    /// than requested, which hides the newest samples.
    pub fn time(&self) -> Result<f64, Failure> {
        let decode = |body: &[u8]| answer::time(body).map_err(|error| self.undecoded(&error));
        let time = decode(&self.send("time()", None)?)?;
        let evaluated = decode(&self.send("vector(time())", Some(&format!("{time:.3}")))?)?;
        let off = time - evaluated;
        if off.abs() <= LARGEST_SHIFT {
            return Ok(time);
        }
        Err(Failure::lasting(format!(
            "{} evaluates queries {off:.0} s before the time asked for, so a host that has crashed \
            since then would look well; start VictoriaMetrics with -search.latencyOffset=1ms",
            self.url
        )))
    }

    /// Sends the queries in parallel and returns their results in the same order.
    ///
    /// # Errors
    ///
    /// The failure of the first query, in order, that failed.
    pub fn vectors(&self, queries: &[String], time: f64) -> Result<Vec<Vector>, Failure> {
        let time = format!("{time:.3}");
        thread::scope(|scope| {
            let running: Vec<_> = queries
                .iter()
                .map(|query| scope.spawn(|| self.vector(query, &time)))
                .collect();
            let answers = running.into_iter().map(|one| {
                one.join().unwrap_or_else(|_| {
                    Err(Failure::lasting(
                        "the thread that ran a query panicked".to_owned(),
                    ))
                })
            });
            answers.collect()
        })
    }

    fn vector(&self, query: &str, time: &str) -> Result<Vector, Failure> {
        let body = self.send(query, Some(time))?;
        answer::vector(&body).map_err(|error| self.undecoded(&error))
    }

    fn send(&self, query: &str, time: Option<&str>) -> Result<Vec<u8>, Failure> {
        // Prometheus aborts the query no later than this client does.
        let timeout = format!("{}ms", self.timeout.as_millis());
        let mut form = vec![
            ("query", query),
            ("timeout", timeout.as_str()),
            // VictoriaMetrics hides the newest 30 s of samples (-search.latencyOffset) unless one
            // of these is given; nocache is the older one. Others ignore both.
            ("latency_offset", "1ms"),
            ("nocache", "1"),
        ];
        form.extend(time.map(|time| ("time", time)));
        let mut request = self
            .agent
            .post(format!("{}/api/v1/query", self.url))
            .header(header::ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let mut response = request
            .send_form(form)
            .map_err(|error| self.unanswered(&error))?;
        let status = response.status();
        if status.is_success() {
            return self
                .budget
                .read(&mut response)
                .map_err(|error| self.unanswered(&error));
        }
        Err(self.refused(status, &mut response))
    }

    /// Describes a response whose status is not 2xx.
    fn refused(&self, status: StatusCode, response: &mut Response<Body>) -> Failure {
        let url = &self.url;
        if status.is_redirection() {
            let target = response.headers().get(header::LOCATION).map_or_else(
                || "nowhere".into(),
                |to| String::from_utf8_lossy(to.as_bytes()),
            );
            return Failure::lasting(format!(
                "{url} redirects to {target:?}, which is not followed: if that is your Prometheus, \
                give its URL with --prometheus"
            ));
        }
        let body = response.body_mut().with_config().limit(LARGEST_ERROR);
        let body = body.read_to_vec().unwrap_or_default();
        let said = answer::refusal(&body).map_or_else(
            || match answer::excerpt(&body) {
                empty if empty.is_empty() => String::new(),
                excerpt => format!(": {excerpt:?}"),
            },
            |error| format!(": {error}"),
        );
        let text = |remedy: &str| format!("{url} responded with status {status}{said}; {remedy}");
        match status.as_u16() {
            401 | 403 => Failure::lasting(text(
                "give credentials that may query with --bearer-token-file, or with --user and \
                --password-file",
            )),
            404 | 405 => Failure::lasting(text(
                "check that it is Prometheus and that the URL includes its path prefix (Mimir: \
                http://mimir/prometheus)",
            )),
            400 | 422 => Failure::lasting(text(
                "a regular expression in --selector may be invalid, or the query may exceed a \
                limit of the server",
            )),
            408 | 425 | 429 | 500.. => Failure::transient(text("retry, or see its log")),
            _ => Failure::lasting(text("check that it is Prometheus")),
        }
    }

    /// Describes a query without a complete response.
    fn unanswered(&self, error: &ureq::Error) -> Failure {
        let url = &self.url;
        match error {
            ureq::Error::Timeout(_) => Failure::transient(format!(
                "{url} did not answer within {} (--timeout)",
                humantime::format_duration(self.timeout)
            )),
            ureq::Error::BodyExceedsLimit(limit) => Failure::lasting(format!(
                "the responses of {url} are together larger than {limit} bytes: narrow --selector"
            )),
            ureq::Error::HostNotFound => Failure::transient(format!(
                "cannot resolve the host of {url}: check --prometheus"
            )),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.untrusted(error)
            }
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Failure::transient(format!("the response of {url} ended early"))
            }
            ureq::Error::Io(error) => Failure::transient(format!(
                "cannot reach {url}: {error}; check that Prometheus is running and that --prometheus is \
                right"
            )),
            ureq::Error::Rustls(error) => self.untrusted(error),
            ureq::Error::Tls(error) => self.untrusted(error),
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => Failure::lasting(format!(
                "cannot send a query to {url}: {error}; check the header values (--tenant, the token)"
            )),
            error => Failure::lasting(format!("{url} does not speak valid HTTP: {error}")),
        }
    }

    fn untrusted(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::lasting(format!(
            "cannot verify the certificate of {}: {error}; give the CA that signed it with \
            --ca-file",
            self.url
        ))
    }

    fn undecoded(&self, error: &answer::Error) -> Failure {
        let remedy = match error {
            answer::Error::Html(_) => {
                "; it may be a login page or the wrong path: give the URL of the API"
            }
            answer::Error::Refused { .. } | answer::Error::Shape { .. } => "",
        };
        Failure::lasting(format!("{}: {error}{remedy}", self.url))
    }
}

/// Reads a secret: the only line of a file, without surrounding blanks.
fn secret(what: &'static str, path: &Path) -> Result<String, SetupError> {
    let unusable = |problem: &str| SetupError::Unusable {
        what,
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let bytes = bounded_read::read_stream(path, MAX_SECRET + 1, PATIENCE).map_err(|source| {
        SetupError::Unreadable {
            what,
            path: path.to_owned(),
            source,
        }
    })?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(unusable(
            "is larger than 64 KiB: check that it is the right file",
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| unusable("is not UTF-8: check that it is the right file"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(unusable("is empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(unusable(
            "has several lines or control characters: it must hold only the secret",
        ));
    }
    Ok(text.to_owned())
}

fn roots_of(path: &Path) -> Result<RootCerts, SetupError> {
    let what = "--ca-file";
    let pem = bounded_read::read(path, MAX_PEM).map_err(|source| SetupError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })?;
    let unusable = |problem: String| SetupError::Unusable {
        what,
        path: path.to_owned(),
        problem,
    };
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(unusable(format!("is damaged: {error}"))),
        }
    }
    if certificates.is_empty() {
        return Err(unusable(
            "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned(),
        ));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn system_roots() -> Result<RootCerts, SetupError> {
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<_> = found
        .certs
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    if certificates.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(SetupError::NoSystemRoots(errors.join(", ")));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}
