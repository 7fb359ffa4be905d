//! The web server from a client's point of view: valid and invalid configuration files, TLS, users,
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
