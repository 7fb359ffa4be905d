//! Connections: TLS, HTTP/1.1 and HTTP/2, and the limits of each.

use std::{
    convert::Infallible,
    net::{IpAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{
    Web,
    connections::{self, Connections, LAST_CHANCE, Open, SETTLE},
    lingering::Lingering,
};

/// Most bytes of a request's first line and headers.
const MOST_HEADER_BYTES: usize = 16 * 1024;

/// Most headers of a request.
const MOST_HEADERS: usize = 100;

/// Most concurrent requests on an HTTP/2 connection.
const MOST_STREAMS: u32 = 8;

/// Bytes of request bodies that a client may send unread; bodies are never read.
const WINDOW: u32 = 64 * 1024;

/// Extra places for connections that were closed to make room and have not ended yet.
const LEAVING: usize = 16;

/// How long a new connection waits for a place.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(2);

/// How long responses in progress may take after the order to stop.
pub(in crate::exporter) const FAREWELL: Duration = Duration::from_secs(10);

/// Shortest interval between two warnings with the same cause.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Serves all sockets until ordered to stop, and then finishes the requests that have
/// arrived.
pub(super) async fn serve(
    listeners: Vec<TcpListener>,
    web: Arc<Web>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    // Each listener occupies a place while it waits.
    let places = connections::MOST + LEAVING + listeners.len();
    let acceptor = Acceptor {
        web,
        connections: Arc::default(),
        room: Arc::new(Semaphore::new(places)),
        stop: stop.clone(),
    };
    let mut loops = JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener).context("listening")?;
        let acceptor = acceptor.clone();
        loops.spawn(async move { acceptor.accept(listener).await });
    }
    stopped(&mut stop).await;
    while loops.join_next().await.is_some() {}
    let all = u32::try_from(places).context("connections")?;
    if tokio::time::timeout(FAREWELL, acceptor.room.acquire_many(all))
        .await
        .is_err()
    {
        warn!("stopped before every answer was taken");
    }
    Ok(())
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which counts as the order.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Runs until it is done, but no longer than [`LAST_CHANCE`] after the order to stop.
async fn before_the_end<F: Future>(
    stop: &mut watch::Receiver<bool>,
    future: F,
) -> Option<F::Output> {
    let late = async {
        stopped(stop).await;
        tokio::time::sleep(LAST_CHANCE).await;
    };
    tokio::select! {
        output = future => Some(output),
        () = late => None,
    }
}

#[derive(Clone)]
struct Acceptor {
    web: Arc<Web>,
    connections: Arc<Connections>,
    /// A place for each connection, so that there are never more descriptors.
    room: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Acceptor {
    async fn accept(mut self, listener: tokio::net::TcpListener) {
        let mut complained: Option<Instant> = None;
        let mut complain = |what: &dyn std::fmt::Display| {
            if complained.is_none_or(|before| before.elapsed() >= COMPLAIN_EVERY) {
                complained = Some(Instant::now());
                warn!("a connection is refused: {what}");
            }
        };
        loop {
            let accepted = async {
                let place = self.room.clone().acquire_owned().await.ok()?;
                Some((place, listener.accept().await))
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = stopped(&mut self.stop) => break,
            };
            match accepted {
                Some((place, Ok((stream, peer)))) => match self.open(peer.ip()).await {
                    Some(open) => self.spawn(stream, open, place),
                    None => complain(&format_args!("{} are busy", connections::MOST)),
                },
                Some((_, Err(error))) => {
                    complain(&error);
                    // Too many open files or no memory: retrying at once would not help.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                None => break,
            }
        }
        // Clients that connected before the order to stop are served, even if not accepted yet.
        let Ok(listener) = listener.into_std() else {
            return;
        };
        while let Ok(place) = self.room.clone().try_acquire_owned()
            && let Ok((stream, peer)) = listener.accept()
            && stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
            && let Some(open) = self.connections.open(peer.ip(), Instant::now())
        {
            self.spawn(stream, open, place);
        }
    }

    /// Waits for a place among the connections.
    async fn open(&self, address: IpAddr) -> Option<Open> {
        let since = Instant::now();
        loop {
            if let Some(open) = self.connections.open(address, Instant::now()) {
                return Some(open);
            }
            if since.elapsed() > WAIT_FOR_ROOM {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn spawn(&self, stream: TcpStream, open: Open, place: OwnedSemaphorePermit) {
        let web = self.web.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let connection = open.connection.clone();
            let served = connection.while_allowed(talk(stream, &web, &open, stop));
            match served.await {
                Some(Ok(())) => {}
                Some(Err(error)) => debug!("a connection ended: {error:#}"),
                None => debug!("a connection ended: it took too long, or another needed its place"),
            }
            drop(open);
            drop(place);
        });
    }
}

async fn talk(
    stream: TcpStream,
    web: &Arc<Web>,
    open: &Open,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true).context("TCP_NODELAY")?;
    let Some(config) = web.source.current().tls.clone() else {
        return http1(Lingering::new(stream), web, open, stop).await;
    };
    let mut stopping = stop.clone();
    let mut first = [0];
    let Some(read) = before_the_end(&mut stopping, stream.peek(&mut first)).await else {
        return Ok(());
    };
    read.context("the first byte")?;
    // A handshake starts with byte 22 (RFC 8446, section 5.1).
    if first[0].is_ascii_uppercase() {
        return refuse_plain(stream).await;
    }
    let handshake = TlsAcceptor::from(config).accept(Lingering::new(stream));
    let Some(stream) = before_the_end(&mut stopping, handshake).await else {
        return Ok(());
    };
    let stream = stream.context("TLS")?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2(stream, web, open, stop).await
    } else {
        http1(stream, web, open, stop).await
    }
}

/// Bytes of a plain HTTP request that are read and discarded; connections have a time limit too.
const MOST_OF_PLAIN: u64 = 1 << 20;

/// Answers a client that sends plain HTTP instead of a TLS handshake with an explanation.
async fn refuse_plain(mut stream: TcpStream) -> anyhow::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
        Connection: close\r\n\r\nthis port speaks TLS: use https://, or scheme: https in \
        Prometheus's scrape configuration\n";
    stream.write_all(ANSWER).await.context("plain HTTP")?;
    stream.shutdown().await.context("plain HTTP")?;
    // Bytes that are unread when a connection is closed, or arrive after that, make the other
    // side lose the answer (RFC 9112, section 9.6): the client closes first.
    let mut request = stream.take(MOST_OF_PLAIN);
    tokio::io::copy(&mut request, &mut tokio::io::sink())
        .await
        .context("plain HTTP")
        .map(drop)
}

/// Runs a connection; when ordered to stop, it finishes the pending requests.
macro_rules! converse {
    ($builder:expr, $stream:expr, $web:expr, $open:expr, $stop:expr) => {{
        let service = service_fn(|request| {
            let web = $web.clone();
            let connection = $open.connection.clone();
            async move { Ok::<_, Infallible>(web.answer(&connection, request).await) }
        });
        let conversation = $builder.serve_connection(TokioIo::new($stream), service);
        let mut conversation = std::pin::pin!(conversation);
        let mut stop = $stop;
        tokio::select! {
            biased;
            result = conversation.as_mut() => return result.context("HTTP"),
            () = stopped(&mut stop) => {}
        }
        // What was sent before the order may not have been read yet, and hyper closes a
        // connection at once on which it has read nothing.
        let since = Instant::now();
        while since.elapsed() < $open.connection.last_chance() {
            tokio::select! {
                biased;
                result = conversation.as_mut() => return result.context("HTTP"),
                () = tokio::time::sleep(SETTLE) => {}
            }
        }
        conversation.as_mut().graceful_shutdown();
        loop {
            // A request that has come by then is seen before the connection is called idle.
            tokio::select! {
                biased;
                result = conversation.as_mut() => return result.context("HTTP"),
                () = tokio::time::sleep(LAST_CHANCE) => {}
            }
            if $open.connection.is_idle() {
                return Ok(());
            }
        }
    }};
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    web: &Arc<Web>,
    open: &Open,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The connection's own deadlines cover headers too.
        .header_read_timeout(None)
        .max_header_size(MOST_HEADER_BYTES)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEADER_BYTES)
        // Queued without copying, so that a response's memory stays accounted for until it is sent.
        .writev(true);
    converse!(builder, stream, web, open, stop)
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    web: &Arc<Web>,
    open: &Open,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(u32::try_from(MOST_HEADER_BYTES).context("headers")?)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(MOST_HEADER_BYTES);
    converse!(builder, stream, web, open, stop)
}

#[cfg(test)]
mod tests {
    use super::FAREWELL;
    use crate::exporter::{journal::writer::CLOSE, resources::LAST_WORK, textfile::REMOVAL};

    /// The first number after `key` in `text`.
    fn seconds(text: &str, key: &str) -> u64 {
        let (_, rest) = text.split_once(key).unwrap();
        let line = rest.lines().next().unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn service_managers_wait_for_the_last_answer() {
        let most = (FAREWELL + CLOSE + REMOVAL + LAST_WORK).as_secs();
        let unit = include_str!("../../../packaging/livepatch-monitor.service");
        let daemon_set = include_str!("../../../packaging/kubernetes/daemonset.yaml");
        let unit = seconds(unit, "\nTimeoutStopSec=");
        let daemon_set = seconds(daemon_set, " terminationGracePeriodSeconds:");
        assert!(
            unit > most && daemon_set > most,
            "{unit}, {daemon_set}, {most}"
        );
    }
}
