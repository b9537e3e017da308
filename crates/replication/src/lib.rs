//! Replication of tenants between groups and regions: carries out what `state` decided.
//!
//! ```text
//!   home group's leader                                  follower group's leader
//!   source ── FeedService.Subscribe, one stream a pair ──> follower ── Data, Attach, Offset ──> its group's log
//!   source::seed ── FeedService.Seed ──────────────────>  follower::seed ── Chunk ──────────────┘
//!   retention <── acknowledgements <───────────────────┘
//!                                                         freshness <── freshness_poll, on the group's other nodes
//! ```
//!
//! All of it is level-triggered: a leader computes from its records and its directory view what there is to do, so that
//! state lost from memory costs nothing.

mod acknowledgements;
mod applied_waiters;
mod attach_attempt;
mod completed_pulls;
mod directory_view;
mod epochs_seen;
mod expiry;
mod feed_clients;
mod follower;
mod follower_progress;
mod freshness;
mod freshness_poll;
mod group_context;
mod heirs;
mod history_meter;
mod leader_facts;
mod lease_loss;
mod outgoing_seeds;
mod payload;
mod proposal_class;
mod pull;
mod reconcile;
mod remote_log;
mod remote_watermark;
mod retention;
mod seed_observer;
mod seed_progress;
mod service;
mod source;
mod tasks;
mod traffic;
mod wire;

pub use acknowledgements::Acknowledgements;
pub use directory_view::{DirectoryDelta, SharedDirectoryView};
pub use epochs_seen::EpochsSeen;
pub use follower_progress::FollowerProgress;
pub use freshness::{Freshness, Lag};
pub use group_context::{LeaseLeft, RoomCheck, WallClock};
pub use outgoing_seeds::OutgoingSeeds;
pub use reconcile::{DirectoryAccess, ReadVersion, SubmitCommand};
pub use remote_watermark::{RemoteWait, RemoteWatermark};
pub use retention::RetentionLimits;
pub use seed_progress::{SeedLimits, SeedPhase, SeedProgress};
pub use service::{FeedHandler, Service};
pub use tasks::{Dependencies, GroupTasks, Replication};
pub use traffic::{RegionPair, TrafficBytes, TrafficCounters};
