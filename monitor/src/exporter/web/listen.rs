//! The sockets to listen on: of our own, or handed over by systemd.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use tracing::warn;

use super::config::Settings;

/// Takes every socket, before anything else is begun.
///
/// # Errors
/// An address is taken or not this host's; systemd handed nothing over.
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
            "--web.systemd-socket: systemd has handed no socket over; start the service by a \
             socket unit of the same name, or leave the flag out"
        );
    }
    (0..sockets.len())
        .filter_map(|index| sockets.take_tcp_listener(index).transpose())
        .map(|socket| {
            socket.context(
                "--web.systemd-socket: a socket that systemd has handed over is no TCP socket; \
                 give the socket unit ListenStream=ADDRESS:PORT only",
            )
        })
        .collect()
}

/// Says where anybody could read the metrics, or a password on its way.
pub(super) fn warn_of_open_doors(listeners: &[TcpListener], settings: &Settings) {
    if settings.tls_idle {
        warn!("web configuration: tls_server_config names no cert_file: TLS is off");
    }
    if settings.tls.is_some() {
        return;
    }
    for address in listeners.iter().filter_map(|l| l.local_addr().ok()) {
        if address.ip().to_canonical().is_loopback() {
            continue;
        }
        if settings.users.is_empty() {
            warn!(%address, "open to everybody on the network: give TLS or users by --web.config.file");
        } else {
            warn!(%address, "passwords pass over the network in clear: give TLS by --web.config.file");
        }
    }
}
