//! Starts real nodes and the links between their regions; delays, cuts and heals: for `stead dev` and for services'
//! own tests.
//!
//! How a node works is not known here: a node is a binary with a configuration file and a readiness address.
//!
//! ```text
//!   us-east-1 ──dials 127.0.0.1:7511──▶ [net.dial] ──▶ Proxy ──Link us-east·eu-west──▶ eu-west-1
//! ```

pub mod cluster;
mod link;
mod pipe;
pub mod process;
mod proxy;

pub use cluster::Cluster;
pub use link::{Direction, Flow, Link, Shape};
pub use proxy::Proxy;
