//! Shard machine: applying, reading and checkpoints.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use stead_state::{
    codec::Entry,
    rows::{GroupPrefix, Unreadable},
    shard::{
        ApplyResult, Shard,
        read::{DeadRanges, ReadError, Scan, ScanPage, TenantReader},
    },
};
use stead_types::GroupId;

use super::{
    ReadView, dead_range_table::DeadRangeTable, snapshot, snapshot_cuts::SnapshotCuts, stale_installs::StaleInstalls,
};
use crate::{
    background::Background,
    digests::{DigestHistory, StateDigest},
    engine::Engine,
    group_rows::{GroupRows, IncompleteChange, Inner, failed},
    latency::{LatencyHistogram, LatencySnapshot},
    machine::{AppliedState, CommittedEntry, Machine, MachineError, Payload, Snapshot},
    table::Table,
};

/// Rows that maintenance visits for each applied command: more than one write leaves behind, so that garbage does not
/// accumulate.
const MAINTENANCE_ROWS_PER_COMMAND: usize = 4;
/// Rows that one step of maintenance visits, so that readers do not wait long.
const MAINTENANCE_STEP_ROWS: usize = 1024;
/// Most steps of maintenance before a checkpoint.
const MAINTENANCE_STEPS_MAX: usize = 16;

/// State of a shard machine that the group's lock guards beside the rows.
pub(super) struct MachineState {
    pub(super) shard: Shard,
    pub(super) stale_installs: StaleInstalls,
    pub(super) cuts: SnapshotCuts,
    digests: DigestHistory,
}

impl MachineState {
    /// Loads the state from the rows of an install.
    pub(super) fn open(prefix: GroupPrefix, table: &Table) -> Result<Self, Unreadable> {
        Ok(Self {
            shard: Shard::open(prefix, table)?,
            stale_installs: StaleInstalls::default(),
            cuts: SnapshotCuts::default(),
            digests: DigestHistory::default(),
        })
    }

    /// Writes changed memory to rows; preimages are saved for open snapshots.
    pub(super) fn flush(&mut self, table: &mut Table) {
        self.shard.flush(&mut self.cuts.copy_on_write(table));
    }
}

/// State machine of a data group.
pub struct ShardMachine {
    pub(super) rows: Arc<GroupRows<MachineState>>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) group: GroupId,
    /// Pins maintenance: each open snapshot and running install holds a reference.
    pub(super) pin: Arc<()>,
    latency: LatencyHistogram,
    /// Ranges in which scans found no live key, as of the rows; locked by readers of the rows, or by the one change.
    dead: Mutex<DeadRanges>,
}

impl ShardMachine {
    /// Opens a group's machine at its last checkpoint.
    pub fn open(engine: Arc<dyn Engine>, background: Arc<Background>, group: GroupId) -> Result<Self, MachineError> {
        let load = |table: &Table, install| {
            MachineState::open(GroupPrefix { group, install }, table).map_err(failed("reading a group's tenants"))
        };
        Ok(Self {
            rows: GroupRows::open_with_flush(engine.clone(), background, group, load, MachineState::flush)?,
            engine,
            group,
            pin: Arc::new(()),
            latency: LatencyHistogram::default(),
            dead: Mutex::default(),
        })
    }

    /// Returns the latencies of applying an entry.
    pub fn apply_latency(&self) -> LatencySnapshot {
        self.latency.snapshot()
    }

