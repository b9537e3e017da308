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
//! 2. What the stream brought is proposed in its order, pongs included.
//! 3. A stream is opened on records that every earlier proposal is in: nothing that attaches a tenant is under way, and
//!    a read index of this leadership has been applied. So the home never takes for detached who is about to be attached.
//! 4. The home is told who is detached before it is asked to attach them again.

mod connect;
mod flux;
mod homes;
mod incoming;
mod outcome;
mod pings;
mod queue;
mod seed;
mod stream;

pub(crate) use homes::follow;

/// Whose turn a proposal takes in the group: feeds stand beside tenants, whose numbers are far below.
pub(crate) const CLASS: u64 = 1 << 63;
