//! gRPC channels over an injected dialler.
//!
//! A node dials through a map in its configuration, the simulation through its own network; users of a channel cannot
//! tell which.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Endpoint, Uri};
pub use tonic::{Request, service::interceptor::InterceptedService, transport::Channel};

/// A byte stream to a peer.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Dialler: opens a byte stream to an advertised address, `host:port`.
pub type Connect = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Pin<Box<dyn Io>>>> + Send + Sync>;

/// HTTP/2 keepalive of a channel, by which it detects that its peer is gone.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Silence after which a ping is sent.
    pub interval: Duration,
    /// Time without a response to a ping after which the connection is closed.
    pub timeout: Duration,
}

impl Keepalive {
    /// Keepalive between nodes: a frozen peer is detected before an election ends.
    pub const PEER: Self = Self {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
    };
    /// Keepalive of clients, over any distance.
    pub const CLIENT: Self = Self {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    };
}

/// HTTP/2 windows of calls: large enough that they do not limit a stream with a round trip of 200 ms.
const CALL_WINDOWS: FlowWindows = FlowWindows {
    stream: 4 << 20,
    connection: 16 << 20,
};
/// HTTP/2 windows of watches, whose readers may be slow for long: bytes that a reader has not taken fill its stream's
/// window, and a connection whose window is full of them stalls all its streams. So the window of a stream is small,
/// and the connection's has room beside 4,095 slow readers.
const WATCH_WINDOWS: FlowWindows = FlowWindows {
    stream: 512 << 10,
    connection: (1 << 31) - 1,
};
/// Most streams that are reset because of the other end before the connection is closed, and most cancelled streams whose
/// late frames are still known: as many as a node has at once. Late answers to calls that were given up do not end others.
const RESET_STREAMS_MAX: usize = 16_384;
const CANCELLED_STREAMS_MAX: usize = 4_096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// HTTP/2 flow-control windows: bytes that may be in flight or wait to be read.
#[derive(Clone, Copy, Debug)]
struct FlowWindows {
    stream: u32,
    connection: u32,
}

/// Returns a channel to an address; it dials at the first call, and again after its connection broke.
///
/// # Errors
///
/// An address that is no `host:port`.
pub fn channel(connect: &Connect, address: &str, keepalive: Keepalive) -> io::Result<Channel> {
    open(connect, address, keepalive, CALL_WINDOWS)
}

/// Returns a channel of its own for watches, which may be read slowly: they block neither calls nor one another.
///
/// # Errors
///
/// An address that is no `host:port`.
pub fn watch_channel(connect: &Connect, address: &str, keepalive: Keepalive) -> io::Result<Channel> {
    open(connect, address, keepalive, WATCH_WINDOWS)
}

fn open(connect: &Connect, address: &str, keepalive: Keepalive, windows: FlowWindows) -> io::Result<Channel> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(invalid)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(keepalive.interval)
        .keep_alive_timeout(keepalive.timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .http2_max_local_error_reset_streams(RESET_STREAMS_MAX)
        .http2_max_concurrent_reset_streams(CANCELLED_STREAMS_MAX)
        .tcp_nodelay(true);
    let connect = connect.clone();
    let dial = tower::service_fn(move |uri: Uri| {
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        let dialled = connect(address);
        async move { dialled.await.map(hyper_util::rt::TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(dial))
}
