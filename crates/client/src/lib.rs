//! The library that services link: it finds the nearest node and each tenant's home, retries what may be retried, and
//! keeps session tokens and idempotency keys by itself.
//!
//! ```no_run
//! # async fn example() -> Result<(), stead_client::Error> {
//! use stead_client::{Client, Config, Consistency, Read};
//!
//! let client = Client::connect(Config::new(["127.0.0.1:7401"])).await?;
//! let acme = client.tenant("acme")?;
//! acme.put("session/42", "ann").await?;
//! let mine = acme.get_with("session/42", &Read::at(Consistency::Session)).await?;
//! assert!(mine.item.is_some());
//! # Ok(()) }
//! ```
//!
//! A failed call is an [`Error`]; its kind says what can be done about it. A write that failed with
//! [`ErrorKind::OutcomeUnknown`] may have happened; every other failed write has not.
//!
//! [`recipes`] has what is easy to get wrong with any store: a lock with a fencing token, a rate limiter, credits.
//!
//! A service can send a tenant's own requests to the region where the tenant lives: [`Client::home`] says where, and tells
//! moves; the example `home_region` is such a middleware. What a session has seen travels as text, in a cookie or a
//! header: [`Client::export_tokens`], [`Client::import_tokens`], [`Consistency::Tokens`]. Dropping a future cancels its
//! call: what has not begun at the node then never does; what has begun goes on.
//!
//! How calls travel is not part of the interface: no type here comes from the gRPC library.

mod admin;
mod answer;
mod call;
mod client;
mod config;
mod diagnose;
mod directory;
mod failure;
mod home;
mod map;
mod node;
mod options;
mod pipe;
mod probe;
pub mod recipes;
mod retry;
mod session;
mod tenant;
mod tokens;

pub use admin::{
    Admin, Followers, Group, GroupStatus, Lag, NewTenant, NodeInfo, NodeStatus, RegionInfo, RegionStatus, Replica,
    TenantChange, TenantDeletion, TenantInfo, TenantState,
};
pub use answer::{Appended, Batch, Deleted, DeletedRange, Got, Header, Incremented, Item, Page, Role, Written};
pub use client::Client;
pub use config::{Config, dial};
pub use directory::{Change, Directory, Watch as DirectoryWatch};
pub use home::Home;
pub use map::{Endpoint, Region};
pub use options::{Consistency, Durability, Increment, KeyRange, Read, Scan, Write};
pub use session::Route;
pub use stead_api::net::{Connect, Io};
pub use stead_types::{
    Condition, Error, ErrorKind, IdempotencyKey, InvalidIdempotencyKey, InvalidTokenText, LimitUnit, Operand, Relation,
    Revision, SessionToken, SessionTokens, TenantLimit, TenantLimits, TenantTime, TooManyTokens,
};
pub use tenant::{
    Event, EventKind, NotAdmitted, Op, OpResult, ScanStream, Tenant, Told, Txn, TxnDone, Watch, WatchFrom, Watcher,
};
