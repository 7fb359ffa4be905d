//! What can be wrong with the web configuration, and where.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// What is wrong, in which file, at which line and key.
#[derive(Debug, Error)]
#[error("{}{place}: {problem}", path.display())]
pub struct Error {
    /// The configuration file, as it was given.
    pub path: PathBuf,
    /// Where in it.
    pub place: Place,
    /// What is wrong there.
    #[source]
    pub problem: Problem,
}

/// A place in the configuration file; the whole file where both are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub line: Option<u64>,
    /// With the section before it: `tls_server_config.cert_file`.
    pub key: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(formatter, ": {key}")?;
        }
        Ok(())
    }
}

/// What is wrong.
#[derive(Debug, Error)]
pub enum Problem {
    /// The system's own words.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// A directory, a pipe, a device.
    #[error("is not a regular file")]
    NotAFile,
    /// In bytes.
    #[error("has more than {limit} bytes: this is not such a file")]
    TooLarge {
        /// The most that is read.
        limit: u64,
    },
    /// Bytes that are no text.
    #[error("is not UTF-8 text")]
    NotText,
    /// The YAML reader's own words.
    #[error("{0}")]
    Yaml(String),
    /// A string where a boolean belongs.
    #[error("is a string: write true or false without quotes")]
    QuotedBoolean,
    /// A file that the configuration names.
    #[error("{}: {problem}", path.display())]
    File {
        /// As the key gives it, beside the configuration file if it is relative.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: Box<Problem>,
    },
    /// TLS is asked for, and this is missing.
    #[error("TLS needs `{0}`")]
    Missing(&'static str),
    /// Of these two one is too many.
    #[error("`{0}` and `{1}` say the same thing: keep one")]
    Both(&'static str, &'static str),
    /// No PEM certificate.
    #[error("holds no PEM certificate{hint}")]
    NoCertificate {
        /// What it seems to hold.
        hint: &'static str,
    },
    /// No PEM private key.
    #[error("holds no PEM private key{hint}")]
    NoKey {
        /// What it seems to hold.
        hint: &'static str,
    },
    /// PEM that is damaged.
    #[error("is not sound PEM: {0}")]
    Pem(String),
    /// Key and certificate are of different pairs.
    #[error("does not belong to the certificate: its public key is another")]
    Mismatch,
    /// The TLS library's own words.
    #[error("cannot be used: {0}")]
    Unusable(String),
    /// Not a word that is understood here.
    #[error("`{value}` is not one of {allowed}")]
    Unknown {
        /// As written.
        value: String,
        /// All that is.
        allowed: String,
    },
    /// Prometheus's own programs offer it, this one does not.
    #[error("`{value}` is not offered by this program (it has {offered}): leave it out")]
    NotOffered {
        /// As written.
        value: String,
        /// What is offered.
        offered: String,
    },
    /// No version is between the two.
    #[error("is below min_version: no version of TLS is left")]
    NoVersion,
    /// TLS 1.2 alone without a suite of its own.
    #[error("has no suite of TLS 1.2, the only version that the file allows")]
    NoSuite,
    /// Authorities without anyone to check.
    #[error("needs a client_auth_type that verifies: without one no client is checked")]
    AuthorityWithoutPolicy,
    /// Clients to check against nothing.
    #[error(
        "needs client_ca_file: without it any certificate of any public authority would be let in"
    )]
    PolicyWithoutAuthority,
    /// Names to look for in certificates that need not be there.
    #[error("needs client_auth_type RequireAnyClientCert or RequireAndVerifyClientCert")]
    SansWithoutPolicy,
    /// Not a bcrypt hash.
    #[error("is not a bcrypt hash ({0}): make one with `htpasswd -nBC 10 NAME`")]
    Hash(String),
    /// No client can send such a name.
    #[error("a user's name must not be empty nor contain a colon")]
    UserName,
    /// Not a value that HTTP can carry.
    #[error("holds characters that no HTTP header may have")]
    HeaderValue,
    /// Not a duration.
    #[error("{0}: write a duration such as 1s or 100ms")]
    Interval(String),
    /// Nobody would ever be let in.
    #[error("needs a burst of 1 or more: with none every request is refused")]
    Burst,
}

impl Error {
    pub(super) fn whole(path: &Path, problem: Problem) -> Self {
        Self {
            path: path.to_owned(),
            place: Place::default(),
            problem,
        }
    }
}
