//! Parses the web configuration: strict YAML into checked values.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::display;
use crate::exporter::web::{
    config_error::{Error, Place, Problem},
    rate::Rate,
    tls::{ClientAuth, From, Pem, Suite, Tls},
    users::Users,
};

type Text = Option<Spanned<String>>;
type Texts = Option<Vec<Spanned<String>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    tls_server_config: Option<RawTls>,
    http_server_config: Option<RawHttp>,
    basic_auth_users: Option<BTreeMap<String, Spanned<Option<String>>>>,
    rate_limit: Option<RawRate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    cert: Text,
    key: Text,
    client_ca: Text,
    cert_file: Text,
    key_file: Text,
    client_ca_file: Text,
    client_auth_type: Text,
    client_allowed_sans: Texts,
    min_version: Text,
    max_version: Text,
    cipher_suites: Texts,
    prefer_server_cipher_suites: Option<Spanned<bool>>,
    curve_preferences: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    http2: Option<Spanned<bool>>,
    headers: Option<BTreeMap<String, Spanned<Option<String>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRate {
    interval: Text,
    burst: Option<Spanned<u32>>,
}

/// A checked configuration; the files that it names have not been read yet.
#[derive(Debug)]
pub(in crate::exporter::web) struct File {
    pub(in crate::exporter::web) tls: Option<Tls>,
    /// TLS keys are given, but none that enables TLS (as in Prometheus, this is allowed).
    pub(in crate::exporter::web) tls_idle: bool,
    pub(in crate::exporter::web) http2: bool,
    pub(in crate::exporter::web) headers: Vec<(HeaderName, HeaderValue)>,
    pub(in crate::exporter::web) users: Users,
    pub(in crate::exporter::web) rate: Option<Rate>,
}

