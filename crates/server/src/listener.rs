//! Serves a router on a listener: HTTP/1 and HTTP/2 on one port, and a drain that ends.
//!
//! tonic's own server waits for ever for an idle connection (hyper#4170) and for an open stream; this loop cuts what is
//! left when its grace is over.
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
use stead_store::health::Caught;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::environment::Incoming;

/// Connections that one listener serves at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8_192;
/// How long to wait when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client's silence after which it is pinged, and how long it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one connection at once: another node's, or a pool's of a client, has a stream for each watch.
const STREAMS_MAX: u32 = 4_096;
/// HTTP/2 windows, as `stead_api::net` has them for the other end.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Serves connections until the token fires, then finishes what runs, for at most `grace`.
pub async fn serve(
    mut incoming: Incoming,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Infallible> {
    let requests = Requests;
    let builder = builder(requests);
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
                warn!(%error, "a connection could not be accepted");
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
        connections.spawn(requests.catching(async move {
            tokio::select! {
                ended = serving => if let Err(error) = ended { debug!(%error, "a connection broke") },
                () = cut.cancelled() => {}
            }
        }));
    }
    drop(incoming);
    if tokio::time::timeout(grace, drain.shutdown()).await.is_err() {
        debug!(connections = connections.len(), "connections are cut");
    }
    cut.cancel();
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Runs connections and the streams of HTTP/2, and catches their panics.
#[derive(Clone, Copy, Debug)]
struct Requests;

impl Requests {
    async fn catching<F: Future>(self, request: F) {
        if let Err(panicked) = Caught::new(request).await {
            error!(%panicked, "a request panicked and was given up");
        }
    }
}

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for Requests {
    fn execute(&self, request: F) {
        TokioExecutor::new().execute(self.catching(request));
    }
}

fn builder(requests: Requests) -> auto::Builder<Requests> {
    let mut builder = auto::Builder::new(requests);
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
    async fn panicking_request_ends_alone() {
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
