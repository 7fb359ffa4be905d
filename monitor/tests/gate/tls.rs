//! HTTPS: the server's certificate is held against --ca-file.

use std::{fs, net::TcpListener, sync::Arc, thread};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::{
    fake::{self, Fleet},
    gate,
};

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
    fn serve(&self, fleet: Fleet) -> String {
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
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, fleet) = (Arc::clone(&config), fleet.clone());
                thread::spawn(move || {
                    let connection = ServerConnection::new(config).unwrap();
                    let mut stream = StreamOwned::new(connection, stream);
                    if let Some(request) = fake::read(&mut stream) {
                        fake::write(&mut stream, fleet.answer(&request));
                        stream.conn.send_close_notify();
                        let _ = stream.conn.complete_io(&mut stream.sock);
                    }
                });
            }
        });
        url
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
    let url = ours.serve(Fleet::default().landed("a", 4000.0));
    gate(&url, &["--ca-file", &file("ours", &ours)]).says(0, &["go on"]);
    let refused = gate(&url, &["--ca-file", &file("other", &other)]);
    refused.says(2, &["cannot tell", "trusted", "--ca-file"]);
}
