//! Web configurations, and the outcome of each.

/// What promtool and this program answer.
pub(super) enum Verdict {
    /// Both programs accept it.
    Good,
    /// Both reject it; this program's message has these words.
    Bad(&'static [&'static str]),
    /// Promtool accepts it, although it cannot work as written or is not safe.
    OnlyHere(&'static [&'static str]),
    /// Prometheus 2.42 does not know the key yet, later ones do.
    Newer,
}
use Verdict::{Bad, Good, Newer, OnlyHere};

pub(super) const HASH: &str = "$2y$04$RFpXnaQjxwFxUhqYd3HHO.8LgKaoIu3tGKHWI7IBRLHmbiPawlzi2";

/// A name, the file, the verdict. TLS stands for a valid pair of cert_file and key_file in three
/// lines, HASH for a valid hash.
pub(super) const TABLE: &[(&str, &str, Verdict)] = &[
    ("empty", "", Good),
    ("a comment", "# nothing\n", Good),
    (
        "sections without content",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
        Good,
    ),
    ("TLS", "TLS", Good),
    (
        "every key",
        "TLS  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  min_version: TLS12\n  max_version: TLS13\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]\n  prefer_server_cipher_suites: false\n  curve_preferences: [X25519, CurveP256, CurveP384]\nhttp_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=1\n    X-Content-Type-Options: nosniff\n    X-Frame-Options: sameorigin\n    X-XSS-Protection: '0'\n    Content-Security-Policy: default-src 'none'\nbasic_auth_users:\n  scraper: HASH\n",
        Good,
    ),
    (
        "users only",
        "basic_auth_users:\n  scraper: HASH\n  'with space': HASH\n",
        Good,
    ),
    (
        "NoClientCert",
        "TLS  client_auth_type: NoClientCert\n",
        Good,
    ),
    (
        "RequestClientCert",
        "TLS  client_auth_type: RequestClientCert\n",
        Good,
    ),
    (
        "RequireAnyClientCert",
        "TLS  client_auth_type: RequireAnyClientCert\n",
        Good,
    ),
    (
        "RequireClientCert, its older name",
        "TLS  client_auth_type: RequireClientCert\n",
        Good,
    ),
    (
        "VerifyClientCertIfGiven",
        "TLS  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem\n",
        Good,
    ),
    (
        "a version alone",
        "tls_server_config:\n  min_version: TLS13\n",
        Good,
    ),
    (
        "yes is a boolean",
        "http_server_config:\n  http2: yes\n",
        Good,
    ),
    (
        "lists may be empty",
        "TLS  cipher_suites: []\n  curve_preferences: []\n",
        Good,
    ),
    (
        "suites of TLS 1.3",
        "TLS  cipher_suites: [TLS_AES_256_GCM_SHA384]\n",
        Good,
    ),
    (
        "an empty header",
        "http_server_config:\n  headers:\n    Content-Security-Policy: ''\n",
        Good,
    ),
    (
        "an alias",
        "TLS  client_ca_file: &ca ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n",
        Good,
    ),
    (
        "an unknown section",
        "tls_config:\n  cert_file: x\n",
        Bad(&[":1: tls_config:", "unknown field", "tls_server_config"]),
    ),
    (
        "an unknown key of TLS",
        "TLS  certfile: x\n",
        Bad(&[":4: certfile:", "unknown field", "cert_file"]),
    ),
    (
        "an unknown key of HTTP",
        "http_server_config:\n  http3: true\n",
        Bad(&[":2: http3:", "http2"]),
    ),
    (
        "an unknown header",
        "http_server_config:\n  headers:\n    Server: x\n",
        Bad(&[":3: http_server_config.headers.Server:", "X-Frame-Options"]),
    ),
    (
        "a header in small letters",
        "http_server_config:\n  headers:\n    x-frame-options: deny\n",
        Bad(&[":3:", "x-frame-options", "X-Frame-Options"]),
    ),
    (
        "a header's value",
        "http_server_config:\n  headers:\n    X-Frame-Options: DENY\n",
        Bad(&[":3:", "X-Frame-Options", "`DENY`", "sameorigin"]),
    ),
    (
        "a header's empty value",
        "http_server_config:\n  headers:\n    X-Content-Type-Options:\n",
        Bad(&[":3:", "X-Content-Type-Options", "nosniff"]),
    ),
    (
        "a key twice",
        "TLS  key_file: server.key\n",
        Bad(&[":4: key_file:", "duplicate"]),
    ),
    (
        "a boolean in quotes",
        "http_server_config:\n  http2: 'true'\n",
        Bad(&[":2: http_server_config.http2:", "without quotes"]),
    ),
    (
        "no boolean",
        "TLS  prefer_server_cipher_suites: perhaps\n",
        Bad(&[":4: prefer_server_cipher_suites:", "boolean"]),
    ),
    (
        "a list where a text belongs",
        "tls_server_config:\n  cert_file: [server.pem]\n",
        Bad(&[":2: cert_file:", "string"]),
    ),
    (
        "a text where a list belongs",
        "TLS  cipher_suites: TLS_AES_256_GCM_SHA384\n",
        Bad(&[":4: cipher_suites:", "sequence"]),
    ),
    (
        "a text where a section belongs",
        "tls_server_config: on\n",
        Bad(&[":1: tls_server_config:", "mapping"]),
    ),
    (
        "a list of all",
        "- tls_server_config\n",
        Bad(&[":1:", "mapping"]),
    ),
    (
        "a tab",
        "tls_server_config:\n\tcert_file: x\n",
        Bad(&[":2:", "tab"]),
    ),
    ("no YAML", "tls_server_config: {\n", Bad(&["web.yml:"])),
    (
        "no certificate",
        "tls_server_config:\n  key_file: server.key\n",
        Bad(&[":1: tls_server_config:", "`cert_file`"]),
    ),
    (
        "no key",
        "tls_server_config:\n  cert_file: server.pem\n",
        Bad(&[":1: tls_server_config:", "`key_file`"]),
    ),
    (
        "an empty certificate",
        "tls_server_config:\n  cert_file: ''\n  key_file: server.key\n",
        Bad(&[":1: tls_server_config:", "`cert_file`"]),
    ),
    (
        "an empty key",
        "tls_server_config:\n  cert_file: server.pem\n  key_file: ''\n",
        Bad(&[":1: tls_server_config:", "`key_file`"]),
    ),
    (
        "client certificates alone",
        "tls_server_config:\n  client_auth_type: RequireAnyClientCert\n",
        Bad(&[":1: tls_server_config:", "`cert_file`"]),
    ),
    (
        "a certificate that is not there",
        "tls_server_config:\n  cert_file: none.pem\n  key_file: server.key\n",
        Bad(&[
            ":2: tls_server_config.cert_file:",
            "none.pem",
            "No such file",
        ]),
    ),
    (
        "a key that is not there",
        "tls_server_config:\n  cert_file: server.pem\n  key_file: none.key\n",
        Bad(&[
            ":3: tls_server_config.key_file:",
            "none.key",
            "No such file",
        ]),
    ),
    (
        "authorities that are not there",
        "TLS  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: none.pem\n",
        Bad(&[
            ":5: tls_server_config.client_ca_file:",
            "none.pem",
            "No such file",
        ]),
    ),
    (
        "a directory as certificate",
        "tls_server_config:\n  cert_file: folder\n  key_file: server.key\n",
        Bad(&[
            ":2: tls_server_config.cert_file:",
            "folder",
            "not a regular file",
        ]),
    ),
    (
        "a directory as key",
        "tls_server_config:\n  cert_file: server.pem\n  key_file: folder\n",
        Bad(&[":3: tls_server_config.key_file:", "not a regular file"]),
    ),
    (
        "an empty file as certificate",
        "tls_server_config:\n  cert_file: empty\n  key_file: server.key\n",
        Bad(&[":2: tls_server_config.cert_file:", "it is empty"]),
    ),
    (
        "an empty file as key",
        "tls_server_config:\n  cert_file: server.pem\n  key_file: empty\n",
        Bad(&[":3: tls_server_config.key_file:", "it is empty"]),
    ),
    (
        "certificate and key exchanged",
        "tls_server_config:\n  cert_file: server.key\n  key_file: server.pem\n",
        Bad(&[":2: tls_server_config.cert_file:", "swapped"]),
    ),
    (
        "another's key",
        "tls_server_config:\n  cert_file: server.pem\n  key_file: other.key\n",
        Bad(&[
            ":3: tls_server_config.key_file:",
            "other.key",
            "does not belong",
        ]),
    ),
    (
        "damaged certificate",
        "tls_server_config:\n  cert_file: damaged.pem\n  key_file: server.key\n",
        Bad(&[":2: tls_server_config.cert_file:", "damaged.pem"]),
    ),
    (
        "an encrypted key",
        "tls_server_config:\n  cert_file: server.pem\n  key_file: encrypted.key\n",
        Bad(&[
            ":3: tls_server_config.key_file:",
            "encrypted",
            "openssl pkey",
        ]),
    ),
    (
        "an unknown client_auth_type",
        "TLS  client_auth_type: Required\n",
        Bad(&[
            ":4: tls_server_config.client_auth_type:",
            "`Required`",
            "RequireAndVerifyClientCert",
        ]),
    ),
    (
        "authorities without a policy",
        "TLS  client_ca_file: ca.pem\n",
        Bad(&[":4: tls_server_config.client_ca_file:", "client_auth_type"]),
    ),
    (
        "an unknown version",
        "TLS  min_version: TLS14\n",
        Bad(&[":4: tls_server_config.min_version:", "`TLS14`", "TLS13"]),
    ),
    (
        "SSL",
        "TLS  max_version: SSL30\n",
        Bad(&[":4: tls_server_config.max_version:", "`SSL30`"]),
    ),
    (
        "an unknown suite",
        "TLS  cipher_suites: [TLS_NULL]\n",
        Bad(&[":4: tls_server_config.cipher_suites:", "`TLS_NULL`"]),
    ),
    (
        "an unknown curve",
        "TLS  curve_preferences:\n  - X25519\n  - CurveP999\n",
        Bad(&[
            ":6: tls_server_config.curve_preferences:",
            "`CurveP999`",
            "CurveP256",
        ]),
    ),
    (
        "a password in clear",
        "basic_auth_users:\n  scraper: secret\n",
        Bad(&[":2: basic_auth_users.scraper:", "bcrypt", "htpasswd"]),
    ),
    (
        "no password",
        "basic_auth_users:\n  scraper:\n",
        Bad(&[":2: basic_auth_users.scraper:", "empty"]),
    ),
    (
        "another kind of hash",
        "basic_auth_users:\n  scraper: $apr1$abcdefgh$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZVcEd00UAVLDeSi\n",
        Bad(&[":2: basic_auth_users.scraper:", "$2y$"]),
    ),
    (
        "a cost too small",
        "basic_auth_users:\n  scraper: $2y$03$RFpXnaQjxwFxUhqYd3HHO.8LgKaoIu3tGKHWI7IBRLHmbiPawlzi2\n",
        Bad(&[":2: basic_auth_users.scraper:", "cost"]),
    ),
    (
        "a hash cut short",
        "basic_auth_users:\n  scraper: $2y$04$RFpXnaQjxwFxUhqYd3HHO.8LgKaoIu3tGKHWI7IBRLHmbiPawl\n",
        Bad(&[":2: basic_auth_users.scraper:", "60"]),
    ),
    (
        "TLS 1.0",
        "TLS  min_version: TLS10\n",
        OnlyHere(&[
            ":4: tls_server_config.min_version:",
            "`TLS10`",
            "not supported",
            "TLS12",
        ]),
    ),
    (
        "TLS 1.1",
        "TLS  max_version: TLS11\n",
        OnlyHere(&[
            ":4: tls_server_config.max_version:",
            "`TLS11`",
            "not supported",
        ]),
    ),
    (
        "an old suite",
        "TLS  cipher_suites:\n    - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\n",
        OnlyHere(&[
            ":5: tls_server_config.cipher_suites:",
            "CBC_SHA` is not supported",
            "TLS_AES_128_GCM_SHA256",
        ]),
    ),
    (
        "a curve that ring has not",
        "TLS  curve_preferences: [CurveP521]\n",
        OnlyHere(&[
            ":4: tls_server_config.curve_preferences:",
            "`CurveP521`",
            "not supported",
        ]),
    ),
    (
        "no version left",
        "TLS  min_version: TLS13\n  max_version: TLS12\n",
        OnlyHere(&[":5: tls_server_config.max_version:", "min_version"]),
    ),
    (
        "no suite left",
        "TLS  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
        OnlyHere(&[":5: tls_server_config.cipher_suites:", "TLS 1.2"]),
    ),
    (
        "anybody's certificate",
        "TLS  client_auth_type: RequireAndVerifyClientCert\n",
        OnlyHere(&[":4: tls_server_config.client_auth_type:", "client_ca_file"]),
    ),
    (
        "authorities that are none",
        "TLS  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: server.key\n",
        OnlyHere(&[
            ":5: tls_server_config.client_ca_file:",
            "no PEM certificate",
        ]),
    ),
    (
        "a second document",
        "TLS---\nmore: 1\n",
        OnlyHere(&[":5: more:", "multiple YAML documents"]),
    ),
    (
        "a hash that nothing matches",
        "basic_auth_users:\n  scraper: $2y$04$RFpXnaQjxwFxUhqYd3HHO.8LgKaoIu3tGKHWI7IBRLHmbiPawlz!!\n",
        OnlyHere(&[":2: basic_auth_users.scraper:", "base64"]),
    ),
    (
        "bcrypt's broken version",
        "basic_auth_users:\n  scraper: $2x$04$RFpXnaQjxwFxUhqYd3HHO.8LgKaoIu3tGKHWI7IBRLHmbiPawlzi2\n",
        OnlyHere(&[":2: basic_auth_users.scraper:", "$2y$"]),
    ),
    (
        "a user that cannot be sent",
        "basic_auth_users:\n  'a:b': HASH\n",
        OnlyHere(&[":2: basic_auth_users.a:b:", "colon"]),
    ),
    (
        "client_allowed_sans",
        "TLS  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [prometheus.example]\n",
        Newer,
    ),
    (
        "inline PEM",
        "tls_server_config:\n  cert: |\nCERT  key: |\nKEY",
        Newer,
    ),
    (
        "rate_limit",
        "rate_limit:\n  interval: 100ms\n  burst: 20\n",
        Newer,
    ),
];

