//! Carries out between regions what `state` decided.
//!
//! ```text
//!   home group's leader                                  follower group's leader
//!   source ── FeedService.Subscribe, one stream a pair ──> follower ── Data, Attach, Offset ──> its group's log
//!   source::seed ── FeedService.Seed ──────────────────>  follower::seed ── Chunk ──────────────┘
//!   floor <── acknowledged <───────────────────────────┘
//!                                                         freshness <── relay, on the group's other nodes
//! ```
//!
//! All of it is level-triggered: a leader works out from its records and its view what there is to do, and nothing that
//! stands in memory here is missed when it is lost.

mod counters;
mod expiry;
mod floor;
mod follower;
mod freshness;
mod local;
mod payload;
mod peers;
mod reconcile;
mod relay;
mod service;
mod source;
mod tasks;
mod views;
mod wire;

pub use counters::{Border, Bytes, Counters};
pub use floor::Limits;
pub use freshness::{Freshness, Lag};
pub use reconcile::{ReadVersion, Tell, ToDirectory};
pub use service::{Feeds, Service};
pub use source::acknowledged::{Acknowledged, Follower};
pub use tasks::{GroupTasks, Replication, Shared};
pub use views::Views;
