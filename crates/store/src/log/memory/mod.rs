//! Log in memory, without threads, with injected power loss and failing syncs, for simulations and unit tests.
//!
//! A [`Disk`] survives the death of its node. Every call is a pending operation until a sync; syncs happen within the
//! call, or, held back, when the simulation asks for them. Power loss keeps a prefix of the pending operations, as a
//! log on a real disk does: a torn tail is truncated.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_types::GroupId;

use super::operation::{LogOperation, ReadBudget, check_append};
use super::{GroupLog, GroupLogState, LogRecord, LogStore, PurgePoint, SyncCallback};
use crate::health::{Health, NodeFailure};
use crate::power::Power;

/// Simulated disk, which survives the death of its node. Clones share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<SimulatedDisk>>);

#[derive(Default)]
struct SimulatedDisk {
    live: Images,
    durable: Images,
    pending: Vec<Pending>,
    waiting: Vec<SyncCallback>,
    hold_syncs: bool,
    fail_sync: bool,
    power: Power,
    /// Counts openings and deaths: handles of an earlier opening are rejected.
    generation: u64,
}

type Images = BTreeMap<GroupId, Image>;

struct Pending {
    group: GroupId,
    op: LogOperation,
}

/// One group's log.
#[derive(Clone, Default)]
struct Image {
    records: BTreeMap<u64, Bytes>,
    purged: Option<PurgePoint>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
}

impl Disk {
    pub(crate) fn powered_by(power: Power) -> Self {
        Self(Arc::new(Mutex::new(SimulatedDisk {
            power,
            ..SimulatedDisk::default()
        })))
    }

    /// Opens the logs. Handles of an earlier opening are rejected from now on.
    pub fn open(&self) -> Arc<dyn LogStore> {
        self.open_with(Health::default())
    }

    /// Opens the logs of a node with this health.
    pub fn open_with(&self, health: Health) -> Arc<dyn LogStore> {
        let mut disk = self.0.lock();
        disk.generation += 1;
        Arc::new(MemoryLogs {
            disk: self.clone(),
            generation: disk.generation,
            health,
        })
    }

    /// Holds syncs back until [`Disk::sync`], or lets every call sync itself again.
    pub fn hold_syncs(&self, hold: bool) {
        self.0.lock().hold_syncs = hold;
    }

    /// Makes the next sync fail.
    pub fn fail_next_sync(&self) {
        self.0.lock().fail_sync = true;
    }

    /// Returns how many operations a power loss now would put at risk.
    pub fn pending(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// Makes the pending operations durable and calls the waiting callbacks.
    pub fn sync(&self) {
        let mut disk = self.0.lock();
        let synced = disk.sync();
        let waiting = std::mem::take(&mut disk.waiting);
        drop(disk);
        for done in waiting {
            done(synced.as_ref().copied().map_err(|error| io::Error::from(error.kind())));
        }
    }

    /// Simulates a power loss: of the pending operations the first `survivors` survive, the others are lost. Waiting
    /// callbacks are dropped. With all of them surviving this is a killed process.
    pub fn power_loss(&self, survivors: usize) {
        let mut disk = self.0.lock();
        disk.generation += 1;
        disk.fail_sync = false;
        disk.pending.truncate(survivors);
        disk.flush_pending();
        disk.live = disk.durable.clone();
        let waiting = std::mem::take(&mut disk.waiting);
        drop(disk);
        drop(waiting);
    }
}

impl SimulatedDisk {
    fn sync(&mut self) -> io::Result<()> {
        self.power.sync()?;
        if std::mem::take(&mut self.fail_sync) {
            return Err(io::Error::other("sync failed on request"));
        }
        self.flush_pending();
        Ok(())
    }

    fn flush_pending(&mut self) {
        for pending in self.pending.drain(..) {
            apply(&mut self.durable, pending.group, pending.op);
        }
    }
}

fn apply(images: &mut Images, group: GroupId, op: LogOperation) {
    let image = images.entry(group).or_default();
    match op {
        LogOperation::Append(records) => image.records.extend(records.into_iter().map(|r| (r.index, r.bytes))),
        LogOperation::TruncateAfter(None) => image.records.clear(),
        LogOperation::TruncateAfter(Some(last)) => drop(image.records.split_off(&(last + 1))),
        LogOperation::Purge(purged) if image.purged.as_ref().is_some_and(|last| purged.index <= last.index) => {}
        LogOperation::Purge(purged) => {
            image.records = image.records.split_off(&(purged.index + 1));
            image.purged = Some(purged);
        }
        LogOperation::Vote(vote) => image.vote = Some(vote),
        LogOperation::Committed(committed) => image.committed = Some(committed),
        LogOperation::Erase => drop(images.remove(&group)),
    }
}

impl Image {
    fn next(&self) -> Option<u64> {
        let last = self.records.last_key_value().map(|(index, _)| *index);
        last.or(self.purged.as_ref().map(|purged| purged.index))
            .map(|last| last + 1)
    }

