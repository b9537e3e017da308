//! Raft groups: one group, the many groups of a node, the proposer of each, and the transport between nodes.
//!
//! ```text
//!   TypedGroup::propose ──> proposer ──> openraft ──> log (fsync, one for all groups)
//!                              ^            │  └────> peers: stream of entries, control calls, snapshots
//!                              │            └──> machine ──> results
//!                              └────────────────────────────────┘
//! ```
//!
//! openraft is used as notes and tests have shown it to be safe: ReadIndex only, pre-vote, no leader restore, elections
//! held back after a restart, heartbeat intervals longer than round trips. This crate knows no tenants and no regions,
//! and nothing outside of it knows openraft.
//!
//! Modules import in one direction, without circles: `node`, `service`, then `registry`, `group` and `restore`, then
//! `member`, `network`, `wire`, `proposer`, `machine`, `encoding`, `types`. What both ends of an arrow need is in a
//! module below both, as `leadership` and `snapshot_source` are.
//!
//! # Invariants
//!
//! 1. A proposal returns once its entry is applied here, or with an error that tells whether it may have taken effect.
//! 2. A restarted node neither votes nor stands for election until every lease that it may have granted is over.
//! 3. A voter without a log joins a group only at the group's bootstrap (`group_bootstrap`).
//! 4. A voter whose rows are lost takes no part in a group before they are restored (`restore`).
//! 5. A voter whose rows differ from those of a majority gives them up, and no other voter does (`corruption_check`).
//! 6. A failure of storage or of a machine, and a panic of a task or a job, stop the node with the cause:
//!    `stead_store::health`.

mod blocking;
mod clock;
mod command_results;
mod copy_bandwidth;
mod corruption_check;
mod encoding;
mod error;
mod group;
mod group_bootstrap;
mod leadership;
mod log;
mod log_compaction;
mod log_size;
mod machine;
mod member;
mod network;
mod node;
mod peer_channels;
mod proposal;
mod proposer;
mod queue;
mod read_index;
mod recovery;
mod registry;
mod restore;
mod senders;
mod service;
mod snapshot_source;
mod snapshot_transfers;
mod spool;
mod tasks;
mod timing;
mod typed_group;
mod types;
mod wire;

#[cfg(test)]
mod suite_test;

pub use blocking::BlockingMode;
pub use clock::Clocks;
pub use copy_bandwidth::CopyBandwidth;
pub use error::{ChangeError, OpenError, ProposeError, ReadIndexError};
pub use group::{Group, GroupMetrics};
pub use leadership::Leadership;
pub use log_compaction::LogLimits;
pub use node::{Config, GroupConfig, Node};
pub use peer_channels::Resolver;
pub use proposal::{Proposal, split_into_entries};
pub use proposer::PROPOSAL_LEN_MAX;
pub use queue::COMMAND_BYTES;
pub use recovery::{LogEnd, UnappliedEntries};
pub use senders::MaySend;
pub use service::Service;
pub use timing::Timing;
pub use typed_group::TypedGroup;
