//! When a group's machine is made durable, and how much of its log may go.
//!
//! # Invariants
//!
//! 1. The log is never purged past what the machine has durable, nor past a snapshot on its way to a follower: beyond
//!    [`PURGE_HELD_BYTES_MAX`] the snapshot loses.
//! 2. A group that takes no entries does nothing here.
//! 3. This ends only when Raft has ended, or the node has failed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use stead_store::background::Stagger;
use stead_store::log::LogStore;
use tokio::time::{Instant, timeout_at};

use crate::encoding::read_log_id_record;
use crate::machine::StateMachine;
use crate::retained::Retained;
use crate::transfers::Transfers;
use crate::types::{LogId, Raft};

/// When a group's machine is made durable, and how much of its log stays.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// A checkpoint is made after this many entries.
    pub checkpoint_entries: u64,
    /// Or after this many bytes.
    pub checkpoint_bytes: u64,
    /// Or this long after the first of them.
    pub checkpoint_interval: Duration,
    /// Bytes of entries that stay for followers that are behind: longer ones need a snapshot.
    pub tail_bytes: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            checkpoint_entries: 20_000,
            checkpoint_bytes: 32 << 20,
            checkpoint_interval: Duration::from_secs(30),
            tail_bytes: 64 << 20,
        }
    }
}

/// A group that has come to rest with this much to write gets its checkpoint this soon: it would only lie in memory.
const REST_BYTES: u64 = 1 << 20;
const REST_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of entries that stay at most for the sake of a snapshot that is being sent.
const PURGE_HELD_BYTES_MAX: u64 = 1 << 30;

/// Makes checkpoints and purges the log of one group.
pub(crate) struct Upkeep {
    pub(crate) raft: Raft,
    pub(crate) machine: StateMachine,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) retained: Arc<Retained>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) stagger: Stagger,
    pub(crate) limits: LogLimits,
}

impl Upkeep {
    pub(crate) async fn run(self) {
        let mut done = self.retained.so_far();
        loop {
            self.due(done).await;
            done = self.retained.so_far();
            if self.checkpoint().await.is_none() || self.purge().await.is_none() {
                // Raft has stopped, and who watches it says why; or the node has been told.
                return;
            }
        }
    }

    /// Waits until a checkpoint is due after the one at `(bytes, entries)`.
    async fn due(&self, (bytes, entries): (u64, u64)) {
        while self.retained.so_far().1 == entries {
            self.retained.grown().await;
        }
        let latest = Instant::now() + self.stagger.time(self.limits.checkpoint_interval);
        loop {
            let now = self.retained.so_far();
            if now.0 - bytes >= self.limits.checkpoint_bytes || now.1 - entries >= self.limits.checkpoint_entries {
                return;
            }
            let wait = if now.0 - bytes >= REST_BYTES {
                latest.min(Instant::now() + REST_INTERVAL)
            } else {
                latest
            };
            if timeout_at(wait, self.retained.grown()).await.is_err() {
                return;
            }
        }
    }

    /// Reads an entry's id; one that cannot be read stops the node.
    fn log_id(&self, record: Bytes) -> Option<Option<LogId>> {
        match read_log_id_record(record) {
            Ok(id) => Some(id),
            Err(error) => {
                self.machine.worker.fail("reading the id of an entry", error);
                None
            }
        }
    }

    /// Makes what is applied durable, and lets openraft know how far.
    async fn checkpoint(&self) -> Option<()> {
        let applied = self.log_id(self.machine.machine.applied().log_id)?;
        self.raft.trigger().snapshot().await.ok()?;
        let mut metrics = self.raft.data_metrics();
        while metrics.borrow_watched().snapshot < applied {
            metrics.changed().await.ok()?;
        }
        Some(())
    }

    async fn purge(&self) -> Option<()> {
        let Some(durable) = self.log_id(self.machine.machine.durable().log_id)? else {
            // Entries were appended, and none is applied yet.
            return Some(());
        };
        let durable = durable.index;
        let is_holding_back = self.store.holding_back().contains(&self.machine.group);
        let beyond_tail = if is_holding_back {
            Some(durable)
        } else {
            self.retained.beyond_tail(self.limits.tail_bytes)
        };
        let held = self.transfers.earliest().unwrap_or(u64::MAX);
        let held = held.max(self.retained.beyond_tail(PURGE_HELD_BYTES_MAX).unwrap_or(0));
        let Some(upto) = beyond_tail.map(|upto| upto.min(durable).min(held)) else {
            return Some(());
        };
        self.raft.trigger().purge_log(upto).await.ok()
    }
}