    fn state(&self) -> GroupLogState {
        GroupLogState {
            first: self.records.first_key_value().map(|(index, _)| *index),
            last: self.records.last_key_value().map(|(index, bytes)| LogRecord {
                index: *index,
                bytes: bytes.clone(),
            }),
            purged: self.purged.clone(),
            vote: self.vote.clone(),
            committed: self.committed.clone(),
        }
    }
}

#[derive(Clone)]
struct MemoryLogs {
    disk: Disk,
    generation: u64,
    health: Health,
}

impl MemoryLogs {
    /// Runs `call` on the disk, unless this opening has ended or failed.
    fn with<T>(&self, call: impl FnOnce(&mut SimulatedDisk) -> io::Result<T>) -> io::Result<T> {
        self.health.check()?;
        let mut disk = self.disk.0.lock();
        if disk.generation != self.generation {
            return Err(io::Error::other("the memory disk lost power or was opened again"));
        }
        call(&mut disk)
    }

    fn write(&self, group: GroupId, op: LogOperation) -> io::Result<()> {
        let powered = self.with(|disk| Ok(disk.power.write()))?;
        powered.map_err(|error| {
            io::Error::from(self.health.fail(NodeFailure::of_node("writing the memory log", error)))
        })?;
        self.with(|disk| {
            if let LogOperation::Append(records) = &op {
                check_append(records, disk.live.get(&group).and_then(Image::next))?;
            }
            apply(&mut disk.live, group, op.clone());
            disk.pending.push(Pending { group, op });
            Ok(())
        })
    }

    /// Writes and syncs; `done` is called before this returns unless syncs are held back.
    fn write_durably(&self, group: GroupId, op: LogOperation, done: SyncCallback) {
        if let Err(error) = self.write(group, op) {
            return done(Err(error));
        }
        let health = self.health.clone();
        let done: SyncCallback = Box::new(move |synced| {
            done(synced.map_err(|error| {
                health
                    .fail(NodeFailure::of_node("syncing the memory log", error))
                    .into()
            }));
        });
        let mut disk = self.disk.0.lock();
        disk.waiting.push(done);
        let hold = disk.hold_syncs;
        drop(disk);
        if !hold {
            self.disk.sync();
        }
    }
}

struct GroupHandle {
    logs: MemoryLogs,
    group: GroupId,
}

impl LogStore for MemoryLogs {
    fn group(&self, group: GroupId) -> Arc<dyn GroupLog> {
        let logs = self.clone();
        Arc::new(GroupHandle { logs, group })
    }

    fn groups(&self) -> Vec<GroupId> {
        self.disk.0.lock().live.keys().copied().collect()
    }

    fn erase(&self, group: GroupId, done: SyncCallback) {
        self.write_durably(group, LogOperation::Erase, done);
    }

    fn purge_blockers(&self) -> Vec<GroupId> {
        Vec::new()
    }

    fn is_in_use(&self) -> bool {
        false
    }

    fn health(&self) -> &Health {
        &self.health
    }
}

impl GroupLog for GroupHandle {
    fn state(&self) -> io::Result<GroupLogState> {
        self.logs
            .with(|disk| Ok(disk.live.get(&self.group).map(Image::state).unwrap_or_default()))
    }

    fn append(&self, records: Vec<LogRecord>, done: SyncCallback) {
        self.logs.write_durably(self.group, LogOperation::Append(records), done);
    }

    fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        self.logs.write(self.group, LogOperation::TruncateAfter(last))
    }

    fn purge(&self, upto: u64, meta: Bytes) -> io::Result<()> {
        self.logs
            .write(self.group, LogOperation::Purge(PurgePoint { index: upto, meta }))
    }

    fn save_vote(&self, vote: Bytes, done: SyncCallback) {
        self.logs.write_durably(self.group, LogOperation::Vote(vote), done);
    }

    fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        self.logs.write(self.group, LogOperation::Committed(committed))
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut budget = ReadBudget::new(max_bytes);
        self.logs.with(|disk| {
            let records = disk.live.get(&self.group).into_iter();
            let records = records.flat_map(|image| image.records.range(range.clone()));
            let fitting = records.take_while(|(_, bytes)| budget.take(bytes.len()));
            Ok(fitting
                .map(|(index, bytes)| LogRecord {
                    index: *index,
                    bytes: bytes.clone(),
                })
                .collect())
        })
    }
}

#[cfg(test)]
mod memory_test;
