//! The client library: it finds the nearest node and each tenant's home, retries calls where that is safe, and keeps
//! session tokens and idempotency keys by itself.
//!
//! ```no_run
//! # async fn example() -> Result<(), stead_client::Error> {
//! use stead_client::{Client, Config, Consistency, ReadOptions};
//!
//! let client = Client::connect(Config::new(["127.0.0.1:7401"])).await?;
//! let acme = client.tenant("acme")?;
//! acme.put("session/42", "ann").await?;
//! let mine = acme.get_with("session/42", &ReadOptions::at(Consistency::Session)).await?;
//! assert!(mine.item.is_some());
//! # Ok(()) }
//! ```
//!
//! A failed call is an [`Error`]; its kind says what the caller can do. A write that failed with
//! [`ErrorKind::OutcomeUnknown`] may have happened; every other failed write has had no effect.
//!
//! [`recipes`] holds the patterns that are easy to get wrong with any store: a lock with a fencing token, a rate
//! limiter, and credits.
//!
//! A service can send a tenant's own requests to the region of the tenant's home: [`Client::home`] returns the home and
//! reports its changes; the example `home_region` is such a middleware. Session tokens travel as text, in a cookie or a
//! header: [`Client::export_tokens`], [`Client::import_tokens`], [`Consistency::Tokens`]. Dropping a future cancels its
//! call: an operation that the node has not begun never runs; one that it has begun goes on.
//!
//! The transport is not part of the interface: no type here comes from the gRPC library.

// Modules use only those of their own line and of earlier ones, so that each can be read without the later ones. That
// they do so in no circle is tested by `sibling_modules_have_no_circles` in `tests/tests/architecture.rs`.
//
// 1. values: `config`, `options`, `response`, `failure`, `session`, `imported_tokens`, `retry`
// 2. nodes: `pipeline`, `node`, `cluster_map`
// 3. `state`, which all calls share, and `late_stamp`, `call` and `paging`, which run them on it
// 4. what the client does by itself: `diagnose`, `probe`, `directory_calls`, `route_watch`
// 5. `client`, which owns the state and these tasks
// 6. what callers hold, each with the `impl Client` that returns it: `tenant`, `directory`, `admin`, `tokens`, `home`
// 7. `recipes`, built from the calls of a tenant

mod admin;
mod call;
mod channel;
mod client;
mod cluster_map;
mod config;
mod diagnose;
mod directory;
mod directory_calls;
mod failure;
mod home;
mod imported_tokens;
mod late_stamp;
mod node;
mod options;
mod paging;
mod pipeline;
mod probe;
pub mod recipes;
mod response;
mod retry;
mod route_watch;
mod session;
mod state;
mod tenant;
mod token_source;
mod tokens;

pub use admin::{
    Admin, AtForkPoint, AuditRecord, AutomaticPromotion, BulkMoveOptions, BulkMovePlan, BulkMoveProgress,
    BulkMoveState, BulkMoveTarget, BulkMoveTenant, BulkMoveTenantState, CallerInfo, ClusterInfo, CopyComparison,
    CopyRole, FollowerLag, Followers, ForkClass, ForkEntries, ForkEntry, ForkInfo, ForkList, ForkName, FreezeReport,
    Group, GroupStatus, LoadOrder, LossWindow, MoveInFlight, MovePlan, MoveSource, MoveTarget, NewTenant, NodeInfo,
    NodeStatus, OnLeaseLoss, OnRegionLoss, OperationFilter, OperationInfo, OperationOutcome, OperationWatch, Pace,
    Place, PlannedPromotion, Promoted, PromotedState, PromotedTenant, PromotedTimes, PromotionHome, PromotionPhase,
    PromotionPlan, PromotionProgress, PromotionReport, PromotionRequest, PromotionSelection, RegionInfo,
    RegionReadiness, RegionStatus, RehearsedTenant, ReplayOptions, ReplayOutcome, ReplayPage, ReplayedChange, Replica,
    ResidencyEvent, ResidencyRecord, RoleBinding, SeedPhase, SeedProgress, Step, StepName, TenantChange, TenantCopy,
    TenantDeletion, TenantInfo, TenantLoad, TenantLoads, TenantMove, TenantSelection, TenantState, TenantVerification,
    TopologyProgress, TopologyRequest, VerifiedCopy,
};
pub use client::Client;
pub use cluster_map::{Endpoint, Region};
pub use config::{Config, dial};
pub use directory::Directory;
pub use directory_calls::{DirectoryChange, DirectoryWatch};
pub use home::Home;
pub use options::{Consistency, Durability, Increment, KeyRange, ReadOptions, ScanOptions, WriteOptions};
pub use response::{
    AppendResponse, BatchGetResponse, DeleteRangeResponse, DeleteResponse, GetResponse, Header, IncrementResponse,
    Item, Page, Role, WriteResponse,
};
pub use session::Route;
pub use stead_api::net::{Connect, Io};
pub use stead_tls::TlsFiles;
pub use stead_types::{
    Condition, Error, ErrorKind, IdempotencyKey, InvalidIdempotencyKey, InvalidTokenText, LimitUnit, Operand, Relation,
    Revision, SessionToken, SessionTokens, TenantLimit, TenantLimits, TenantTime, TooManyTokens,
};
pub use tenant::{
    Event, EventKind, Op, OpResult, Receipt, ReceiptStatus, Receipts, RejectedIncrement, ScanStream, Tenant, Txn,
    TxnResponse, WatchFrom, WatchMessage, WatchOptions, Watcher,
};
pub use token_source::TokenSource;
