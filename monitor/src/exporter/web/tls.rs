//! Turns a checked configuration and PEM into a rustls server configuration. No I/O.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CipherSuite, RootCertStore, ServerConfig, SupportedCipherSuite,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject as _},
    },
};

use super::{
    client_certs::Clients,
    config_error::{Place, Problem},
};

/// A cipher suite by its IANA number.
pub(super) type Suite = CipherSuite;

/// How client certificates are treated; Go's `tls.ClientAuthType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// No certificate is requested.
    None,
    /// A certificate is requested; a client without one, or with any, is accepted.
    Request,
    /// A certificate is required, from any authority.
    RequireAny,
    /// A client without a certificate is accepted; a certificate must be from the given
    /// authorities.
    VerifyIfGiven,
    /// A certificate from the given authorities is required.
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether certificates are verified against the authorities.
    pub(super) fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }

    /// Whether a client must have a certificate.
    pub(super) fn mandatory(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }
}

/// The settings of `tls_server_config`.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) cert: Pem,
    pub(super) key: Pem,
    pub(super) client_ca: Option<Pem>,
    pub(super) client_auth: ClientAuth,
    pub(super) allowed_sans: Option<Vec<String>>,
    /// Those of TLS 1.2 and TLS 1.3 that are allowed.
    pub(super) versions: (bool, bool),
    /// In order of preference; empty: the library's own.
    pub(super) suites: Vec<Suite>,
    pub(super) prefer_server: bool,
    /// In order of preference; empty: the library's own.
    pub(super) curves: Vec<rustls::NamedGroup>,
}

/// PEM in a file or in the configuration itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    pub(super) place: Place,
    pub(super) from: From,
}

/// Where PEM comes from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum From {
    File(PathBuf),
    Inline(String),
}

impl std::fmt::Debug for Pem {
    /// Without the text: it may be a private key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.from {
            From::File(path) => path.fmt(formatter),
            From::Inline(_) => formatter.write_str("inline"),
        }
    }
}

/// Which part of the configuration is at fault, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) part: Part,
    pub(super) problem: Problem,
}

/// A part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Certificate,
    Key,
    Authorities,
    Whole,
}

impl Part {
    fn fault(self, problem: Problem) -> Fault {
        Fault {
            part: self,
            problem,
        }
    }
}

/// Builds the TLS configuration of the server.
///
/// # Errors
/// Invalid PEM, a key that does not belong to the certificate, or something that rustls does not
/// support.
pub(super) fn build(
    wanted: &Tls,
    cert: &[u8],
    key: &[u8],
    client_ca: Option<&[u8]>,
    http2: bool,
) -> Result<ServerConfig, Fault> {
    let provider = Arc::new(provider(wanted));
    let chain = certificates(cert, Part::Certificate)?;
    let key = private_key(key)?;
    let versions: &[&rustls::SupportedProtocolVersion] = match wanted.versions {
        (true, true) => &[&rustls::version::TLS13, &rustls::version::TLS12],
        (true, false) => &[&rustls::version::TLS12],
        (false, _) => &[&rustls::version::TLS13],
    };
    let unusable = |error: rustls::Error| Part::Whole.fault(Problem::Unusable(error.to_string()));
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(unusable)?;
    let builder = match clients(wanted, client_ca, &provider)? {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(Arc::new(clients)),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Part::Key.fault(Problem::Mismatch),
            rustls::Error::InvalidCertificate(_) => {
                Part::Certificate.fault(Problem::Unusable(error.to_string()))
            }
            other => Part::Key.fault(Problem::Unusable(other.to_string())),
        })?;
    config.ignore_client_order = wanted.prefer_server;
    config.alpn_protocols = if http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    Ok(config)
}

/// ring's algorithms, limited to the configured ones and in their order.
fn provider(wanted: &Tls) -> CryptoProvider {
    let mut provider = ring::default_provider();
    let chosen: Vec<SupportedCipherSuite> = wanted
        .suites
        .iter()
        .filter_map(|suite| provider.cipher_suites.iter().find(|s| s.suite() == *suite))
        .copied()
        .collect();
    if !chosen.is_empty() {
        // As in Go, the list is about TLS 1.2: suites of 1.3 that are not listed are left out only
        // if other suites of 1.3 are listed.
        let names_tls13 = chosen.iter().any(|suite| suite.tls13().is_some());
        let mut suites = chosen;
        if !names_tls13 {
            let tls13 = provider.cipher_suites.iter().copied();
            suites.extend(tls13.filter(|suite| suite.tls13().is_some()));
        }
        provider.cipher_suites = suites;
    }
    if !wanted.curves.is_empty() {
        provider.kx_groups = wanted
            .curves
            .iter()
            .filter_map(|curve| provider.kx_groups.iter().find(|g| g.name() == *curve))
            .copied()
            .collect();
    }
    provider
}

fn clients(
    wanted: &Tls,
    client_ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Clients>, Fault> {
    if wanted.client_auth == ClientAuth::None {
        return Ok(None);
    }
    // Read whenever they are given, even if the policy does not use them: a file without a
    // certificate is a mistake in any case.
    let roots = client_ca.map(roots).transpose()?;
    let roots = roots.filter(|_| wanted.client_auth.verifies());
    Clients::new(
        roots,
        wanted.client_auth.mandatory(),
        wanted.allowed_sans.clone(),
        provider.clone(),
    )
    .map(Some)
    .map_err(|error| Part::Authorities.fault(Problem::Unusable(error.to_string())))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Fault> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, Part::Authorities)? {
        store
            .add(certificate)
            .map_err(|error| Part::Authorities.fault(Problem::Unusable(error.to_string())))?;
    }
    Ok(store)
}

fn certificates(pem: &[u8], part: Part) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| part.fault(Problem::Pem(error.to_string())))?;
    if certificates.is_empty() {
        let hint = if holds(pem, "PRIVATE KEY-----") {
            ", but a private key: the two files may be swapped"
        } else if pem.is_empty() {
            ": it is empty"
        } else {
            ""
        };
        return Err(part.fault(Problem::NoCertificate { hint }));
    }
    Ok(certificates)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        Part::Key.fault(match error {
            PemError::NoItemsFound => Problem::NoKey {
                hint: if holds(pem, "ENCRYPTED PRIVATE KEY-----") {
                    ", but an encrypted one: decrypt it with `openssl pkey`"
                } else if holds(pem, "BEGIN CERTIFICATE-----") {
                    ", but a certificate: the two files may be swapped"
                } else if pem.is_empty() {
                    ": it is empty"
                } else {
                    ""
                },
            },
            other => Problem::Pem(other.to_string()),
        })
    })
}

fn holds(pem: &[u8], mark: &str) -> bool {
    pem.windows(mark.len())
        .any(|window| window == mark.as_bytes())
}
