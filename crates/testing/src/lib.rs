//! Starts real nodes and the links between their regions; delays, cuts and heals: for `stead dev` and for services'
//! own tests.
//!
//! How a node works is not known here: a node is a binary with a configuration file and a readiness address.

mod link;
mod pipe;
mod proxy;

pub use link::{Direction, Flow, Link, Shape};
pub use proxy::Proxy;
