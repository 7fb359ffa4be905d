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
    /// The configuration file, as given on the command line.
    pub path: PathBuf,
    /// The place in the file.
    pub place: Place,
    /// The problem at that place.
    #[source]
    pub problem: Problem,
}

/// A place in the configuration file; the whole file if both are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the line, counted from 1; `None` if the problem is not on one line.
    pub line: Option<u64>,
    /// Including its section: `tls_server_config.cert_file`.
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

/// What is wrong with the configuration, as the end of a sentence about the place.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be read: the system's message.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is a directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// The file is too large.
    #[error("is larger than {limit} bytes, the limit for such a file")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is not UTF-8 text.
    #[error("is not UTF-8 text")]
    NotText,
    /// The YAML reader's message.
    #[error("{0}")]
    Yaml(String),
    /// A string in place of a boolean.
    #[error("is a string: write true or false without quotes")]
    QuotedBoolean,
    /// Something is wrong with a file that the configuration names.
    #[error("{}: {problem}", path.display())]
    File {
        /// The path; a relative one starts at the configuration file's directory.
        path: PathBuf,
        /// The problem with that file.
        #[source]
        problem: Box<Problem>,
    },
    /// TLS is configured, but this key is missing.
    #[error("TLS needs `{0}`")]
    Missing(&'static str),
    /// These two keys exclude each other.
    #[error("`{0}` and `{1}` say the same thing: keep one")]
    Both(&'static str, &'static str),
    /// The file contains no PEM certificate.
    #[error("contains no PEM certificate{hint}")]
    NoCertificate {
        /// What the content looks like.
        hint: &'static str,
    },
    /// The file contains no PEM private key.
    #[error("contains no PEM private key{hint}")]
    NoKey {
        /// What the content looks like.
        hint: &'static str,
    },
    /// The PEM is damaged.
    #[error("is not valid PEM: {0}")]
    Pem(String),
    /// The key does not belong to the certificate.
    #[error("does not belong to the certificate: the public keys differ")]
    Mismatch,
    /// The TLS library refuses it: its message.
    #[error("cannot be used: {0}")]
    Unusable(String),
    /// Not a value that is known here.
    #[error("`{value}` is not one of {allowed}")]
    Unknown {
        /// The value as the file has it.
        value: String,
        /// The values that are known, joined by commas.
        allowed: String,
    },
    /// Prometheus's own programs support this value, the monitor does not.
    #[error("`{value}` is not supported by this program (supported: {offered}): leave it out")]
    NotOffered {
        /// The value as the file has it.
        value: String,
        /// The values that are supported, joined by commas.
        offered: String,
    },
    /// There is no TLS version between the minimum and the maximum.
    #[error("is below min_version: no TLS version remains")]
    NoVersion,
    /// Only TLS 1.2 is allowed, but none of its suites.
    #[error("has no suite of TLS 1.2, the only version that the file allows")]
    NoSuite,
    /// Certificate authorities are given, but client certificates are not verified.
    #[error("needs a client_auth_type that verifies: without one no client is checked")]
    AuthorityWithoutPolicy,
    /// Client certificates are to be verified, but no authorities are given.
    #[error(
        "needs client_ca_file: without it any certificate of any public authority would be accepted"
    )]
    PolicyWithoutAuthority,
    /// Names are required in client certificates, which are not required.
    #[error("needs client_auth_type RequireAnyClientCert or RequireAndVerifyClientCert")]
    SansWithoutPolicy,
    /// The password hash is not a bcrypt hash.
    #[error("is not a bcrypt hash ({0}): make one with `htpasswd -nBC 10 NAME`")]
    Hash(String),
    /// A user name that no client can send.
    #[error("a user's name must not be empty nor contain a colon")]
    UserName,
    /// Not a valid HTTP header value.
    #[error("contains characters that are not allowed in an HTTP header")]
    HeaderValue,
    /// A text that is not a duration, with what is wrong with it.
    #[error("{0}: write a duration such as 1s or 100ms")]
    Interval(String),
    /// The burst is 0, so no request would ever be accepted.
    #[error("needs a burst of 1 or more: with 0 every request is refused")]
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
