//! The follower's end of the feed: on a group's leader, one stream for each home group whose tenants this group
//! follows.
//!
//! ```text
//!   stream ──> queue ──> proposal: Data.., Attach.., Offset ──> log ──> results ──> acknowledgement
//!   records (detached) ──> attach_scheduler ──> attach, or seed ──> shadow copy ──> attach, swap
//!   pings ──> proofs of freshness
//! ```
//!
//! `homes` follows each home, `reopen` opens one stream after the other to it; `stream` is one of them, and `messages`,
//! `attach`, `proposals` and `proofs` are what it does.
//!
//! One proposal is pending at a time; messages that arrive meanwhile make the next one. So no message waits for others,
//! and messages that arrive together are batched into one entry.
//!
//! # Invariants
//!
//! 1. Nothing is acknowledged that the group's log does not have.
//! 2. The messages of the stream are proposed in their order, pongs included.
//! 3. A stream is opened on records that every earlier proposal is in: no proposal that attaches a tenant is pending,
//!    and a read index of this leadership has been applied. So the home never takes a tenant for detached that is about
//!    to be attached.
//! 4. The home is told which tenants are detached before it is asked to attach them again.

mod attach;
mod attach_scheduler;
mod connect;
mod feed_checker;
mod heirs;
mod homes;
mod messages;
mod outcome;
mod pings;
mod proofs;
mod proposals;
mod queue;
mod reopen;
mod reported_heirs;
mod seed;
mod stream;

pub(crate) use homes::follow;
