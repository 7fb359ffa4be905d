//! Serves all hosts on one loopback port: each host is a path.
//!
//! A real host that is down refuses the connection or does not answer. A path cannot do that, so it
//! answers 503, which also gives `up` 0.

use std::sync::Arc;

use anyhow::Result;
use axum::{
    Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    hosts::{Hosts, host_of},
    scenario::Event,
};
use crate::host::server::Server;

/// The default duration of a transition, in seconds.
const TRANSITION: f64 = 2.0;

const HELP: &str = "\
GET  /hosts                  what each host is at present, as JSON
GET  /host/NAME/metrics      what its exporter says; 503 while it is down
POST /host/NAME/patch        load the patch; ?seconds=N is how long its transition takes,
                             ?seconds=inf that it is stuck until `finish`
POST /host/NAME/finish       end the transition
POST /host/NAME/crash        the machine dies, until `reboot`
POST /host/NAME/reboot       it boots, without the patch
";

/// The thread's name, by which its CPU time is found.
pub(super) const THREAD: &str = "hosts";

/// Serves the hosts on a port of 127.0.0.1; 0 means any free port.
pub(super) fn start(hosts: Arc<Hosts>, port: u16) -> Result<Server> {
    Server::start(THREAD, port, router(hosts))
}

fn router(hosts: Arc<Hosts>) -> Router {
    Router::new()
        .route("/", get(|| async { HELP }))
        .route("/hosts", get(list))
        .route("/host/{name}/metrics", get(scrape))
        .route("/host/{name}/{event}", post(happen))
        .with_state(hosts)
}

async fn scrape(State(hosts): State<Arc<Hosts>>, Path(name): Path<String>) -> Response {
    let Some(host) = host_of(&name).filter(|host| *host < hosts.len()) else {
        return no_such_host(&name);
    };
    match hosts.scrape(host) {
        Ok(Some(text)) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the host is down\n").into_response(),
        Err(error) => failed(&error),
    }
}

async fn list(State(hosts): State<Arc<Hosts>>) -> Response {
    let text = hosts
        .accounts()
        .and_then(|accounts| Ok(serde_json::to_string(&accounts)?));
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
struct Wishes {
    seconds: Option<f64>,
}

async fn happen(
    State(hosts): State<Arc<Hosts>>,
    Path((name, event)): Path<(String, String)>,
    Query(wishes): Query<Wishes>,
) -> Response {
    let Some(host) = host_of(&name).filter(|host| *host < hosts.len()) else {
        return no_such_host(&name);
    };
    let takes = wishes.seconds.unwrap_or(TRANSITION);
    if takes.is_nan() || takes < 0.0 {
        let text = format!("seconds={takes} is not a length of time\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let event = match event.as_str() {
        "patch" => Event::Patch { takes },
        "finish" => Event::Finish,
        "crash" => Event::Crash,
        "reboot" => Event::Reboot,
        other => {
            let text = format!("`{other}` is not an event of a host\n\n{HELP}");
            return (StatusCode::NOT_FOUND, text).into_response();
        }
    };
    match hosts.happen(host, event) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => (StatusCode::CONFLICT, format!("{refusal}\n")).into_response(),
    }
}

fn no_such_host(name: &str) -> Response {
    let text = format!("there is no host `{name}`; /hosts lists them\n");
    (StatusCode::NOT_FOUND, text).into_response()
}

fn failed(error: &anyhow::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response()
}

#[cfg(test)]
mod tests;
