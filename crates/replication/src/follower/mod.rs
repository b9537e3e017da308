//! The follower's end: on a group's leader, one stream for each home group whose tenants this group follows.
//!
//! ```text
//!   stream ──> queue ──> proposal: Data.., Attach.., Offset ──> log ──> answers ──> acknowledgement
//!   records (detached) ──> flux ──> attach, or seed ──> shadow copy ──> attach, swap
//!   pings ──> proofs of freshness
//! ```
//!
//! One proposal is under way at a time; what comes meanwhile is the next one. So nothing waits for company, and much
//! that comes together is one entry.
//!
//! # Invariants
//!
//! 1. Nothing is acknowledged that the group's log does not have.
//! 2. What the stream brought is proposed in its order.

mod connect;
mod flux;
mod homes;
mod outcome;
mod queue;
mod seed;
mod stream;

pub(crate) use homes::follow;

/// Whose turn a proposal takes in the group: feeds stand beside tenants, whose numbers are far below.
pub(crate) const CLASS: u64 = 1 << 63;
