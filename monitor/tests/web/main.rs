//! The web server as clients meet it: configuration files valid and invalid, TLS, users,
//! hostile clients, systemd. All on loopback.
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