/// Wrong in keys that promtool 2.42 does not know: only this program is asked.
pub(super) const NEWER_AND_WRONG: &[(&str, &str, &[&str])] = &[
    (
        "names without certificates",
        "TLS  client_allowed_sans: [a]\n",
        &[
            ":4: tls_server_config.client_allowed_sans:",
            "client_auth_type",
        ],
    ),
    (
        "names of certificates that may be left out",
        "TLS  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem\n  client_allowed_sans: [a]\n",
        &[":6: tls_server_config.client_allowed_sans:"],
    ),
    (
        "file and inline",
        "TLS  cert: x\n",
        &[":2: tls_server_config.cert_file:", "`cert`"],
    ),
    (
        "inline that is no PEM",
        "tls_server_config:\n  cert: x\n  key: y\n",
        &[":2: tls_server_config.cert:", "no PEM certificate"],
    ),
    (
        "no interval",
        "rate_limit:\n  interval: often\n  burst: 1\n",
        &[":2: rate_limit.interval:", "100ms"],
    ),
    (
        "no burst",
        "rate_limit:\n  interval: 1s\n",
        &[":2: rate_limit.interval:", "burst"],
    ),
    (
        "a burst that is not a number",
        "rate_limit:\n  interval: 1s\n  burst: -1\n",
        &[":3: burst:"],
    ),
];
