//! Certificates made for the tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::exporter::Host;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn server(&self) -> Pair {
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate, with an alternative name of each kind.
    pub(crate) fn client(&self) -> Pair {
        let mut params = CertificateParams::new(vec!["prometheus.example".into()]).unwrap();
        params.subject_alt_names.extend([
            SanType::Rfc822Name("ops@example.org".try_into().unwrap()),
            SanType::URI("spiffe://example.org/prometheus".try_into().unwrap()),
            SanType::IpAddress("192.0.2.7".parse().unwrap()),
        ]);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Pair {
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Pair {
    pub(crate) fn write(&self, host: &Host, cert: &str, key: &str) {
        host.write_settled(cert, &self.cert);
        host.write_settled(key, &self.key);
    }
}

/// A host with `server.pem`, `server.key` and `ca.pem`, all of one authority.
pub(crate) fn host() -> (Host, Authority) {
    let host = Host::default();
    let authority = Authority::new();
    authority.server().write(&host, "server.pem", "server.key");
    host.write_settled("ca.pem", authority.pem());
    (host, authority)
}

/// TLS with these files.
pub(crate) const TLS: &str =
    "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";
