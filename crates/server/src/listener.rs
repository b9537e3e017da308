//! HTTP server of one listener: HTTP/1 and HTTP/2 on one port, with a drain that is bounded in time.
//!
//! tonic's own server waits for ever for an idle connection (hyper#4170) and for an open stream; this one closes the
//! remaining connections when the grace period is over.
//!
//! # Invariants
//!
//! 1. A connection beyond the limit, or one that does not begin to speak HTTP, is closed: it holds no descriptor.
//! 2. A request that panics ends alone: its stream is closed, over HTTP/1 its connection.

use std::{convert::Infallible, io, time::Duration};

use axum::Router;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use stead_store::health::CatchPanic;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, error, warn};

use crate::{
    answers::ConnectionAnswers,
    environment::{self, Inbound},
    preface,
    tls::{ConnectionEntry, Refusal},
};

/// Time in which a new connection must show that it speaks HTTP. Idle connections of clients that did may stay.
const PREFACE_MAX: Duration = Duration::from_secs(10);
/// Least time between two log lines about refused connections.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after a failed accept, for instance when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Idle time after which a client is pinged, and the longest time that it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most streams of one connection at once. Another node's connection, or a client's pool, has a stream for each watch.
const STREAMS_MAX: u32 = 4_096;
/// Most streams that a client has reset before they were accepted, and most that were reset for an error of the client,
/// before its connection is closed as an attack. A node that was frozen finds the resets of all the calls whose deadline
/// has passed meanwhile at once: they must not end the calls beside them.
const RESET_STREAMS_MAX: usize = 4 * STREAMS_MAX as usize;
/// Most bytes of the headers of a request, and of the buffer in which a request of HTTP/1 begins.
const HEADERS_LEN_MAX: u32 = 16 << 10;
const HTTP1_BUFFER_LEN_MAX: usize = 64 << 10;
/// Longest time in which the headers of a request of HTTP/1 must arrive; an idle connection is closed after it, too.
const HTTP1_HEADERS_MAX: Duration = Duration::from_secs(60);
/// HTTP/2 flow-control windows, the same as in `stead_api::net` for the other end.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Listener with what it serves.
pub struct Listener {
    /// Connections that arrive.
    pub incoming: environment::Incoming,
    /// Services.
    pub router: Router,
    /// Way in: plain text or TLS.
    pub entry: ConnectionEntry,
    /// Most connections.
    pub connections_max: usize,
}

/// Serves connections until the token fires, then lets running requests finish for at most `grace`.
pub async fn serve(listener: Listener, stop: CancellationToken, grace: Duration) -> Result<(), Infallible> {
    let Listener {
        mut incoming,
        router,
        entry,
        connections_max,
    } = listener;
    let executor = CatchingExecutor;
    let builder = builder(executor);
    let drain = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let mut connections = tokio::task::JoinSet::new();
    let mut refusals = Refusals::default();
    loop {
        let accepted = tokio::select! {
            accepted = incoming.next() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.cancelled() => break,
        };
        let inbound = match accepted {
            Some(Ok(inbound)) => inbound,
            Some(Err(error)) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            None => break,
        };
        if connections.len() >= connections_max {
            refusals.log(connections_max);
            continue;
        }
        let connection = Connection {
            entry: entry.clone(),
            router: router.clone(),
            builder: builder.clone(),
            stop: stop.clone(),
            cut: cut.clone(),
        };
        connections.spawn(executor.catch_panics(connection.serve(inbound, drain.watcher())));
    }
    drop(incoming);
    if timeout(grace, drain.shutdown()).await.is_err() {
        debug!(connections = connections.len(), "closing the remaining connections");
    }
    cut.cancel();
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// One connection with what it is served with.
struct Connection {
    entry: ConnectionEntry,
    router: Router,
    builder: auto::Builder<CatchingExecutor>,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Connection {
    async fn serve(self, inbound: Inbound, watcher: Watcher) {
        let begins = async {
            let entered = self.entry.enter(inbound).await.map_err(Unserved::Refused)?;
            let io = preface::read(entered.io).await.map_err(Unserved::Broken)?;
            Ok((io, entered.identity, entered.peer, entered.count))
        };
        let begun = tokio::select! {
            begun = timeout(PREFACE_MAX, begins) => begun,
            () = self.stop.cancelled() => return,
        };
        let listener = self.entry.label();
        let (io, identity, peer, _count) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(Unserved::Refused(refusal))) => {
                return debug!(listener, %refusal, "connection refused");
            }
            Ok(Err(Unserved::Broken(error))) => return debug!(listener, %error, "connection failed"),
            Err(_) => return debug!(listener, "connection closed: it has not begun to speak HTTP"),
        };
        let answers = ConnectionAnswers::default();
        let service = self.router.map_request(move |mut request: hyper::Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(answers.clone());
            if let Some(identity) = &identity {
                extensions.insert(identity.clone());
            }
            if let Some(peer) = &peer {
                extensions.insert(peer.clone());
            }
            request
        });
        let service = TowerToHyperService::new(service);
        let serving = self.builder.serve_connection_with_upgrades(TokioIo::new(io), service);
        tokio::select! {
            ended = watcher.watch(serving.into_owned()) => if let Err(error) = ended { debug!(listener, %error, "connection failed") },
            () = self.cut.cancelled() => {}
        }
    }
}

