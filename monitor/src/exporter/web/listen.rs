//! The sockets to listen on: opened by the monitor, or passed by systemd.

use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use tracing::warn;

use super::config::Settings;

/// The bcrypt cost above which a check takes seconds.
const SLOW_COST: u32 = 14;

/// Opens every socket. Called before anything else starts.
///
/// # Errors
/// An address is in use or does not belong to this host, or systemd passed no socket.
pub(in crate::exporter) fn bind(
    addresses: &[SocketAddr],
    from_systemd: bool,
) -> anyhow::Result<Vec<TcpListener>> {
    let listeners = if from_systemd {
        handed_over()?
    } else {
        addresses
            .iter()
            .map(|address| {
                TcpListener::bind(address).with_context(|| {
                    format!("cannot listen on {address}: choose another with --web.listen-address")
                })
            })
            .collect::<anyhow::Result<_>>()?
    };
    for listener in &listeners {
        listener
            .set_nonblocking(true)
            .context("a listening socket")?;
    }
    Ok(listeners)
}

fn handed_over() -> anyhow::Result<Vec<TcpListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() == 0 {
        bail!(
            "--web.systemd-socket: systemd passed no socket; start the service through a socket \
            unit of the same name, or omit the flag"
        );
    }
    (0..sockets.len())
        .filter_map(|index| sockets.take_tcp_listener(index).transpose())
        .map(|socket| {
            socket.context(
                "--web.systemd-socket: a socket passed by systemd is not a TCP socket; give the \
                socket unit only ListenStream=ADDRESS:PORT",
            )
        })
        .collect()
}

/// Warns if anyone could read the metrics, or a password on the network, and about other unusual
/// but valid settings.
pub(super) fn warn_of_open_doors(listeners: &[TcpListener], settings: &Settings) {
    if settings.tls_idle {
        warn!("web configuration: tls_server_config names no cert_file: TLS is off");
    }
    if settings.users.cost() > SLOW_COST {
        warn!(
            cost = settings.users.cost(),
            "web configuration: each check of a password takes very long: use a cost of 10 to {SLOW_COST}"
        );
    }
    for address in listeners.iter().filter_map(|l| l.local_addr().ok()) {
        let (tls, users) = (settings.tls.is_some(), !settings.users.is_empty());
        if let Some(what) = open_door(address.ip(), tls, users) {
            warn!(%address, "{what} (--web.config.file)");
        }
    }
}

/// What an attacker on the network could do.
fn open_door(address: IpAddr, tls: bool, users: bool) -> Option<&'static str> {
    match (tls, users) {
        _ if address.to_canonical().is_loopback() => None,
        (true, _) => None,
        (false, false) => Some("open to everybody on the network: give TLS or users"),
        (false, true) => Some("passwords are sent over the network unencrypted: configure TLS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_beyond_loopback_is_worth_a_word() {
        let says = |address: &str, tls, users| {
            open_door(address.parse().unwrap(), tls, users)
                .map(|text| text.split(' ').next().unwrap())
        };
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(says(loopback, false, false), None, "{loopback}");
        }
        for open in [
            "0.0.0.0",
            "::",
            "192.0.2.1",
            "2001:db8::1",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(says(open, false, false), Some("open"), "{open}");
            assert_eq!(says(open, false, true), Some("passwords"), "{open}");
            assert_eq!(says(open, true, false), None, "{open}");
            assert_eq!(says(open, true, true), None, "{open}");
        }
    }
}
