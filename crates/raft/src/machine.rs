//! A group's machine, as openraft drives it.
//!
//! openraft's "building a snapshot" is here a durable checkpoint of the machine, and its result only says how far that
//! went: from it follows what may be purged. The snapshot that is sent to a follower is cut when it is asked for.
//!
//! ```text
//!   upkeep ── trigger ──> build ──> Machine::checkpoint ──> meta = Machine::durable ──> purge up to there
//!   lagging follower ──> get_current_snapshot ──> Machine::snapshot ──> chunks on the wire
//! ```
//!
//! Indexes: openraft's first entry has index 0, the machine's 1, so that 0 is before the first. [`index_outside`] is
//! the one place that knows.
//!
//! # Invariants
//!
//! 1. What has been applied is visible through the applied watch before its proposer is answered.
//! 2. A machine that fails or panics stops the node, whatever it was doing: openraft ends or waits, but does not tell why.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use stead_store::machine::{self, Applied, Chunks, Committed, Failed, Machine};
use stead_types::GroupId;
use tokio::sync::watch;

use crate::blocking::Worker;
use crate::clock::GroupClock;
use crate::encoding::{log_id_record, membership_record, read_log_id_record, read_membership_record};
use crate::types::{Answers, Entry, LogId, Payload, SnapshotMeta, StoredMembership, TypeConfig};

/// Most entries and bytes that are applied in one go, before others get the processor.
const APPLY_ENTRIES_MAX: usize = 64;
const APPLY_BYTES_MAX: usize = 1 << 20;

/// The index of an entry everywhere outside of openraft.
pub(crate) fn index_outside(index: u64) -> u64 {
    index + 1
}

/// The machine of a group with what it needs to run.
#[derive(Clone)]
pub(crate) struct StateMachine {
    pub(crate) group: GroupId,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) worker: Worker,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) clock: Arc<GroupClock>,
    /// Set once openraft has read its state: it looks at the current snapshot then, and cutting one would be in vain.
    pub(crate) is_running: Arc<AtomicBool>,
}

type ApplyResponder = openraft::storage::ApplyResponder<TypeConfig>;

impl StateMachine {
    /// The error that stops openraft, after the node has been told the reason.
    fn failed(&self, failed: Failed) -> io::Error {
        let error = io::Error::other(failed.to_string());
        self.worker.fail(failed.doing, failed.source);
        error
    }

    fn apply_batch(&self, batch: &mut Batch) -> io::Result<()> {
        let entries = std::mem::take(&mut batch.entries);
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return Ok(());
        };
        batch.bytes = 0;
        let apply = || self.machine.apply(entries);
        let applied = self.worker.health.guard(Some(self.group), "applying entries", apply);
        let answers = applied.map_err(|failed| self.failed(failed))?;
        self.applied.send_replace(last);
        for (responder, answers) in batch.responders.drain(..).zip(answers) {
            if let Some(responder) = responder {
                responder.send(Answers::new(answers));
            }
        }
        Ok(())
    }

    pub(crate) fn meta(applied: &Applied) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: read_log_id_record(applied.log_id.clone())?,
            last_membership: read_membership_record(applied.membership.clone())?,
        })
    }
}

/// Entries that are about to be applied.
#[derive(Default)]
struct Batch {
    entries: Vec<Committed>,
    responders: Vec<Option<ApplyResponder>>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, entry: Entry, responder: Option<ApplyResponder>) {
        let log_id = entry.log_id;
        let payload = match entry.payload {
            Payload::Blank => machine::Payload::Blank,
            Payload::Normal(commands) => {
                self.bytes += commands.0.len();
                machine::Payload::Commands(commands.0)
            }
            Payload::Membership(membership) => {
                let stored = StoredMembership::new(Some(log_id), membership);
                machine::Payload::Membership(membership_record(&stored))
            }
        };
        self.entries.push(Committed {
            index: index_outside(log_id.index),
            log_id: log_id_record(Some(&log_id)),
            payload,
        });
        self.responders.push(responder);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= APPLY_ENTRIES_MAX || self.bytes >= APPLY_BYTES_MAX
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Chunks;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.machine.applied();
        let log_id = read_log_id_record(applied.log_id)?;
        Ok((log_id, read_membership_record(applied.membership)?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut batch = Batch::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            if batch.is_full() {
                self.apply_batch(&mut batch)?;
                tokio::task::yield_now().await;
            }
            batch.push(entry, responder);
        }
        self.apply_batch(&mut batch)
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Self> {
        Some(self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, chunks: Chunks) -> io::Result<()> {
        let applied = Applied {
            index: meta.last_log_id.map_or(0, |id| index_outside(id.index)),
            log_id: log_id_record(meta.last_log_id.as_ref()),
            membership: membership_record(&meta.last_membership),
            // Whoever sent it has told this time since.
            time: self.clock.now(),
        };
        let index = applied.index;
        let snapshot = machine::Snapshot { applied, chunks };
        let machine = self.machine.clone();
        let installed = self
            .worker
            .run("installing a snapshot", move || machine.install(snapshot));
        installed.await.map_err(|failed| self.failed(failed))?;
        self.applied.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<crate::types::LeaderId, u64, (), Chunks>>> {
        if !self.is_running.load(Ordering::Relaxed) || self.machine.applied().log_id.is_empty() {
            return Ok(None);
        }
        let machine = self.machine.clone();
        let cut = self.worker.run("cutting a snapshot", move || machine.snapshot());
        let cut = cut.await.map_err(|failed| self.failed(failed))?;
        let meta = Self::meta(&cut.applied)?;
        let snapshot = cut.chunks;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Chunks;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<crate::types::LeaderId, u64, (), Chunks>> {
        let machine = self.machine.clone();
        let written = self.worker.run("making a checkpoint", move || machine.checkpoint());
        written.await.map_err(|failed| self.failed(failed))?;
        let meta = Self::meta(&self.machine.durable())?;
        let snapshot: Chunks = Box::new(std::iter::empty::<Result<Bytes, Failed>>());
        Ok(Snapshot { meta, snapshot })
    }
}
