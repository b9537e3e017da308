//! Replicated groups: one Raft group, the many groups of a node, the proposer in front of each, and the transport
//! between nodes.
//!
//! ```text
//!   Group::propose ──> proposer ──> openraft ──> log (fsync, one for all groups)
//!                                      │  └────> peers: stream of entries, control calls, snapshots
//!                                      └──> machine ──> answers
//! ```
//!
//! openraft is used as notes and tests have shown it to be safe: ReadIndex only, pre-vote, no leader restore, held back
//! after a restart, heartbeats longer than round trips. It knows no tenants and no regions, and nothing outside of this
//! crate knows openraft.
//!
//! # Invariants
//!
//! 1. A proposal is answered once its entry is applied here, or with an error that says whether it may have happened.
//! 2. A node that was restarted neither votes nor stands for election until every lease it may have granted is over.
//! 3. A voter without a log joins a group only at the group's beginning (`founding`).
//! 4. A voter whose rows are gone takes no part in a group before it has them again (`restore`).
//! 5. A voter whose rows differ from those of a majority gives them up, and nobody else does (`compare`).
//! 6. Storage that failed, a machine that failed, and a task or a job that panicked stop the node, with the reason:
//!    `stead_store::health`.

mod blocking;
mod clock;
mod compare;
mod encoding;
mod error;
mod founding;
mod group;
mod log;
mod machine;
mod member;
mod network;
mod node;
mod peers;
mod proposal;
mod proposer;
mod queue;
mod reads;
mod restore;
mod retained;
mod service;
mod spool;
mod tasks;
mod timing;
mod transfers;
mod types;
mod upkeep;
mod wire;

#[cfg(test)]
mod suite_test;

pub use blocking::Blocking;
pub use clock::Clocks;
pub use error::{ChangeError, OpenError, ProposeError, ReadIndexError};
pub use group::{Group, Leadership, Numbers};
pub use node::{Config, GroupConfig, Node};
pub use peers::Resolver;
pub use proposal::{Proposal, parts};
pub use proposer::PROPOSAL_LEN_MAX;
pub use queue::COMMAND_BYTES;
pub use service::Service;
pub use timing::Timing;
pub use upkeep::LogLimits;
