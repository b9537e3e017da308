//! Deterministic simulation of the whole server: a seed gives the same run, event by event, each time.
//!
//! ```text
//! test -> hermetic child process (child, hermetic) -> turmoil network (network) -> nodes, clients, faults
//!      -> checkers, trace hash
//! ```
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod child;
mod cluster;
mod determinism;
mod directory;
mod faults;
mod freshness;
mod hermetic;
mod leases;
mod ledger;
mod load;
mod machine;
mod moves;
mod network;
mod operator;
#[cfg(feature = "planted")]
mod planted;
mod promotions;
mod scenario;
mod serving;
mod trace;
mod watcher;
