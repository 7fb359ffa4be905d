//! HTTPS: the server's certificate is verified with --ca-file.

use std::{fs, sync::Arc};

use livepatch_monitor_test_support::prometheus::{Fleet, Server};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::gate;

/// A CA, in PEM.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Serves the fleet at 127.0.0.1 under a certificate of this CA.
    fn serve(&self, fleet: Fleet) -> Server {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Server::start_tls(Arc::new(config), move |request| fleet.answer(request))
    }
}

#[test]
fn only_a_ca_that_is_named_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, ca: &Ca| {
        let path = dir.path().join(name);
        fs::write(&path, &ca.pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ours, other) = (Ca::new(), Ca::new());
    let server = ours.serve(Fleet::default().in_force("a", 4000.0));
    gate(&server.url, &["--ca-file", &file("ours", &ours)]).says(0, &["continue"]);
    let refused = gate(&server.url, &["--ca-file", &file("other", &other)]);
    refused.says(2, &["cannot determine", "cannot verify", "--ca-file"]);
}
