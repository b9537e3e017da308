//! Routes operations: parses and admits each, finds the node that serves it, and ensures that it is answered.
//!
//! ```text
//! dispatch ─ parse ─ tenant (view) ─ route_planner ─┬─ here, admitted, write ─> writes: few entries for many
//!                                                   ├─ here, admitted, read  ─> reads: one read index for many, or the
//!                                                   │                           freshness gate of a copy
//!                                                   └─ elsewhere             ─> forwarder: one stream for each node
//! ```
//!
//! [`Router`] knows the executors of writes and of reads. These know nothing of the router, but the
//! [`Forwarder`](forwarder::Forwarder), for what another node leads, and the
//! [`CallCompletion`](call_completion::CallCompletion), for answers.
//!
//! # Invariants
//!
//! 1. Every call is answered once.
//! 2. A write is proposed at most once by this node, unless the first proposal certainly did nothing.
//! 3. An operation beyond its tenant's limits is rejected before it is queued for anything, also on its way to another
//!    node.
//! 4. A write without an idempotency key that a gRPC library has sent before is refused by the node that it asked: an
//!    earlier attempt may have happened.
//! 5. A linearizable read shows no expired key: it is removed before, by an entry.
//! 6. A write is answered after the serving check that follows its commit, a linearizable read after the one that
//!    follows the reading.

mod admission_controller;
mod call;
mod call_completion;
mod deadlines;
mod dispatch;
mod forward_links;
mod forwarder;
mod job;
mod key_access;
mod leader_cache;
mod link;
mod reads;
mod rejections;
mod remote;
mod request;
mod route_planner;
mod serving;
mod writes;

pub(crate) use admission_controller::AdmissionController;
pub(crate) use call::{
    Call, ForwardOrigin, ForwardTarget, ReadyAnswer, Responder, ResponseReceiver, ResponseSender, STREAM_OPERATIONS_MAX,
};
pub(crate) use dispatch::Router;
pub(crate) use forward_links::ForwardLinks;
pub(crate) use reads::{RevisionWaits, read_error};
pub(crate) use remote::shows_only_remote;
pub(crate) use route_planner::RoutePlanner;
pub(crate) use serving::{ReadNotServed, ServingCheck};
