//! The names that values of the web configuration can have.

use hyper::header::{HeaderName, HeaderValue};
use rustls::{CipherSuite, NamedGroup};

use crate::exporter::web::config_error::Problem;
use crate::exporter::web::tls::{ClientAuth, Suite};

/// Cipher suites by the names that Go uses, which are IANA's.
const SUITES: &[(&str, CipherSuite)] = &[
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites that Go offers and rustls does not: CBC, and key exchange without forward secrecy.
const OLD_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];

const CURVES: &[(&str, NamedGroup)] = &[
    ("X25519", NamedGroup::X25519),
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
];

/// Curves that Go offers and rustls with ring does not.
const OTHER_CURVES: &[&str] = &["CurveP521", "X25519MLKEM768"];

const CLIENT_AUTHS: &[(&str, ClientAuth)] = &[
    ("NoClientCert", ClientAuth::None),
    ("RequestClientCert", ClientAuth::Request),
    ("RequireAnyClientCert", ClientAuth::RequireAny),
    // An older name of `RequireAnyClientCert`.
    ("RequireClientCert", ClientAuth::RequireAny),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
];

/// Headers that may be set, with the allowed values where they are limited.
const HEADERS: &[(&str, &[&str])] = &[
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

pub(super) fn suite(word: &str) -> Result<Suite, Problem> {
    pick(word, SUITES, OLD_SUITES)
}

pub(super) fn is_tls12(suite: Suite) -> bool {
    // IANA's block for the suites of TLS 1.3.
    u16::from(suite) >> 8 != 0x13
}

pub(super) fn curve(word: &str) -> Result<NamedGroup, Problem> {
    pick(word, CURVES, OTHER_CURVES)
}

pub(super) fn client_auth(word: &str) -> Result<ClientAuth, Problem> {
    pick(word, CLIENT_AUTHS, &[])
}

/// The TLS version of a name: 12 or 13.
pub(super) fn version(word: &str) -> Result<u8, Problem> {
    pick(word, &[("TLS12", 12), ("TLS13", 13)], &["TLS10", "TLS11"])
}

pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let (_, values) = HEADERS
        .iter()
        .find(|(allowed, _)| *allowed == name)
        .ok_or_else(|| Problem::Unknown {
            value: name.to_owned(),
            allowed: join(HEADERS.iter().map(|(name, _)| *name)),
        })?;
    if !values.is_empty() && !values.contains(&value) {
        return Err(Problem::Unknown {
            value: value.to_owned(),
            allowed: join(values.iter().copied()),
        });
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Problem::HeaderValue)?;
    let value = HeaderValue::from_str(value).map_err(|_| Problem::HeaderValue)?;
    Ok((name, value))
}

fn pick<T: Copy>(word: &str, known: &[(&str, T)], others: &[&str]) -> Result<T, Problem> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == word) {
        return Ok(*value);
    }
    let names = join(known.iter().map(|(name, _)| *name));
    let value = word.to_owned();
    Err(if others.contains(&word) {
        Problem::NotOffered {
            value,
            offered: names,
        }
    } else {
        Problem::Unknown {
            value,
            allowed: names,
        }
    })
}

fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
