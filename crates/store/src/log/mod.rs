//! Raft log of all groups of a node: the write-ahead log that Raft recovers from after a power loss.
//!
//! Records, votes and the rest are opaque bytes here. All groups share one order and one stream of syncs:
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
//! 2. The effect of a call is visible to the next [`GroupLog::read`] and [`GroupLog::state`], durable or not.
//! 3. After a power loss, a log is as it was after some call, at or after the last one whose `done` was `Ok`.
//! 4. Indexes have no holes: the first record is one above the purged ones.
//! 5. After a failed sync every later call fails, until the log is opened again.
//!
//! The caller bounds the writes that wait for a sync (its proposals in flight); [`raft_engine`] blocks it beyond
//! [`raft_engine::QUEUE_LEN_MAX`].

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use stead_types::GroupId;

use crate::{health::Health, latency::LatencySnapshot};

#[cfg(test)]
mod conformance;
pub mod memory;
mod operation;
pub mod raft_engine;

/// Callback that is called when a write is durable or has failed. It runs on the writer's thread, or on the caller's if
/// the write fails at once or there is no such thread, and must not block.
pub type SyncCallback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Record of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its log index, from zero.
    pub index: u64,
    /// Raft's entry, opaque here.
    pub bytes: Bytes,
}

/// Position up to which a log is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgePoint {
    /// The last purged index.
    pub index: u64,
    /// Raft's id of that entry, opaque here.
    pub meta: Bytes,
}

/// State of a group's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLogState {
    /// Index of the first record.
    pub first: Option<u64>,
    /// The last record.
    pub last: Option<LogRecord>,
    /// Position up to which the log is purged.
    pub purged: Option<PurgePoint>,
    /// The vote saved last.
    pub vote: Option<Bytes>,
    /// The committed position saved last; after a crash it may be an older one.
    pub committed: Option<Bytes>,
}

/// Logs of all groups of a node.
pub trait LogStore: Send + Sync {
    /// Returns the log of a group, empty if it was never written. All handles of a group are the same log.
    fn group(&self, group: GroupId) -> Arc<dyn GroupLog>;

    /// Returns the groups that have a log.
    fn groups(&self) -> Vec<GroupId>;

    /// Erases the log of a group, its vote too. Only for a group of which this node will never be a member again.
    fn erase(&self, group: GroupId, done: SyncCallback);

    /// Returns the groups whose old records keep files from being removed: they should write a checkpoint and purge.
    fn purge_blockers(&self) -> Vec<GroupId>;

    /// Tells whether a handle of a group's log keeps its files and threads; a log in memory has none.
    fn is_in_use(&self) -> bool;

    /// Returns the health of the node whose log this is.
    fn health(&self) -> &Health;

    /// Returns the latencies of its writes, each of which ends with a sync; a log in memory has none.
    fn sync_latency(&self) -> LatencySnapshot {
        LatencySnapshot::default()
    }
}

/// Log of one group. No call waits for a write to the disk, except at the bound of the queue; a read may read from it.
pub trait GroupLog: Send + Sync {
    /// Returns the state of the log.
    fn state(&self) -> io::Result<GroupLogState>;

    /// Appends consecutive records, the first one above the last record (or above the purged ones).
    fn append(&self, records: Vec<LogRecord>, done: SyncCallback);

    /// Removes the records above `last`, or all of them. Durable with the next sync.
    fn truncate_after(&self, last: Option<u64>) -> io::Result<()>;

    /// Removes the records up to and including `upto`, which may be above the last record (then the log continues after
    /// it). Never syncs: after a crash, purged records may be back. An `upto` below an earlier one changes nothing.
    fn purge(&self, upto: u64, meta: Bytes) -> io::Result<()>;

    /// Saves Raft's vote.
    fn save_vote(&self, vote: Bytes, done: SyncCallback);

    /// Saves the committed position. Never syncs: after a crash, an older position may be back.
    fn save_committed(&self, committed: Bytes) -> io::Result<()>;

    /// Returns the existing records of a range in order, at most `max_bytes` of them, but at least one if there is one.
    /// Without a bound (`usize::MAX`), all of them.
    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>>;
}
