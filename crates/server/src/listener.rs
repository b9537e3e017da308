//! HTTP server of one listener: HTTP/1 and HTTP/2 on one port, with a drain that is bounded in time.
//!
//! tonic's own server waits for ever for an idle connection (hyper#4170) and for an open stream; this one closes the
//! remaining connections when the grace period is over.
//!
//! # Invariants
//!
//! 1. A request that panics ends alone: its stream is closed, over HTTP/1 its connection.

use std::{convert::Infallible, time::Duration};

use axum::Router;
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use stead_store::health::CatchPanic;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::environment::Incoming;

/// Most connections that one listener serves at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8_192;
/// Pause after a failed accept, for instance when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Idle time after which a client is pinged, and the longest time that it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most streams of one connection at once. Another node's connection, or a client's pool, has a stream for each watch.
const STREAMS_MAX: u32 = 4_096;
/// HTTP/2 flow-control windows, the same as in `stead_api::net` for the other end.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Serves connections until the token fires, then lets running requests finish for at most `grace`.
pub async fn serve(
    mut incoming: Incoming,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Infallible> {
    let executor = CatchingExecutor;
    let builder = builder(executor);
    let drain = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = incoming.next(), if connections.len() < CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.cancelled() => break,
        };
        let connection = match accepted {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            None => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let serving = drain.watch(
            builder
                .serve_connection_with_upgrades(TokioIo::new(connection), service)
                .into_owned(),
        );
        let cut = cut.clone();
        connections.spawn(executor.catch_panics(async move {
            tokio::select! {
                ended = serving => if let Err(error) = ended { debug!(%error, "connection failed") },
                () = cut.cancelled() => {}
            }
        }));
    }
    drop(incoming);
    if tokio::time::timeout(grace, drain.shutdown()).await.is_err() {
        debug!(connections = connections.len(), "closing the remaining connections");
    }
    cut.cancel();
    while connections.join_next().await.is_some() {}
    Ok(())
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
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder.http1().timer(TokioTimer::new());
    builder
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use axum::routing::get;
    use futures::stream;
    use stead_api::net::Io;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn ask(mut io: DuplexStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn fail() -> &'static str {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn listener_survives_panicking_request() {
        // Invariant 1.
        let router = Router::new()
            .route("/fine", get(|| async { "fine" }))
            .route("/panic", get(fail));
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (one, other) = duplex(4096);
            near.push(one);
            far.push(Ok(Box::pin(other) as Pin<Box<dyn Io>>));
        }
        let incoming: Incoming = Box::pin(stream::iter(far).chain(stream::pending()));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(incoming, router, stop.clone(), Duration::from_secs(1)));
        assert_eq!(ask(near.pop().unwrap(), "/panic").await, "");
        assert!(ask(near.pop().unwrap(), "/fine").await.ends_with("fine"));
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