/// Parses the text of the configuration file at `path`. No I/O.
pub(in crate::exporter::web) fn parse(path: &Path, text: &str) -> Result<File, Error> {
    Reader { path, text }.file()
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn file(&self) -> Result<File, Error> {
        let options = serde_saphyr::options! { with_snippet: false };
        let raw: Option<Raw> = serde_saphyr::from_str_with_options(self.text, options)
            .map_err(|error| self.yaml(&error))?;
        let raw = raw.unwrap_or_default();
        let http = raw.http_server_config.unwrap_or_default();
        let tls_idle = raw.tls_server_config.is_some();
        let tls = match raw.tls_server_config {
            Some(tls) => self.tls(tls)?,
            None => None,
        };
        Ok(File {
            tls_idle: tls_idle && tls.is_none(),
            tls,
            http2: self.boolean(http.http2, "http_server_config.http2")?,
            headers: self.headers(http.headers.unwrap_or_default())?,
            users: self.users(raw.basic_auth_users.unwrap_or_default())?,
            rate: self.rate(raw.rate_limit.unwrap_or_default())?,
        })
    }

    fn tls(&self, raw: RawTls) -> Result<Option<Tls>, Error> {
        let key = |name: &str| format!("tls_server_config.{name}");
        let versions = self.versions(&raw)?;
        let suites = self.suites(&raw, versions)?;
        let curves = self.list(
            raw.curve_preferences.as_deref(),
            &key("curve_preferences"),
            display::curve,
        )?;
        let prefer_server = self.boolean(
            raw.prefer_server_cipher_suites,
            &key("prefer_server_cipher_suites"),
        )?;

        let cert = self.pem(raw.cert_file, raw.cert, "cert_file", "cert")?;
        let private = self.pem(raw.key_file, raw.key, "key_file", "key")?;
        let client_ca = self.pem(
            raw.client_ca_file,
            raw.client_ca,
            "client_ca_file",
            "client_ca",
        )?;
        let auth = given(raw.client_auth_type);
        if cert.is_none() && private.is_none() && client_ca.is_none() && auth.is_none() {
            return Ok(None);
        }
        let missing = |name| Error {
            path: self.path.to_owned(),
            place: Place {
                line: self.line_of("tls_server_config"),
                key: Some("tls_server_config".to_owned()),
            },
            problem: Problem::Missing(name),
        };
        let cert = cert.ok_or_else(|| missing("cert_file"))?;
        let private = private.ok_or_else(|| missing("key_file"))?;

        let client_auth = self.client_auth(
            auth.as_ref(),
            client_ca.as_ref(),
            raw.client_allowed_sans.as_deref(),
        )?;
        Ok(Some(Tls {
            cert,
            key: private,
            client_ca,
            client_auth,
            allowed_sans: raw
                .client_allowed_sans
                .map(|sans| sans.into_iter().map(|san| san.value).collect()),
            versions,
            suites,
            prefer_server,
            curves,
        }))
    }

    /// Whether TLS 1.2 and TLS 1.3 are allowed.
    fn versions(&self, raw: &RawTls) -> Result<(bool, bool), Error> {
        let key = |name: &str| format!("tls_server_config.{name}");
        let min = self.version(raw.min_version.as_ref(), &key("min_version"))?;
        let max = self.version(raw.max_version.as_ref(), &key("max_version"))?;
        let versions = (min != Some(13), max != Some(12));
        if versions == (false, false) {
            return Err(self.at(
                raw.max_version.as_ref(),
                &key("max_version"),
                Problem::NoVersion,
            ));
        }
        Ok(versions)
    }

    fn suites(&self, raw: &RawTls, versions: (bool, bool)) -> Result<Vec<Suite>, Error> {
        let key = "tls_server_config.cipher_suites";
        let suites = self.list(raw.cipher_suites.as_deref(), key, display::suite)?;
        if versions == (true, false)
            && !suites.is_empty()
            && !suites.iter().any(|suite| display::is_tls12(*suite))
        {
            let first = raw.cipher_suites.as_ref().and_then(|suites| suites.first());
            return Err(self.at(first, key, Problem::NoSuite));
        }
        Ok(suites)
    }

    /// The policy for client certificates, checked against the keys that it needs or excludes.
    fn client_auth(
        &self,
        auth: Option<&Spanned<String>>,
        client_ca: Option<&Pem>,
        allowed_sans: Option<&[Spanned<String>]>,
    ) -> Result<ClientAuth, Error> {
        let auth_key = "tls_server_config.client_auth_type";
        let client_auth = match auth {
            None => ClientAuth::None,
            Some(text) => {
                display::client_auth(&text.value).map_err(|p| self.at(Some(text), auth_key, p))?
            }
        };
        if let Some(ca) = client_ca
            && client_auth == ClientAuth::None
        {
            return Err(self.of(ca, Problem::AuthorityWithoutPolicy));
        }
        if client_auth.verifies() && client_ca.is_none() {
            return Err(self.at(auth, auth_key, Problem::PolicyWithoutAuthority));
        }
        if let Some(sans) = allowed_sans
            && !client_auth.mandatory()
        {
            let key = "tls_server_config.client_allowed_sans";
            return Err(self.at(sans.first(), key, Problem::SansWithoutPolicy));
        }
        Ok(client_auth)
    }

    fn version(&self, text: Option<&Spanned<String>>, key: &str) -> Result<Option<u8>, Error> {
        text.map(|text| display::version(&text.value).map_err(|p| self.at(Some(text), key, p)))
            .transpose()
    }

    fn list<T>(
        &self,
        texts: Option<&[Spanned<String>]>,
        key: &str,
        word: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Error> {
        texts
            .unwrap_or_default()
            .iter()
            .map(|text| word(&text.value).map_err(|problem| self.at(Some(text), key, problem)))
            .collect()
    }

    /// A boolean, true if it is not given.
    fn boolean(&self, value: Option<Spanned<bool>>, key: &str) -> Result<bool, Error> {
        let Some(value) = value else { return Ok(true) };
        let first = value
            .referenced
            .span()
            .byte_offset()
            .and_then(|at| self.text.as_bytes().get(usize::try_from(at).ok()?));
        if matches!(first, Some(b'"' | b'\'')) {
            return Err(self.at(Some(&value), key, Problem::QuotedBoolean));
        }
        Ok(value.value)
    }

    fn pem(
        &self,
        file: Text,
        inline: Text,
        file_key: &'static str,
        inline_key: &'static str,
    ) -> Result<Option<Pem>, Error> {
        let place = |text: &Spanned<String>, key: &str| Place {
            line: Some(text.referenced.line()),
            key: Some(format!("tls_server_config.{key}")),
        };
        match (given(file), given(inline)) {
            (Some(file), Some(_)) => Err(Error {
                path: self.path.to_owned(),
                place: place(&file, file_key),
                problem: Problem::Both(file_key, inline_key),
            }),
            (Some(file), None) => Ok(Some(Pem {
                place: place(&file, file_key),
                from: From::File(self.beside(&file.value)),
            })),
            (None, Some(text)) => Ok(Some(Pem {
                place: place(&text, inline_key),
                from: From::Inline(text.value),
            })),
            (None, None) => Ok(None),
        }
    }

    /// Resolves a relative path against the configuration file's directory.
    fn beside(&self, path: &str) -> PathBuf {
        self.path
            .parent()
            .map_or_else(|| PathBuf::from(path), |directory| directory.join(path))
    }

    fn headers(
        &self,
        headers: BTreeMap<String, Spanned<Option<String>>>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
        headers
            .into_iter()
            .map(|(name, value)| {
                let key = format!("http_server_config.headers.{name}");
                let text = value.value.as_deref().unwrap_or_default();
                display::header(&name, text).map_err(|problem| self.at(Some(&value), &key, problem))
            })
            .collect()
    }

    fn users(&self, users: BTreeMap<String, Spanned<Option<String>>>) -> Result<Users, Error> {
        let mut table = Users::default();
        for (name, hash) in users {
            let key = format!("basic_auth_users.{name}");
            let text = hash.value.as_deref().unwrap_or_default();
            table
                .add(name, text)
                .map_err(|problem| self.at(Some(&hash), &key, problem))?;
        }
        Ok(table)
    }

    fn rate(&self, raw: RawRate) -> Result<Option<Rate>, Error> {
        let key = "rate_limit.interval";
        let interval = match &raw.interval {
            None => Duration::ZERO,
            Some(text) if text.value == "0" => Duration::ZERO,
            Some(text) => humantime::parse_duration(&text.value)
                .map_err(|error| self.at(Some(text), key, Problem::Interval(error.to_string())))?,
        };
        if interval.is_zero() {
            return Ok(None);
        }
        let burst = raw.burst.map_or(0, |burst| burst.value);
        if burst == 0 {
            return Err(self.at(raw.interval.as_ref(), key, Problem::Burst));
        }
        Ok(Some(Rate { interval, burst }))
    }

    fn at<T>(&self, value: Option<&Spanned<T>>, key: &str, problem: Problem) -> Error {
        Error {
            path: self.path.to_owned(),
            place: Place {
                line: value.map(|value| value.referenced.line()),
                key: Some(key.to_owned()),
            },
            problem,
        }
    }

    fn of(&self, pem: &Pem, problem: Problem) -> Error {
        Error {
            path: self.path.to_owned(),
            place: pem.place.clone(),
            problem,
        }
    }

    fn yaml(&self, error: &serde_saphyr::Error) -> Error {
        let line = error.location().map(|location| location.line());
        Error {
            path: self.path.to_owned(),
            place: Place {
                line,
                key: line.and_then(|line| self.key_on(line)),
            },
            problem: Problem::Yaml(plain(&error.to_string())),
        }
    }

    /// The key at the start of a line; never its value, which may be a secret.
    fn key_on(&self, line: u64) -> Option<String> {
        let index = usize::try_from(line.checked_sub(1)?).ok()?;
        let (key, _) = self.text.lines().nth(index)?.split_once(':')?;
        let key = key.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        (!key.is_empty() && key.len() < 64 && key.chars().all(plain)).then(|| key.to_owned())
    }

    fn line_of(&self, key: &str) -> Option<u64> {
        let found = self.text.lines().position(|line| line.starts_with(key))?;
        u64::try_from(found).ok()?.checked_add(1)
    }
}

/// An empty text counts as absent, as in Prometheus.
fn given(text: Text) -> Text {
    text.filter(|text| !text.value.is_empty())
}

/// The reader's message without its advice to programmers and without the place, which the error
/// already states.
fn plain(words: &str) -> String {
    let words = words
        .rsplit_once(" at line ")
        .map_or(words, |(words, _)| words);
    let words = match words.split_once("; use from_str_multiple") {
        Some((words, _)) => words,
        None => words,
    };
    words
        .split_once(", set DuplicateKeyPolicy")
        .map_or(words, |(words, _)| words)
        .to_owned()
}
