//! From a request to its answer: who may ask, how often, and the scrape itself.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::service::TowerToHyperService;
use tokio::task::spawn_blocking;
use tracing::error;

use super::{
    config::Settings,
    connections::{Answering, Connection},
    rate::Bucket,
    reload::Source,
    users::{Credentials, Remembered},
};
use crate::{
    exporter::{Exporter, lock},
    metrics,
};

/// Passwords that may wait to be checked; each takes a good part of a second.
const MOST_PASSWORDS: usize = 32;

/// All that requests have in common.
#[derive(Debug)]
pub(super) struct Web {
    pub(super) source: Source,
    routes: Router,
    bucket: Mutex<Bucket>,
    remembered: Arc<Remembered>,
    /// Passwords are checked one at a time: it takes a whole processor.
    checking: Arc<tokio::sync::Mutex<()>>,
    waiting: AtomicUsize,
}

impl Web {
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn new(source: Source, routes: Router) -> anyhow::Result<Self> {
        Ok(Self {
            source,
            routes,
            bucket: Mutex::default(),
            remembered: Arc::new(
                Remembered::new().map_err(|_| anyhow::anyhow!("no random numbers for a key"))?,
            ),
            checking: Arc::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// The answer to a request. Its bytes hold the connection's mark until the
    /// last of them is sent.
    pub(super) async fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let mut answering = connection.answering(Instant::now());
        let settings = self.source.current();
        let mut response = match self.admit(&settings, &request).await {
            Ok(()) => match TowerToHyperService::new(self.routes.clone())
                .call(request)
                .await
            {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(refusal) => refusal,
        };
        for (name, value) in &settings.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        let (parts, body) = response.into_parts();
        // Every answer is whole already: this copies nothing and waits for nothing.
        let bytes = axum::body::to_bytes(body, usize::MAX)
            .await
            .unwrap_or_default();
        answering.ready(Instant::now(), bytes.len());
        let held = Held {
            bytes,
            _answering: answering,
        };
        Response::from_parts(parts, Full::new(Bytes::from_owner(held)))
    }

    async fn admit(
        &self,
        settings: &Arc<Settings>,
        request: &Request<Incoming>,
    ) -> Result<(), Response<Body>> {
        if let Some(rate) = settings.rate
            && !lock(&self.bucket).take(rate, Instant::now())
        {
            return Err(StatusCode::TOO_MANY_REQUESTS.into_response());
        }
        if settings.users.is_empty() {
            return Ok(());
        }
        let credentials = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| Credentials::parse(value.as_bytes()));
        match credentials {
            Some(credentials) if self.remembered.holds(&settings.users, &credentials) => Ok(()),
            Some(credentials) => self.check(settings.clone(), credentials).await,
            None => Err(unauthorized()),
        }
    }

    /// Checks a password that was not seen before.
    async fn check(
        &self,
        settings: Arc<Settings>,
        credentials: Credentials,
    ) -> Result<(), Response<Body>> {
        let waiting = Counted::new(&self.waiting);
        if waiting.number > MOST_PASSWORDS {
            return Err((
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, "5")],
                "too many passwords wait to be checked\n",
            )
                .into_response());
        }
        let turn = self.checking.clone().lock_owned().await;
        // Another request of the same user may have been checked meanwhile.
        if self.remembered.holds(&settings.users, &credentials) {
            return Ok(());
        }
        let remembered = self.remembered.clone();
        let checked = spawn_blocking(move || {
            let right = settings.users.check(&credentials);
            if right {
                remembered.keep(&settings.users, &credentials);
            }
            // Held so long even if the client has gone: a check cannot be stopped.
            drop(turn);
            right
        });
        match checked.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(unauthorized()),
            Err(error) => {
                error!("a password could not be checked: {error}");
                Err(StatusCode::INTERNAL_SERVER_ERROR.into_response())
            }
        }
    }
}

fn unauthorized() -> Response<Body> {
    (
        StatusCode::UNAUTHORIZED,
        [(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"livepatch-monitor\"",
        )],
        "Unauthorized\n",
    )
        .into_response()
}

/// One more, as long as it lives.
struct Counted<'a> {
    count: &'a AtomicUsize,
    number: usize,
}

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        Self { count, number }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's bytes. Dropped when HTTP has handed the last of them on.
struct Held {
    bytes: Bytes,
    _answering: Answering,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Scrapes, one at a time. Who asks while one runs waits for the next, and all who
/// wait share it: however many ask, the kernel is read as often as one client could
/// have it read.
#[derive(Clone, Debug)]
pub(super) struct Scrapes {
    exporter: Arc<Exporter>,
    turn: Arc<tokio::sync::Mutex<()>>,
    last: Arc<Mutex<Option<Scrape>>>,
}

#[derive(Clone, Debug)]
struct Scrape {
    began: Instant,
    result: Result<Bytes, String>,
}

impl Scrapes {
    pub(super) fn new(exporter: Arc<Exporter>) -> Self {
        Self {
            exporter,
            turn: Arc::default(),
            last: Arc::default(),
        }
    }

    /// The exposition, as it was at the request or later.
    pub(super) async fn answer(&self) -> Response {
        match self.scrape().await {
            Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
            Err(reason) => {
                error!("scrape failed: {reason}");
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response()
            }
        }
    }

    async fn scrape(&self) -> Result<Bytes, String> {
        let asked = Instant::now();
        let turn = self.turn.clone().lock_owned().await;
        let last = lock(&self.last).clone();
        if let Some(last) = last.filter(|last| last.began >= asked) {
            return last.result;
        }
        let (exporter, last) = (self.exporter.clone(), self.last.clone());
        // Reads of the kernel must not hold up other requests.
        let scrape = spawn_blocking(move || {
            let began = Instant::now();
            let result = exporter
                .scrape()
                .map(Bytes::from)
                .map_err(|error| format!("{error:#}"));
            *lock(&last) = Some(Scrape {
                began,
                result: result.clone(),
            });
            // Held so long even if the client has gone.
            drop(turn);
            result
        });
        scrape.await.map_err(|error| error.to_string())?
    }
}
