//! Messages to systemd: ready, alive, stopping. Without systemd none are sent.
//!
//! The socket is connected at the start, which `sd_notify::notify` does for each message:
//! the sandbox refuses to open one later.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time;
use tracing::warn;

/// How long a message waits until systemd has read the earlier ones.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Manager {
    /// `None`: systemd does not want notifications, or cannot receive them.
    socket: Option<UnixDatagram>,
}

impl Manager {
    /// Connects to the socket that systemd names.
    pub(super) fn connect() -> Self {
        let connected = connect().unwrap_or_else(|error| {
            complain(&error);
            None
        });
        Self { socket: connected }
    }

    /// Reports that the service is ready.
    pub(super) fn ready(&self, status: &str) {
        self.notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Reports that the service is stopping.
    pub(super) fn stopping(&self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// Sends a keep-alive twice per watchdog interval, provided that `alive` returns. Runs
    /// forever; without a watchdog it never wakes.
    pub(super) async fn feed_watchdog<F: Future>(&self, alive: impl Fn() -> F) {
        let Some(interval) = sd_notify::watchdog_enabled() else {
            return std::future::pending().await;
        };
        let half = (interval / 2).max(Duration::from_millis(1));
        let mut ticks = time::interval(half);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match time::timeout(half, alive()).await {
                Ok(_) => self.notify(&[NotifyState::Watchdog]),
                Err(_) => warn!("the web server does not answer: systemd's watchdog is not fed"),
            }
        }
    }

    fn notify(&self, what: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        let message: String = what.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = socket.send(message.as_bytes()) {
            complain(&error);
        }
    }
}

/// A datagram socket to `NOTIFY_SOCKET`: a path, or an abstract name after `@` (sd_notify(3)).
fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(None);
    };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not read must not delay the monitor for long.
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Some(socket))
}

fn complain(error: &io::Error) {
    let socket = env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    warn!(
        "cannot notify systemd: {error}; nobody listens on NOTIFY_SOCKET={}: unset it, or let \
         systemd start the service",
        socket.display()
    );
}
