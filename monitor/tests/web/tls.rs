//! TLS from a client's point of view.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{
    exporter::{Host, Process, start},
    pki::{self, Authority, Pair, TLS},
};

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// Sends requests by HTTP/2.
type Http2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// A client of TLS.
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) fn trusting(authority: &str) -> Self {
        Self::with(authority, None, BOTH)
    }

    pub(crate) fn with(
        authority: &str,
        own: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
            .unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        Self(Arc::new(config))
    }

    fn speaking(mut self, protocols: &[&str]) -> Self {
        let config = Arc::get_mut(&mut self.0).unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// A connection whose handshake is still to be made.
    pub(crate) fn connection(&self) -> ClientConnection {
        ClientConnection::new(self.0.clone(), "localhost".try_into().unwrap()).unwrap()
    }

    /// The status and the body of a response, over a separate connection.
    pub(crate) fn get(&self, address: &str, path: &str) -> io::Result<(u16, String)> {
        let (_, status, body) = self.ask(address, path)?;
        Ok((status, body))
    }

    /// What an answered connection negotiated.
    fn agreed(&self, address: &str) -> Agreed {
        let (agreed, status, _) = self.ask(address, "/-/healthy").unwrap();
        assert_eq!(status, 200);
        agreed
    }

    fn ask(&self, address: &str, path: &str) -> io::Result<(Agreed, u16, String)> {
        runtime().block_on(async {
            let stream = self.handshake(address, self.0.clone()).await?;
            let session = stream.get_ref().1;
            let suite = session.negotiated_cipher_suite().unwrap().suite();
            let group = session.negotiated_key_exchange_group().unwrap().name();
            let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
            let stream = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(connection);
            let request = hyper::Request::get(path).header("host", "localhost");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(io::Error::other)?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await;
            let body = body.map_err(io::Error::other)?.to_bytes().to_vec();
            let agreed = Agreed {
                suite,
                group,
                protocol,
            };
            Ok((agreed, status, String::from_utf8(body).unwrap()))
        })
    }

    async fn handshake(
        &self,
        address: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = tokio::net::TcpStream::connect(address).await?;
        connector
            .connect("localhost".try_into().unwrap(), stream)
            .await
    }

    /// A connection of HTTP/2, over which the server may send this much of each response.
    pub(crate) async fn http2(&self, address: &str, window: u32) -> Http2 {
        let mut config = (*self.0).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = self.handshake(address, Arc::new(config)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::Builder::new(executor)
            .initial_stream_window_size(window)
            .handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// What client and server have negotiated.
struct Agreed {
    suite: rustls::CipherSuite,
    group: rustls::NamedGroup,
    /// The protocol that ALPN selected.
    protocol: Option<Vec<u8>>,
}

/// A runtime for a client of one thread.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_scrape_by_tls() {
    let (host, authority) = pki::host();
    host.write("web.yml", TLS);
    let exporter = start(&host);
    for version in BOTH {
        let client = Client::with(&authority.pem(), None, &[version]);
        let (code, answer) = client.get(&exporter.address(), "/metrics").unwrap();
        assert_eq!(code, 200);
        assert!(answer.contains("livepatch_supported 0"), "{answer}");
    }
    let stranger = Client::trusting(&Authority::new().pem());
    assert!(stranger.get(&exporter.address(), "/metrics").is_err());
    // Plain HTTP gets the remedy as its response, and nothing more.
    let plain = exporter.get("/metrics", &[]);
    assert_eq!(plain.status, 400);
    assert!(plain.body.contains("https://"), "{plain:?}");
    assert!(!plain.body.contains("livepatch"), "{plain:?}");
}

/// The server answers the first bytes; the client, which is still sending, receives the whole
/// response.
#[test]
fn plain_http_in_parts_is_answered_too() {
    let (host, _) = pki::host();
    host.write("web.yml", TLS);
    let exporter = start(&host);
    let mut stream = exporter.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let mut answer = vec![0];
    stream.read_exact(&mut answer).unwrap();
    let header = format!("X-Padding: {}\r\n", "x".repeat(4000));
    for _ in 0..20 {
        stream.write_all(header.as_bytes()).unwrap();
    }
    stream.write_all(b"\r\n").unwrap();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("https://"), "{answer}");
}

#[test]
fn versions_and_suites_are_those_of_the_file() {
    let (host, authority) = pki::host();
    host.write(
        "web.yml",
        format!("{TLS}  min_version: TLS13\n  cipher_suites: [TLS_CHACHA20_POLY1305_SHA256]\n  curve_preferences: [CurveP384]\n"),
    );
    let exporter = start(&host);
    let old = Client::with(&authority.pem(), None, &[&rustls::version::TLS12]);
    assert!(old.get(&exporter.address(), "/metrics").is_err());
    let agreed = Client::trusting(&authority.pem()).agreed(&exporter.address());
    let suite = rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    assert_eq!(agreed.suite, suite);
    assert_eq!(agreed.group, rustls::NamedGroup::secp384r1);
}

#[test]
fn the_list_of_suites_is_about_tls_1_2_as_in_go() {
    let (host, authority) = pki::host();
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    host.write("web.yml", format!("{TLS}  cipher_suites: [{suite}]\n"));
    let exporter = start(&host);
    let old = Client::with(&authority.pem(), None, &[&rustls::version::TLS12]);
    let agreed = old.agreed(&exporter.address());
    assert_eq!(format!("{:?}", agreed.suite), suite);
    Client::with(&authority.pem(), None, &[&rustls::version::TLS13]).agreed(&exporter.address());
}

/// A server that requests certificates from its clients, with one policy after the other.
struct Door {
    host: Host,
    exporter: Process,
    authority: Authority,
    own: Pair,
    strange: Pair,
}

impl Door {
    fn new() -> Self {
        let (host, authority) = pki::host();
        host.write_settled("web.yml", TLS);
        Self {
            exporter: start(&host),
            own: authority.client(),
            strange: Authority::new().client(),
            host,
            authority,
        }
    }

    /// Whether these clients are accepted: one without a certificate, one with a certificate of the
    /// authority, one with another authority's.
    #[track_caller]
    fn lets_in(&self, keys: &str, expected: [bool; 3]) {
        self.host.write_settled("web.yml", format!("{TLS}{keys}"));
        // In TLS 1.3 a refusal comes after the client's side of the handshake.
        for version in BOTH {
            let found = [None, Some(&self.own), Some(&self.strange)].map(|pair| {
                Client::with(&self.authority.pem(), pair, &[version])
                    .get(&self.exporter.address(), "/metrics")
                    .is_ok_and(|(code, _)| code == 200)
            });
            assert_eq!(found, expected, "{keys} {version:?}");
        }
    }
}

#[test]
fn every_kind_of_client_authentication() {
    let door = Door::new();
    let with_ca = |kind: &str| format!("  client_auth_type: {kind}\n  client_ca_file: ca.pem\n");
    door.lets_in("", [true, true, true]);
    door.lets_in("  client_auth_type: NoClientCert\n", [true, true, true]);
    door.lets_in(
        "  client_auth_type: RequestClientCert\n",
        [true, true, true],
    );
    door.lets_in(
        "  client_auth_type: RequireAnyClientCert\n",
        [false, true, true],
    );
    door.lets_in(&with_ca("VerifyClientCertIfGiven"), [true, true, false]);
    door.lets_in(&with_ca("RequireAndVerifyClientCert"), [false, true, false]);
    // Authorities that the policy does not use.
    door.lets_in(&with_ca("RequireAnyClientCert"), [false, true, true]);
}

#[test]
fn names_of_clients() {
    let door = Door::new();
    let keys = |name: &str| {
        format!(
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  \
             client_allowed_sans:\n    - someone.else\n    - {name}\n"
        )
    };
    for name in [
        "prometheus.example",
        "ops@example.org",
        "spiffe://example.org/prometheus",
        "192.0.2.7",
    ] {
        door.lets_in(&keys(name), [false, true, false]);
    }
    for name in ["example", "PROMETHEUS.EXAMPLE", "192.0.2.70"] {
        door.lets_in(&keys(name), [false, false, false]);
    }
    // Whatever the authority, the name must be in the certificate.
    let any = "  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: ";
    door.lets_in(&format!("{any}[prometheus.example]\n"), [false, true, true]);
    door.lets_in(&format!("{any}[]\n"), [false, false, false]);
}

#[test]
fn inline_pem() {
    let (host, authority) = pki::host();
    let inline = |name: &str| {
        let text = std::fs::read_to_string(host.path(name)).unwrap();
        text.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    host.write(
        "web.yml",
        format!(
            "tls_server_config:\n  cert: |\n{}  key: |\n{}",
            inline("server.pem"),
            inline("server.key")
        ),
    );
    let exporter = start(&host);
    Client::trusting(&authority.pem()).agreed(&exporter.address());
}

#[test]
fn http2_by_alpn() {
    let (host, authority) = pki::host();
    host.write("web.yml", TLS);
    let exporter = start(&host);
    let client = Client::trusting(&authority.pem());
    runtime().block_on(async {
        let mut sender = client.http2(&exporter.address(), 65_535).await;
        // The first brings the server to its limits; then many at once.
        let request = hyper::Request::get("https://localhost/-/healthy");
        let request = request.body(Empty::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        let mut answers = Vec::new();
        for _ in 0..20 {
            let request = hyper::Request::get("https://localhost/metrics");
            answers.push(sender.send_request(request.body(Empty::new()).unwrap()));
        }
        for answer in answers {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.version(), hyper::Version::HTTP_2);
            let body = answer.into_body().collect().await.unwrap();
            assert!(body.to_bytes().ends_with(b"\n"));
        }
    });
}

#[test]
fn http2_can_be_off() {
    let (host, authority) = pki::host();
    host.write(
        "web.yml",
        format!("{TLS}http_server_config:\n  http2: false\n"),
    );
    let exporter = start(&host);
    let client = Client::trusting(&authority.pem()).speaking(&["h2", "http/1.1"]);
    let agreed = client.agreed(&exporter.address());
    assert_eq!(agreed.protocol.as_deref(), Some(&b"http/1.1"[..]));
}

/// Each broken handshake is a line of a library's; only the first of each minute are logged.
#[test]
fn broken_handshakes_do_not_fill_the_log() {
    let (host, authority) = pki::host();
    host.write("web.yml", TLS);
    let mut exporter = start(&host);
    let since = Instant::now();
    for _ in 0..300 {
        let mut stream = exporter.connect();
        // A server's message, `server_hello_done` (RFC 5246, section 7.4.5).
        stream
            .write_all(b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00")
            .unwrap();
        // An alert, or a reset: it was refused.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    Client::trusting(&authority.pem()).agreed(&exporter.address());
    let minutes = 1 + usize::try_from(since.elapsed().as_secs() / 60).unwrap();
    let log = exporter.stop().err;
    let lines = log.lines().filter(|line| line.contains("ServerHelloDone"));
    let lines = lines.count();
    assert!((10..=10 * minutes).contains(&lines), "{lines} lines: {log}");
}
