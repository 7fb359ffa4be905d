//! The HTTP side: the exposition, the status page, a health answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tracing::error;

use super::{Exporter, page};
use crate::metrics;

/// Binds every address, before anything else is begun.
///
/// # Errors
/// An address is taken or not this host's.
pub(super) fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<std::net::TcpListener>> {
    addresses
        .iter()
        .map(|address| {
            let listener = std::net::TcpListener::bind(address).with_context(|| {
                format!("cannot listen on {address}: choose another with --web.listen-address")
            })?;
            listener
                .set_nonblocking(true)
                .with_context(|| format!("{address}"))?;
            Ok(listener)
        })
        .collect()
}

/// Answers until the process stops.
pub(super) async fn serve(
    listeners: Vec<std::net::TcpListener>,
    exporter: Arc<Exporter>,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/", get(status))
        .route("/-/healthy", get(async || "ok\n"))
        .route(exporter.telemetry_path(), get(scrape))
        .with_state(exporter);
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener).context("listening")?;
        let router = router.clone();
        servers.spawn(async move { axum::serve(listener, router).await });
    }
    match servers.join_next().await {
        Some(result) => result.context("web server")?.context("web server"),
        // No address: kernel events and the log are all that is wanted.
        None => {
            tokio::time::sleep(Duration::MAX).await;
            Ok(())
        }
    }
}

async fn scrape(State(exporter): State<Arc<Exporter>>) -> Response {
    // Reads of the kernel must not hold up its events.
    match tokio::task::spawn_blocking(move || exporter.scrape()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(&format!("{error:#}")),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(reason: &str) -> Response {
    error!("request failed: {reason}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response()
}

async fn status(State(exporter): State<Arc<Exporter>>, RawQuery(query): RawQuery) -> Response {
    let stay = query.as_deref() == Some(page::STAY);
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            page::CONTENT_SECURITY_POLICY,
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    match tokio::task::spawn_blocking(move || page::render(&exporter.status(stay))).await {
        Ok(html) => (headers, Html(html)).into_response(),
        Err(error) => failed(&error.to_string()),
    }
}
