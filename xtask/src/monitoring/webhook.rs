//! Receives Alertmanager's notifications in place of a pager.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::wait_for;

/// The longest accepted notification, in bytes; usually they have a few KiB.
const LONGEST: usize = 4 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

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

/// Listens until the program ends.
#[derive(Debug)]
pub(crate) struct Webhook {
    port: u16,
    received: Arc<Mutex<Vec<Notification>>>,
}

impl Webhook {
    /// Starts to listen on a free port of 127.0.0.1.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let port = listener.local_addr().context("the port's number")?.port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let store = received.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                match receive(&stream) {
                    Ok(notification) => {
                        store
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(notification);
                    }
                    Err(error) => eprintln!("a notification cannot be read: {error:#}"),
                }
            }
        });
        Ok(Self { port, received })
    }

    /// URL that Alertmanager sends notifications to.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
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

fn receive(stream: &TcpStream) -> Result<Notification> {
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set the timeout")?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader
            .read_line(&mut line)
            .context("its head is incomplete")?
            == 0
        {
            bail!("its head is incomplete");
        }
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value
                .trim()
                .parse()
                .context("its content-length is not a number")?;
        }
    }
    if length > LONGEST {
        bail!("it is {length} bytes long");
    }
    let mut body = vec![0; length];
    reader
        .read_exact(&mut body)
        .context("its body breaks off")?;
    let notification = serde_json::from_slice(&body)
        .with_context(|| format!("not a notification: {}", String::from_utf8_lossy(&body)))?;
    let mut stream = stream;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .context("cannot answer")?;
    Ok(notification)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_received() {
        let webhook = Webhook::start().unwrap();
        let body = r#"{"receiver":"r","groupLabels":{"patch":"a"},"alerts":[
            {"status":"firing","labels":{"alertname":"X"},"annotations":{"summary":"s"}}]}"#;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, webhook.port)).unwrap();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let alert = webhook
            .wait_for("X", Duration::from_secs(5), |_| true)
            .unwrap();
        assert_eq!(alert.annotation("summary"), "s");
        let error = webhook.wait_for("Y", Duration::ZERO, |_| true).unwrap_err();
        assert!(format!("{error:#}").contains("received are X"), "{error:#}");
    }
}
