//! Receives Alertmanager's notifications in place of a pager.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde::Deserialize;

use super::wait_for;
use crate::host::server::Server;

/// The longest accepted notification, in bytes; usually they have a few KiB.
const LONGEST: usize = 4 << 20;

/// One notification: a group of alerts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notification {
    /// The name of the receiver.
    pub(crate) receiver: String,
    /// The labels by which the alerts are grouped.
    pub(crate) group_labels: BTreeMap<String, String>,
    pub(crate) alerts: Vec<Alert>,
}

/// An alert of a notification.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Alert {
    /// Whether it fires: `firing` or `resolved`.
    pub(crate) status: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Alert {
    /// The value of a label; empty if it is missing.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The value of an annotation; empty if it is missing.
    pub(crate) fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Webhook {
    server: Server,
    received: Received,
}

type Received = Arc<Mutex<Vec<Notification>>>;

impl Webhook {
    /// Starts to listen on a free port of 127.0.0.1.
    pub(crate) fn start() -> Result<Self> {
        let received = Received::default();
        let router = Router::new()
            .route("/", post(receive))
            .layer(DefaultBodyLimit::max(LONGEST))
            .with_state(received.clone());
        let server = Server::start("webhook", 0, router)?;
        Ok(Self { server, received })
    }

    /// URL that Alertmanager sends notifications to.
    pub(crate) fn url(&self) -> String {
        format!("{}/", self.server.url())
    }

    /// The notifications received so far.
    pub(crate) fn received(&self) -> Vec<Notification> {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for a firing alert with this name for which `matches` is true.
    pub(crate) fn wait_for(
        &self,
        name: &str,
        timeout: Duration,
        matches: impl Fn(&Alert) -> bool,
    ) -> Result<Alert> {
        wait_for(&format!("the alert {name}"), timeout, || {
            let notifications = self.received();
            let alerts = || notifications.iter().flat_map(|one| &one.alerts);
            let wanted = |alert: &&Alert| {
                alert.status == "firing" && alert.label("alertname") == name && matches(alert)
            };
            let Some(alert) = alerts().find(wanted) else {
                let names: Vec<&str> = alerts().map(|alert| alert.label("alertname")).collect();
                bail!("received are {}", names.join(", "));
            };
            Ok(alert.clone())
        })
    }
}

async fn receive(State(received): State<Received>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(notification) => {
            let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
            received.push(notification);
            StatusCode::OK.into_response()
        }
        Err(error) => {
            let text = format!(
                "not a notification: {error}: {}",
                String::from_utf8_lossy(&body)
            );
            eprintln!("{text}");
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_received() {
        let webhook = Webhook::start().unwrap();
        let body = r#"{"receiver":"r","groupLabels":{"patch":"a"},"alerts":[
            {"status":"firing","labels":{"alertname":"X"},"annotations":{"summary":"s"}}]}"#;
        let config = ureq::Agent::config_builder().proxy(None);
        let agent = ureq::Agent::from(config.build());
        let send = |body: &str| agent.post(webhook.url()).send(body);
        assert_eq!(send(body).unwrap().status(), 200);
        assert!(matches!(send("{}"), Err(ureq::Error::StatusCode(400))));
        let alert = webhook
            .wait_for("X", Duration::from_secs(5), |_| true)
            .unwrap();
        assert_eq!(alert.annotation("summary"), "s");
        let error = webhook.wait_for("Y", Duration::ZERO, |_| true).unwrap_err();
        assert!(format!("{error:#}").contains("received are X"), "{error:#}");
    }
}
