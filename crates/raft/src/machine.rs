//! Adapter of a group's machine to openraft's state machine.
//!
//! openraft's "building a snapshot" is here a durable checkpoint of the machine, and its result only tells how far that
//! reaches: it bounds the purge. The snapshot that is sent to a follower is taken when it is requested.
//!
//! ```text
//!   log compaction ── trigger ──> build ──> Machine::checkpoint ──> meta = Machine::durable ──> purge up to there
//!   lagging follower ──> get_current_snapshot ──> Machine::snapshot ──> chunks on the wire
//! ```
//!
//! Indexes: openraft's first entry has index 0, the machine's 1, so that 0 is before the first. Only [`external_index`]
//! converts them.
//!
//! # Invariants
//!
//! 1. An applied entry is visible through the applied watch before its proposer gets the results.
//! 2. A machine that fails or panics in any call stops the node: openraft ends or waits, but does not report why.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use stead_store::machine::{self, AppliedState, Chunks, CommittedEntry, Machine, MachineError};
use stead_types::GroupId;
use tokio::sync::watch;

use crate::blocking::BlockingWorker;
use crate::clock::GroupClock;
use crate::command_results::ApplyEntries;
use crate::encoding::{log_id_record, membership_record, read_log_id_record, read_membership_record};
use crate::types::{Entry, LogId, Payload, SnapshotMeta, StoredMembership, TypeConfig};

/// Most entries and bytes that are applied before the task yields.
const APPLY_ENTRIES_MAX: usize = 64;
const APPLY_BYTES_MAX: usize = 1 << 20;

/// Converts openraft's index of an entry to the index used everywhere else.
pub(crate) fn external_index(index: u64) -> u64 {
    index + 1
}

/// Machine of a group with what it needs to run.
#[derive(Clone)]
pub(crate) struct StateMachine {
    pub(crate) group: GroupId,
    pub(crate) machine: Arc<dyn Machine>,
    /// Applies to the machine, whose results have a type that only their proposer knows.
    pub(crate) apply: ApplyEntries,
    pub(crate) worker: BlockingWorker,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) clock: Arc<GroupClock>,
    /// Set once openraft has started: it asks for the current snapshot at its start, which need not be taken then.
    pub(crate) is_running: Arc<AtomicBool>,
}

/// Running openraft of one group, which drives its machine.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

type ApplyResponder = openraft::storage::ApplyResponder<TypeConfig>;

impl StateMachine {
    /// Reports a failure to the node's health, and returns the error that stops openraft.
    fn failed(&self, failed: MachineError) -> io::Error {
        let error = io::Error::other(failed.to_string());
        self.worker.fail(failed.doing, failed.source);
        error
    }

    fn apply_batch(&self, batch: &mut ApplyBatch) -> io::Result<()> {
        let entries = std::mem::take(&mut batch.entries);
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return Ok(());
        };
        batch.bytes = 0;
        let awaited = std::mem::take(&mut batch.awaited);
        let apply = || (self.apply)(entries, &awaited);
        let applied = self.worker.health.guard(Some(self.group), "applying entries", apply);
        applied.map_err(|failed| self.failed(failed))?;
        self.applied.send_replace(last);
        for responder in batch.responders.drain(..) {
            responder.send(());
        }
        Ok(())
    }

    pub(crate) fn meta(applied: &AppliedState) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: read_log_id_record(applied.log_id.clone())?,
            last_membership: read_membership_record(applied.membership.clone())?,
        })
    }
}

/// Converts an entry of the log to what a machine applies.
pub(crate) fn committed_entry(entry: Entry) -> CommittedEntry {
    let log_id = entry.log_id;
    let payload = match entry.payload {
        Payload::Blank => machine::Payload::Blank,
        Payload::Normal(commands) => machine::Payload::Commands(commands.0),
        Payload::Membership(membership) => {
            let stored = StoredMembership::new(Some(log_id), membership);
            machine::Payload::Membership(membership_record(&stored))
        }
    };
    CommittedEntry {
        index: external_index(log_id.index),
        log_id: log_id_record(Some(&log_id)),
        payload,
    }
}

/// Batch of entries to apply.
#[derive(Default)]
struct ApplyBatch {
    entries: Vec<CommittedEntry>,
    responders: Vec<ApplyResponder>,
    /// Indexes of the entries whose results a proposer of this node awaits.
    awaited: Vec<u64>,
    bytes: usize,
}

impl ApplyBatch {
    fn push(&mut self, entry: Entry, responder: Option<ApplyResponder>) {
        let entry = committed_entry(entry);
        if let machine::Payload::Commands(commands) = &entry.payload {
            self.bytes += commands.len();
            self.awaited.extend(responder.is_some().then_some(entry.index));
        }
        self.entries.push(entry);
        self.responders.extend(responder);
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
        let mut batch = ApplyBatch::default();
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
        let applied = AppliedState {
            index: meta.last_log_id.map_or(0, |id| external_index(id.index)),
            log_id: log_id_record(meta.last_log_id.as_ref()),
            membership: membership_record(&meta.last_membership),
            // The sender has sent its logged time since.
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
        let written = self.worker.run("writing a checkpoint", move || machine.checkpoint());
        written.await.map_err(|failed| self.failed(failed))?;
        let meta = Self::meta(&self.machine.durable())?;
        let snapshot: Chunks = Box::new(std::iter::empty::<Result<Bytes, MachineError>>());
        Ok(Snapshot { meta, snapshot })
    }
}
