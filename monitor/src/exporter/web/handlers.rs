//! Handles requests: authentication, rate limit, scrape.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderName, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::service::TowerToHyperService;
use tokio::task::{JoinError, spawn_blocking};
use tracing::error;

use super::{
    config::Settings,
    connections::{Answering, Connection},
    password_queue::Queue,
    rate::Bucket,
    reload::Source,
    users::{Credentials, Remembered},
};
use crate::exporter::lock;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Web {
    pub(super) source: Source,
    routes: Router,
    bucket: Mutex<Bucket>,
    remembered: Arc<Remembered>,
    passwords: Arc<Queue>,
}

impl Web {
    /// # Errors
    /// The system provides no random numbers.
    pub(super) fn new(source: Source, routes: Router) -> anyhow::Result<Self> {
        Ok(Self {
            source,
            routes,
            bucket: Mutex::default(),
            remembered: Arc::new(
                Remembered::new().map_err(|_| anyhow::anyhow!("no random numbers for a key"))?,
            ),
            passwords: Arc::default(),
        })
    }

    /// The response to a request. Its body keeps the request registered with the connection until
    /// the last byte is sent.
    pub(super) async fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let mut answering = connection.answering(Instant::now());
        let settings = self.source.current();
        let address = connection.address();
        let mut response = match self.admit(&settings, &request, address).await {
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
        // Every body is already complete in memory: this neither copies nor waits.
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
        address: IpAddr,
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
            Some(credentials) => self.check(settings.clone(), credentials, address).await,
            None => Err(unauthorized()),
        }
    }

    /// Checks a password that is not remembered.
    async fn check(
        &self,
        settings: Arc<Settings>,
        credentials: Credentials,
        address: IpAddr,
    ) -> Result<(), Response<Body>> {
        let Ok(turn) = self.passwords.turn(address).await else {
            return Err((
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, "5")],
                "too many password checks are pending\n",
            )
                .into_response());
        };
        // Another request of the same user may have been checked in the meantime.
        if self.remembered.holds(&settings.users, &credentials) {
            return Ok(());
        }
        let remembered = self.remembered.clone();
        let checked = spawn_blocking(move || {
            let right = settings.users.check(&credentials);
            if right {
                remembered.keep(&settings.users, &credentials);
            }
            // Held until here even if the client has gone, because a check cannot be interrupted.
            turn.checked(right);
            drop(turn);
            right
        });
        match checked.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(unauthorized()),
            Err(error) => {
                error!("cannot check a password: {error}");
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

/// The bytes of a response; dropped when HTTP has passed on the last of them.
struct Held {
    bytes: Bytes,
    _answering: Answering,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that is made on request, one at a time. Requests that arrive while one is being made wait
/// for the next one and share it: however many clients there are, the kernel is read no more often
/// than for a single client.
#[derive(Clone)]
pub(super) struct Shared {
    make: Arc<dyn Fn() -> String + Send + Sync>,
    turn: Arc<tokio::sync::Mutex<()>>,
    last: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

impl Shared {
    /// By this function, which may wait for the kernel.
    pub(super) fn new(make: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(make),
            turn: Arc::default(),
            last: Arc::default(),
        }
    }

    /// Responds with a body made at the time of the request or later, and these headers.
    pub(super) async fn answer(&self, headers: &'static [(HeaderName, &'static str)]) -> Response {
        match self.get().await {
            Ok(body) => {
                let mut response = body.into_response();
                for (name, value) in headers {
                    let value = HeaderValue::from_static(value);
                    response.headers_mut().insert(name.clone(), value);
                }
                response
            }
            Err(reason) => {
                error!("request failed: {reason}");
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response()
            }
        }
    }

    async fn get(&self) -> Result<Bytes, JoinError> {
        let asked = Instant::now();
        let turn = self.turn.clone().lock_owned().await;
        let last = lock(&self.last).clone();
        if let Some((_, made)) = last.filter(|(began, _)| *began >= asked) {
            return Ok(made);
        }
        let this = self.clone();
        // Reading from the kernel must not delay other requests.
        let making = spawn_blocking(move || {
            let began = Instant::now();
            let made = Bytes::from((this.make)());
            *lock(&this.last) = Some((began, made.clone()));
            // Held until here even if the client has gone.
            drop(turn);
            made
        });
        making.await
    }
}
