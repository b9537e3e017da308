//! What a node takes from the world: connections, listeners, the wall clock. The simulation gives its own.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{Stream, future::BoxFuture};
use stead_api::net::{Connect, Io};
use stead_store::health::Health;
use tokio::net::{TcpListener, TcpStream};

/// Connections that others opened.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Pin<Box<dyn Io>>>> + Send>>;

/// Binds an address, `host:port`.
pub type Bind = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Incoming>> + Send + Sync>;

/// Milliseconds since 1970, for times that people and tenants see; nothing is decided by it.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a node takes from the world.
#[derive(Clone)]
pub struct Environment {
    /// Dials.
    pub connect: Connect,
    /// Listens.
    pub bind: Bind,
    /// Tells the time.
    pub wall: WallClock,
    /// The node's health, of one start: whoever runs the node may end it too.
    pub health: Health,
    /// Whether rows are written behind and checkpoints made by threads; a simulation has only one.
    pub threads: bool,
    /// What is kept of the past.
    pub upkeep: Upkeep,
}

/// What a node keeps of the past, and how often it looks. A simulation keeps little, so that it sees within seconds what
/// takes days otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upkeep {
    /// Of each group's log.
    pub log: stead_raft::LogLimits,
    /// Of tenants' versions; bytes and age for the sake of followers are settings.
    pub history: stead_replication::Limits,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// The real world; an advertised address found in `dial` is dialled at the address that it maps to.
    pub fn real(dial: std::collections::BTreeMap<String, String>) -> Self {
        let dial = Arc::new(dial);
        let connect: Connect = Arc::new(move |address: String| {
            let address = dial.get(&address).cloned().unwrap_or(address);
            Box::pin(async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::pin(stream) as Pin<Box<dyn Io>>)
            })
        });
        Self {
            connect,
            bind: Arc::new(|address| Box::pin(bind(address))),
            wall: Arc::new(wall),
            health: Health::default(),
            threads: true,
            upkeep: Upkeep::default(),
        }
    }
}

async fn bind(address: String) -> io::Result<Incoming> {
    let listener = TcpListener::bind(address).await?;
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(Box::pin(stream) as Pin<Box<dyn Io>>)
        });
        Some((accepted, listener))
    });
    Ok(Box::pin(incoming))
}

fn wall() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
