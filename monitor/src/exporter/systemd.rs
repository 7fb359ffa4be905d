//! Messages to systemd: ready, alive, stopping. Without systemd none are sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time;
use tracing::warn;

/// Reports that the service is ready.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that the service is stopping.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Sends a keep-alive twice per watchdog interval, provided that `alive` returns. Runs forever;
/// without a watchdog it never wakes.
pub(super) async fn feed_watchdog<F: Future>(alive: impl Fn() -> F) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let half = (interval / 2).max(Duration::from_millis(1));
    let mut ticks = time::interval(half);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match time::timeout(half, alive()).await {
            Ok(_) => notify(&[NotifyState::Watchdog]),
            Err(_) => warn!("the web server does not answer: systemd's watchdog is not fed"),
        }
    }
}

fn notify(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        warn!(
            "cannot notify systemd: {error}; nobody listens on NOTIFY_SOCKET={}: unset it, or \
             let systemd start the service",
            socket.display()
        );
    }
}
