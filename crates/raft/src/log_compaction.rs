//! Log compaction: schedules a group's checkpoints and purges its log behind them.
//!
//! # Invariants
//!
//! 1. The log is never purged past the machine's checkpoint, nor past a snapshot that is being sent to a follower,
//!    except that beyond [`PURGE_HELD_BYTES_MAX`] the snapshot no longer counts.
//! 2. A group without new entries does nothing here.
//! 3. The task ends only when Raft has stopped, or the node has failed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use stead_store::background::Stagger;
use stead_store::log::LogStore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::encoding::read_log_id_record;
use crate::log_size::{AppendTotals, LogSize};
use crate::machine::{Raft, StateMachine};
use crate::snapshot_transfers::SnapshotTransfers;
use crate::types::LogId;

/// Thresholds of checkpoints, and the length of the log's tail.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// A checkpoint is written after this many entries.
    pub checkpoint_entries: u64,
    /// Or after this many bytes.
    pub checkpoint_bytes: u64,
    /// Or this long after the first of them.
    pub checkpoint_interval: Duration,
    /// Bytes of entries that stay for lagging followers: those that lag more need a snapshot.
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

/// A group that becomes idle with this many unwritten bytes gets its checkpoint this soon.
const REST_BYTES: u64 = 1 << 20;
const REST_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of looks whether the disk has room for a checkpoint that is due.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// Most bytes of entries that stay for a snapshot that is being sent. From half of it on the snapshot is sent as fast as
/// possible: its receiver would need another one at once if it were not installed by then.
const PURGE_HELD_BYTES_MAX: u64 = 1 << 30;

/// Task that writes checkpoints and purges the log of one group.
pub(crate) struct LogCompactor {
    pub(crate) raft: Raft,
    pub(crate) machine: StateMachine,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) log_size: Arc<LogSize>,
    pub(crate) transfers: Arc<SnapshotTransfers>,
    pub(crate) stagger: Stagger,
    pub(crate) limits: LogLimits,
}

impl LogCompactor {
    pub(crate) async fn run(self) {
        let mut done = self.log_size.totals();
        loop {
            self.wait_until_due(done).await;
            if !self.machine.machine.has_checkpoint_room() {
                sleep(ROOM_INTERVAL).await;
                continue;
            }
            done = self.log_size.totals();
            if self.checkpoint().await.is_none() || self.purge().await.is_none() {
                // Raft has stopped, and its watcher reports why; or the node has failed.
                return;
            }
        }
    }

    /// Waits until a checkpoint is due after the one at `last`.
    async fn wait_until_due(&self, last: AppendTotals) {
        while self.log_size.totals().entries == last.entries {
            self.log_size.wait_for_append().await;
        }
        let latest = Instant::now() + self.stagger.time(self.limits.checkpoint_interval);
        loop {
            let now = self.log_size.totals();
            if now.bytes - last.bytes >= self.limits.checkpoint_bytes
                || now.entries - last.entries >= self.limits.checkpoint_entries
            {
                return;
            }
            let wait = if now.bytes - last.bytes >= REST_BYTES {
                latest.min(Instant::now() + REST_INTERVAL)
            } else {
                latest
            };
            if timeout_at(wait, self.log_size.wait_for_append()).await.is_err() {
                return;
            }
        }
    }

    /// Decodes an entry's id; one that cannot be decoded stops the node.
    fn log_id(&self, record: Bytes) -> Option<Option<LogId>> {
        match read_log_id_record(record) {
            Ok(id) => Some(id),
            Err(error) => {
                self.machine.worker.fail("decoding the id of an entry", error);
                None
            }
        }
    }

    /// Writes a checkpoint of the applied entries through openraft, so that it knows how far they are durable.
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
        self.transfers
            .note_too_much(self.log_size.beyond_tail(PURGE_HELD_BYTES_MAX / 2));
        let Some(durable) = self.log_id(self.machine.machine.durable().log_id)? else {
            // Entries were appended, and none is applied yet.
            return Some(());
        };
        let durable = durable.index;
        let is_holding_back = self.store.purge_blockers().contains(&self.machine.group);
        let beyond_tail = if is_holding_back {
            Some(durable)
        } else {
            self.log_size.beyond_tail(self.limits.tail_bytes)
        };
        let held = self.transfers.earliest().unwrap_or(u64::MAX);
        let held = held.max(self.log_size.beyond_tail(PURGE_HELD_BYTES_MAX).unwrap_or(0));
        let Some(upto) = beyond_tail.map(|upto| upto.min(durable).min(held)) else {
            return Some(());
        };
        self.raft.trigger().purge_log(upto).await.ok()
    }
}
