//! Which client certificates are accepted.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// The policy. It is always checked that a client holds the private key of its certificate.
#[derive(Debug)]
pub(super) struct Clients {
    /// The certificate authorities; `None`: any certificate is accepted.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    mandatory: bool,
    /// If set, the certificate must contain one of these names.
    allowed_sans: Option<Vec<String>>,
    provider: Arc<CryptoProvider>,
}

impl Clients {
    /// # Errors
    /// The list of authorities is empty or invalid.
    pub(super) fn new(
        roots: Option<RootCertStore>,
        mandatory: bool,
        allowed_sans: Option<Vec<String>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let authorities = match roots {
            Some(roots) => Some(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()?,
            ),
            None => None,
        };
        Ok(Self {
            authorities,
            mandatory,
            allowed_sans,
            provider,
        })
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities
            .as_ref()
            .map_or(&[], |authorities| authorities.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            authorities.verify_client_cert(certificate, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed_sans
            && !alternative_names(certificate)?
                .iter()
                .any(|name| allowed.contains(name))
        {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The DNS names, mail addresses, IP addresses and URIs in a certificate, in Go's notation.
fn alternative_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let bad = |_| Error::from(CertificateError::BadEncoding);
    let certificate = Certificate::from_der(certificate).map_err(bad)?;
    let names = certificate
        .tbs_certificate
        .get::<SubjectAltName>()
        .map_err(bad)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    Ok(names.iter().filter_map(text).collect())
}

fn text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) => Some(name.to_string()),
        GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            if let Ok(octets) = <[u8; 4]>::try_from(octets) {
                return Some(Ipv4Addr::from(octets).to_string());
            }
            let octets = <[u8; 16]>::try_from(octets).ok()?;
            Some(Ipv6Addr::from(octets).to_string())
        }
        _ => None,
    }
}