/// Connection that is not served.
enum Unserved {
    Refused(Refusal),
    Broken(io::Error),
}

/// Connections that were refused since the last log line about them.
#[derive(Default)]
struct Refusals {
    count: u64,
    logged: Option<Instant>,
}

impl Refusals {
    /// Counts a connection that is refused, and logs the count now and then.
    fn log(&mut self, connections_max: usize) {
        self.count += 1;
        if self
            .logged
            .is_none_or(|logged| logged.elapsed() >= REFUSAL_LOG_INTERVAL)
        {
            let refused = std::mem::take(&mut self.count);
            warn!(
                refused,
                connections_max, "connections refused: raise `ulimit -n`, or close idle ones"
            );
            self.logged = Some(Instant::now());
        }
    }
}

/// Executor of connections and HTTP/2 streams that catches their panics.
#[derive(Clone, Copy, Debug)]
struct CatchingExecutor;

impl CatchingExecutor {
    async fn catch_panics<F: Future>(self, request: F) {
        if let Err(panicked) = CatchPanic::new(request).await {
            error!(%panicked, "request panicked");
        }
    }
}

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for CatchingExecutor {
    fn execute(&self, request: F) {
        TokioExecutor::new().execute(self.catch_panics(request));
    }
}

fn builder(executor: CatchingExecutor) -> auto::Builder<CatchingExecutor> {
    let mut builder = auto::Builder::new(executor);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_LEN_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP1_HEADERS_MAX)
        .max_buf_size(HTTP1_BUFFER_LEN_MAX);
    builder
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use futures::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn inbound(io: DuplexStream) -> Inbound {
        Inbound {
            io: Box::pin(io),
            from: None,
        }
    }

    async fn ask(mut io: DuplexStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn listener(incoming: environment::Incoming, router: Router, connections_max: usize) -> Listener {
        Listener {
            incoming,
            router,
            entry: ConnectionEntry::plain_text(),
            connections_max,
        }
    }

    async fn fail() -> &'static str {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn listener_survives_panicking_request() {
        // Invariant 2.
        let router = Router::new()
            .route("/fine", get(|| async { "fine" }))
            .route("/panic", get(fail));
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (one, other) = duplex(4096);
            near.push(one);
            far.push(Ok(inbound(other)));
        }
        let incoming: environment::Incoming = Box::pin(stream::iter(far).chain(stream::pending()));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(
            listener(incoming, router, 2),
            stop.clone(),
            Duration::from_secs(1),
        ));
        assert_eq!(ask(near.pop().unwrap(), "/panic").await, "");
        assert!(ask(near.pop().unwrap(), "/fine").await.ends_with("fine"));
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    /// A node that was frozen finds many calls that were given up meanwhile, all at once.
    #[tokio::test]
    async fn calls_given_up_before_they_are_accepted_end_no_other() {
        let router = Router::new().route("/fine", get(|| async { "fine" }));
        let (near, far) = duplex(1 << 20);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (mut calls, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let request = || {
            hyper::Request::get("http://x/fine")
                .body(axum::body::Body::empty())
                .unwrap()
        };
        let given_up: Vec<_> = (0..90).map(|_| tokio::spawn(calls.send_request(request()))).collect();
        // This runtime has one thread: each turn polls whatever is ready, and the frames are written.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        given_up.iter().for_each(tokio::task::JoinHandle::abort);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let incoming: environment::Incoming = Box::pin(stream::iter([Ok(inbound(far))]).chain(stream::pending()));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(
            listener(incoming, router, 1),
            stop.clone(),
            Duration::from_secs(1),
        ));
        let answered = calls.send_request(request()).await.unwrap();
        assert_eq!(answered.status(), 200);
        drop((answered, calls));
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_surplus_connections_are_closed() {
        let router = Router::new().route("/fine", get(|| async { "fine" }));
        let (mut silent, first) = duplex(4096);
        let (mut surplus, second) = duplex(4096);
        let (late, third) = duplex(4096);
        let (sender, arriving) = tokio::sync::mpsc::unbounded_channel();
        for far in [first, second] {
            sender.send(Ok(inbound(far))).unwrap();
        }
        let incoming: environment::Incoming = Box::pin(stream::unfold(arriving, async |mut arriving| {
            Some((arriving.recv().await?, arriving))
        }));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(
            listener(incoming, router, 1),
            stop.clone(),
            Duration::from_secs(1),
        ));
        assert_eq!(surplus.read(&mut [0]).await.unwrap(), 0, "the limit is one");
        // Half a preface is none.
        silent.write_all(b"PRI * HTTP/2.0").await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0, "closed in time");
        sender.send(Ok(inbound(third))).unwrap();
        assert!(ask(late, "/fine").await.ends_with("fine"));
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
