//! How connections are made: one function that dials an address, given to whoever needs a channel.
//!
//! A node dials through a map of its configuration, the simulation through its own network; the rest of Stead cannot
//! tell which.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
pub use tonic::transport::Channel;
use tonic::transport::{Endpoint, Uri};

/// A connection to read from and write to.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Dials an advertised address, `host:port`.
pub type Connect = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Pin<Box<dyn Io>>>> + Send + Sync>;

/// How a channel finds out that its peer is gone.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// A ping is sent after this much silence.
    pub interval: Duration,
    /// The connection is given up when a ping is not answered for this long.
    pub timeout: Duration,
}

impl Keepalive {
    /// Between nodes: a frozen peer is noticed before an election ends.
    pub const PEER: Self = Self {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
    };
    /// From clients, over any distance.
    pub const CLIENT: Self = Self {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    };
}

/// HTTP/2 windows: large enough that a stream over 200 ms is not held back by them.
const CALLS: Windows = Windows {
    stream: 4 << 20,
    connection: 16 << 20,
};
/// Of watches, whose readers may be slow for long: what a reader has not taken fills its stream's window, and a
/// connection whose window is full of that stands still for all. So a stream takes little, and a connection what 4,095
/// slow readers leave.
const WATCHES: Windows = Windows {
    stream: 512 << 10,
    connection: (1 << 31) - 1,
};
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many bytes may be under way, or wait to be read.
#[derive(Clone, Copy, Debug)]
struct Windows {
    stream: u32,
    connection: u32,
}

/// Returns a channel to an address; it dials at the first call, and again after it broke.
///
/// # Errors
///
/// An address that is no `host:port`.
pub fn channel(connect: &Connect, address: &str, keepalive: Keepalive) -> io::Result<Channel> {
    open(connect, address, (keepalive, CALLS))
}

/// Returns a channel of its own for watches, which may be read slowly: they hold up neither calls nor one another.
///
/// # Errors
///
/// An address that is no `host:port`.
pub fn watch_channel(connect: &Connect, address: &str, keepalive: Keepalive) -> io::Result<Channel> {
    open(connect, address, (keepalive, WATCHES))
}

fn open(connect: &Connect, address: &str, (keepalive, windows): (Keepalive, Windows)) -> io::Result<Channel> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(invalid)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(keepalive.interval)
        .keep_alive_timeout(keepalive.timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .tcp_nodelay(true);
    let connect = connect.clone();
    let dial = tower::service_fn(move |uri: Uri| {
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        let dialled = connect(address);
        async move { dialled.await.map(hyper_util::rt::TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(dial))
}
