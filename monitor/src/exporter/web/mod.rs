//! The HTTP server: metrics, status page and health check.

mod client_certs;
pub mod config;
mod config_error;
mod connections;
mod handlers;
mod lingering;
mod listen;
mod password_queue;
mod rate;
mod reload;
mod server;
mod tls;
mod users;

use std::{net::TcpListener, sync::Arc, thread};

use anyhow::Context as _;
use axum::{
    Router,
    extract::RawQuery,
    http::{HeaderName, StatusCode, header},
    routing::get,
};
use tokio::sync::{mpsc, oneshot, watch};

use self::handlers::{Shared, Web};
pub(super) use self::listen::bind;
pub use self::{reload::Source, users::Credentials};
use super::{Exporter, resources, status_page};
use crate::metrics;

/// The paths and their handlers.
fn routes(exporter: &Arc<Exporter>) -> Router {
    let scrapes = Shared::new({
        let exporter = exporter.clone();
        move || exporter.scrape()
    });
    let page = |stay: bool| {
        let exporter = exporter.clone();
        Shared::new(move || status_page::render(&exporter.status(stay)))
    };
    let (fresh, still) = (page(false), page(true));
    let probed = exporter.clone();
    Router::new()
        .route(
            "/",
            get(async move |RawQuery(query): RawQuery| {
                let stay = query.as_deref() == Some(status_page::STAY);
                let page = if stay { &still } else { &fresh };
                page.answer(PAGE).await
            }),
        )
        .route("/-/healthy", get(async || "ok\n"))
        .route("/-/ready", get(async move || ready(probed.clone()).await))
        .route(
            exporter.telemetry_path(),
            get(async move || scrapes.answer(EXPOSITION).await),
        )
}

/// Whether scrapes can report what is loaded.
async fn ready(exporter: Arc<Exporter>) -> (StatusCode, String) {
    match tokio::task::spawn_blocking(move || exporter.ready()).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(problem)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {problem}\n"),
        ),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {error}\n"),
        ),
    }
}

const EXPOSITION: &[(HeaderName, &str)] = &[(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];

/// Headers of the status page: not cached, not framed or sniffed, and no referrer sent to
/// other sites.
const PAGE: &[(HeaderName, &str)] = &[
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        status_page::CONTENT_SECURITY_POLICY,
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The server, on a separate thread so that load on it never delays kernel events.
#[derive(Debug)]
pub(super) struct Server {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
    calls: mpsc::Sender<oneshot::Sender<()>>,
}

/// Checks whether the server's thread is alive.
#[derive(Debug)]
pub(super) struct Pulse(mpsc::Sender<oneshot::Sender<()>>);

impl Pulse {
    /// Waits until the server responds; never returns if it does not.
    pub(super) async fn felt(&self) {
        let (reply, answer) = oneshot::channel();
        if self.0.send(reply).await.is_err() || answer.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Server {
    /// Starts the server.
    ///
    /// # Errors
    /// The system provides no thread or no random numbers.
    pub(super) fn start(
        listeners: Vec<TcpListener>,
        source: Source,
        exporter: Arc<Exporter>,
    ) -> anyhow::Result<Self> {
        listen::warn_of_open_doors(&listeners, &source.current());
        let web = Arc::new(Web::new(source, routes(&exporter))?);
        let runtime = resources::runtime(resources::WEB_THREADS)?;
        let (stop, stopping) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let (calls, mut called) = mpsc::channel::<oneshot::Sender<()>>(1);
        thread::Builder::new()
            .name("web".to_owned())
            .spawn(move || {
                let result = runtime.block_on(async {
                    // If that fails, this thread ends, and the process with it.
                    resources::start_threads(resources::WEB_THREADS).await?;
                    tokio::spawn(async move {
                        while let Some(reply) = called.recv().await {
                            // An error means that the caller no longer waits.
                            let _ = reply.send(());
                        }
                    });
                    server::serve(listeners, web, stopping).await
                });
                // Requests that are still running are not waited for: their time is over.
                runtime.shutdown_background();
                let _ = end.send(result);
            })
            .context("cannot start the web server's thread")?;
        Ok(Self { stop, ended, calls })
    }

    /// Returns when the server has ended, which happens only if something is wrong.
    ///
    /// # Errors
    /// The reason why it ended.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        match (&mut self.ended).await {
            Ok(result) => result,
            Err(_) => anyhow::bail!("the web server's thread has ended"),
        }
    }

    /// A handle with which to check that the server is alive.
    pub(super) fn pulse(&self) -> Pulse {
        Pulse(self.calls.clone())
    }

    /// Finishes the requests that have arrived, and stops.
    ///
    /// # Errors
    /// The server ended with an error.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.ended().await
    }
}
