//! Systems that are measured: Stead, its peers, and floors.

mod etcd;
mod etcd_messages;
mod floor;
mod nats;
mod postgres;
mod resp;
mod stead;
mod stead_stubs;

use std::{sync::Arc, time::Instant};

use anyhow::{Result, bail};
use futures::future::BoxFuture;

use self::stead::{Interface, Stead};
use crate::{
    processes::Usage,
    work::{Request, Work},
};

/// Names of the systems, in the order of their columns.
pub(crate) const NAMES: [&str; 8] = [
    "stead",
    "stead-stubs",
    "etcd",
    "redis",
    "valkey",
    "postgres",
    "nats",
    "floor",
];

/// System with running servers; they end with it.
pub(crate) trait System: Send + Sync {
    /// Returns the version, and the durability of an acknowledged write.
    fn description(&self) -> String;

    /// Tells whether the system has this work.
    fn does(&self, work: Work) -> bool;

    /// Creates the keys, and the counters where an increment does not.
    fn fill(&self) -> BoxFuture<'_, Result<()>>;

    /// Returns a caller; stamps count from `began`.
    fn caller(&self, began: Instant) -> BoxFuture<'_, Result<Box<dyn Caller>>>;

    /// Returns a watcher of all keys, which has begun.
    fn watcher(&self, began: Instant) -> BoxFuture<'_, Result<Box<dyn Watcher>>>;

    /// Returns what the servers have used so far.
    fn usage(&self) -> Result<Usage>;
}

/// Caller that has one request in flight.
pub(crate) trait Caller: Send {
    /// Sends a request and checks the answer.
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>>;
}

/// Receiver of changes.
pub(crate) trait Watcher: Send {
    /// Returns the time at which the put of the next event was sent.
    fn next(&mut self) -> BoxFuture<'_, Result<Instant>>;
}

/// Starts a system.
pub(crate) async fn start(name: &str) -> Result<Arc<dyn System>> {
    Ok(match name {
        "stead" => Arc::new(Stead::start(Interface::Client).await?),
        "stead-stubs" => Arc::new(Stead::start(Interface::Stubs).await?),
        "etcd" => Arc::new(etcd::Etcd::start().await?),
        "redis" => Arc::new(resp::Resp::start(resp::Kind::Redis).await?),
        "valkey" => Arc::new(resp::Resp::start(resp::Kind::Valkey).await?),
        "postgres" => Arc::new(postgres::Postgres::start().await?),
        "nats" => Arc::new(nats::Nats::start().await?),
        "floor" => Arc::new(floor::Floor::start().await?),
        _ => bail!("there is no system {name:?}, but {}", NAMES.join(", ")),
    })
}

/// Error of work that [`System::does`] denies.
fn unsupported() -> anyhow::Error {
    anyhow::anyhow!("the system does not have this work")
}
