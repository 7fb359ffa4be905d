//! The HTTP side as strangers meet it: configuration files good and bad, TLS, users,
//! clients that mean no good, systemd. All on loopback.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod exporter;
mod files;
mod pki;
mod reload;
mod storm;
mod systemd;
mod table;
mod tls;
mod users;
