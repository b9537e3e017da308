//! The Raft log of all groups of a node: what Raft must find again after power was lost.
//!
//! Records, votes and the rest are opaque bytes here. One order and one stream of syncs hold for all groups together:
//!
//! ```text
//!   group 1 ── append, save_vote ──┐
//!   group 2 ── append, purge ──────┼──> one queue ──> one write + one sync ──> every done callback
//!   group 3 ── truncate, append ───┘        └──> readable from memory at once
//! ```
//!
//! # Invariants
//!
//! 1. A `done` callback is called exactly once, and with `Ok` only when its call and all calls before it, of every
//!    group, are durable.
//! 2. What a call did is read by the next [`GroupLog::read`] and [`GroupLog::state`], durable or not.
//! 3. After power was lost, a log is what it was after some call, at or after the last one whose `done` was `Ok`.
//! 4. Indexes have no holes: the first record is one above what was purged.
//! 5. After a failed sync every later call fails, until the log is opened again.
//!
//! The caller bounds what waits for a sync (its proposals in flight); [`raft_engine`] makes it wait beyond
//! [`raft_engine::QUEUE_LEN_MAX`].

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use stead_types::GroupId;

use crate::health::Health;

#[cfg(test)]
mod conformance;
mod group_state;
pub mod memory;
pub mod raft_engine;

/// Told when a call is durable, or why it never will be. Runs on the writer's thread: it must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position. Indexes start at zero.
    pub index: u64,
    /// What Raft wrote, opaque here.
    pub bytes: Bytes,
}

/// What was purged last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The last index that is gone.
    pub index: u64,
    /// What Raft remembers of it (its id), opaque here.
    pub meta: Bytes,
}

/// What a group's log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Index of the first record that is there.
    pub first: Option<u64>,
    /// The last record that is there.
    pub last: Option<Record>,
    /// What was purged last.
    pub purged: Option<Purged>,
    /// The vote saved last.
    pub vote: Option<Bytes>,
    /// The committed position saved last; after a crash it may be an older one.
    pub committed: Option<Bytes>,
}

/// The logs of all groups of a node.
pub trait LogStore: Send + Sync {
    /// Returns the log of a group, empty if it was never written. All handles of a group are the same log.
    fn group(&self, group: GroupId) -> Arc<dyn GroupLog>;

    /// Returns the groups that have a log.
    fn groups(&self) -> Vec<GroupId>;

    /// Forgets all of a group, its vote too. Only for a group that will never again have this node as a member.
    fn erase(&self, group: GroupId, done: Done);

    /// Returns the groups whose old records keep files alive: they should take a snapshot and purge.
    fn holding_back(&self) -> Vec<GroupId>;

    /// Tells whether somebody holds the log of a group.
    fn is_in_use(&self) -> bool;

    /// Returns the health of the node whose log this is.
    fn health(&self) -> &Health;
}

/// The log of one group. No call waits for the disk, except at the bound of the queue.
pub trait GroupLog: Send + Sync {
    /// Returns what the log holds.
    fn state(&self) -> io::Result<State>;

    /// Appends records: consecutive, the first one above the last that is there (or above what was purged).
    fn append(&self, records: Vec<Record>, done: Done);

    /// Drops the records above `last`, or all of them. Durable with the next sync.
    fn truncate_after(&self, last: Option<u64>) -> io::Result<()>;

    /// Drops the records up to and with `upto`, which may lie above the last record (then the log goes on behind it).
    /// Never syncs: after a crash, purged records may be back. An
    /// `upto` below an earlier one changes nothing.
    fn purge(&self, upto: u64, meta: Bytes) -> io::Result<()>;

    /// Saves Raft's vote.
    fn save_vote(&self, vote: Bytes, done: Done);

    /// Saves how far the log is committed. Never syncs: after a crash, an older position may be back.
    fn save_committed(&self, committed: Bytes) -> io::Result<()>;

    /// Returns the records of a range that are there, in order, from the first on: at most `max_bytes` of them, but at
    /// least one if there is one. Without a bound (`usize::MAX`), all of them.
    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Record>>;
}