    /// Returns the group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Reads the machine; applying waits meanwhile. The closure must not read this machine again: with a writer waiting
    /// in between, both would deadlock. Debug builds panic there.
    ///
    /// # Errors
    ///
    /// After an incomplete change: nothing is read any more, and the node must stop.
    pub fn read<T>(&self, read: impl FnOnce(ReadView<'_>) -> T) -> Result<T, IncompleteChange> {
        #[cfg(debug_assertions)]
        let _check = super::reentrancy_check::ReentrancyCheck::new(std::ptr::from_ref(self).addr());
        let inner = self.rows.read()?;
        Ok(read(ReadView {
            shard: &inner.state.shard,
            rows: &inner.table,
            applied: inner.applied.index,
        }))
    }

    /// Returns the next step of a page of a scan, within [`ShardMachine::read`] of this machine: ranges without a live key
    /// are passed in one step where an earlier scan has found them.
    ///
    /// # Errors
    ///
    /// A revision that the copy does not have.
    pub fn scan(&self, reading: &TenantReader<'_>, scan: &Scan) -> Result<ScanPage, ReadError> {
        let page = reading.scan_beyond(scan, &|position, order| self.dead.lock().find(position, order))?;
        if !page.dead.is_empty() {
            let mut dead = self.dead.lock();
            page.dead.iter().cloned().for_each(|range| dead.insert(range));
        }
        Ok(page)
    }

    /// Removes a bounded amount of garbage, and tells whether there is more that nothing holds back.
    pub fn maintain(&self) -> Result<bool, MachineError> {
        let mut inner = self.rows.change()?;
        self.maintain_rows(&mut inner, MAINTENANCE_STEP_ROWS)?;
        let more = inner.state.shard.needs_maintenance() || inner.state.stale_installs.may_be_left();
        inner.commit();
        Ok(more && !self.is_pinned())
    }

    fn is_pinned(&self) -> bool {
        Arc::strong_count(&self.pin) > 1
    }

    fn maintain_rows(&self, inner: &mut Inner<MachineState>, rows_max: usize) -> Result<(), MachineError> {
        if self.is_pinned() {
            return Ok(());
        }
        let MachineState {
            shard, stale_installs, ..
        } = &mut inner.state;
        if shard.needs_maintenance() {
            shard
                .maintain(&mut inner.table, rows_max)
                .map_err(failed("removing old versions"))?;
        } else if stale_installs.may_be_left() {
            stale_installs
                .remove(shard.prefix(), &mut inner.table, rows_max)
                .map_err(failed("removing an old install"))?;
        }
        Ok(())
    }

    fn apply_one(&self, entry: CommittedEntry) -> Result<Vec<ApplyResult>, MachineError> {
        let mut guard = self.rows.change()?;
        let inner = &mut *guard;
        inner.applied.check_next(entry.index)?;
        let (mut answers, mut partition) = (Vec::new(), None);
        match entry.payload {
            Payload::Blank => {}
            Payload::Membership(membership) => inner.applied.membership = membership,
            Payload::Commands(bytes) => {
                let parsed = Entry::parse(bytes).map_err(failed("decoding a log entry"))?;
                inner.applied.time = parsed.time.max(inner.applied.time);
                let MachineState { digests, shard, .. } = &mut inner.state;
                partition = digests.due(parsed.time, shard.records().len());
                let mut rows = DeadRangeTable {
                    table: &mut inner.table,
                    dead: &mut self.dead.lock(),
                };
                answers = shard
                    .apply(&mut rows, entry.index, parsed, !self.is_pinned())
                    .map_err(failed("applying an entry"))?;
                let moved = inner.state.shard.take_moved();
                inner.state.cuts.note_moved(&moved);
            }
        }
        inner.applied.index = entry.index;
        inner.applied.log_id = entry.log_id;
        if let Some(partition) = partition {
            let MachineState { digests, shard, .. } = &mut inner.state;
            digests.record(StateDigest {
                index: entry.index,
                digest: shard.digest(|tenant| partition.contains(tenant.get())),
            });
        }
        if inner.state.shard.needs_maintenance() {
            self.maintain_rows(inner, answers.len() * MAINTENANCE_ROWS_PER_COMMAND)?;
        }
        guard.commit();
        Ok(answers)
    }
}

impl Machine for ShardMachine {
    type CommandResult = ApplyResult;

    fn applied(&self) -> AppliedState {
        self.rows.applied()
    }

    fn durable(&self) -> AppliedState {
        self.rows.durable()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Vec<ApplyResult>>, MachineError> {
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries {
            // Each entry takes the lock again, so that readers wait for one entry at most.
            let begun = Instant::now();
            all.push(self.apply_one(entry)?);
            self.latency.record(begun.elapsed());
        }
        self.rows.checkpoint_if_due()?;
        Ok(all)
    }

    fn checkpoint(&self) -> Result<(), MachineError> {
        for _ in 0..MAINTENANCE_STEPS_MAX {
            if !self.maintain()? {
                break;
            }
        }
        self.rows.checkpoint()
    }

    fn has_checkpoint_room(&self) -> bool {
        self.rows.has_checkpoint_room()
    }

    fn snapshot(&self) -> Result<Snapshot, MachineError> {
        snapshot::cut(self)
    }

    fn install(&self, snapshot: Snapshot) -> Result<(), MachineError> {
        super::install::install(self, snapshot)
    }

    fn digests(&self) -> Vec<StateDigest> {
        let inner = self.rows.read();
        inner.map_or_else(|_incomplete| Vec::new(), |inner| inner.state.digests.recent())
    }
}
