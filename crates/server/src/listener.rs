//! Serves a router on a listener: HTTP/1 and HTTP/2 on one port, and a drain that ends.
//!
//! tonic's own server waits for ever for an idle connection (hyper#4170) and for an open stream; this loop cuts what is
//! left when its grace is over.

use std::{convert::Infallible, time::Duration};

use axum::Router;
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

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
    let builder = builder();
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
        connections.spawn(async move {
            tokio::select! {
                ended = serving => if let Err(error) = ended { debug!(%error, "a connection broke") },
                () = cut.cancelled() => {}
            }
        });
    }
    drop(incoming);
    if tokio::time::timeout(grace, drain.shutdown()).await.is_err() {
        debug!(connections = connections.len(), "connections are cut");
    }
    cut.cancel();
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
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
