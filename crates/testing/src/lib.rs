//! Real clusters for your service's own tests: regions, round trips between them, partitions, and killed nodes.
//!
//! Every node is the program `stead` that runs in production. It is found automatically in Stead's repository and where
//! `stead` is installed; the error of [`Builder::start`] says what to do where it is not.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! #[tokio::test]
//! async fn credits_are_seen_in_every_region() -> Result<(), Box<dyn std::error::Error>> {
//!     let cluster = stead_testing::Fixture::builder()
//!         .region("us-east", 1)
//!         .region("eu-west", 1)
//!         .round_trip("us-east", "eu-west", Duration::from_millis(80))
//!         .start()
//!         .await?;
//!     cluster.create_tenant("acme", "us-east").await?;
//!
//!     let client = cluster.client("eu-west").await?; // dials over the links of eu-west
//!     let acme = client.tenant("acme")?;
//!     acme.put("credits", "100").await?; // one round trip: 80 ms
//!
//!     cluster.cut("us-east", "eu-west")?;
//!     assert!(acme.put("credits", "99").await.is_err()); // after the client's timeout; its outcome is not known
//!     cluster.heal_all();
//!
//!     cluster.kill("us-east-1").await?;
//!     cluster.start("us-east-1").await?;
//!     assert!(acme.get("credits").await?.item.is_some());
//!     Ok(())
//! } // the nodes are gone, and so is their folder
//! ```
//!
//! Tests of one process and of many may each have their own cluster at the same time: every cluster takes free ports
//! and a folder of its own. When a test panics, the folder is kept, with the nodes' logs, and its path is printed;
//! likewise when a test returns an error, if it runs in [`Fixture::run`].
//!
//! The tests of `raft` and `replication` run nodes inside one process, over a [`MemoryNetwork`].
//!
//! `stead dev` uses [`Cluster`] as well, with ports and data that stay. This crate does not know how a node works: a
//! node is a binary with a configuration file and a readiness address.
//!
//! ```text
//!   us-east-1 ──dials 127.0.0.1:7511──▶ [net.dial] ──▶ Proxy ──Link us-east·eu-west──▶ eu-west-1
//! ```

pub mod cluster;
pub mod fixture;
mod folder;
mod link;
pub mod load;
mod memory_network;
pub mod moves;
mod pipe;
pub mod process;
pub mod promotions;
mod proxy;
mod sync_probe;

pub use cluster::Cluster;
pub use fixture::{Builder, Error, Fixture};
pub use folder::TemporaryFolder;
pub use link::{Direction, Flow, Link, Shape};
pub use memory_network::MemoryNetwork;
pub use proxy::Proxy;
pub use sync_probe::SyncProbe;

/// Compiles the examples of the document as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing.md")]
struct Documented;
