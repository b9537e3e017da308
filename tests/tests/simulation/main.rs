//! The whole server in a seeded simulation: a seed gives the same run, event by event, each time.
//!
//! ```text
//! test -> child process, sealed (seal) -> turmoil network (network) -> nodes, clients, faults -> checkers, trace hash
//! ```
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod child;
mod cluster;
mod directory;
mod faults;
mod freshness;
mod ledger;
mod load;
mod machine;
mod network;
#[cfg(feature = "planted")]
mod planted;
mod proof;
mod scenario;
mod seal;
mod serving;
mod story;
mod trace;
mod watching;
