//! A log in memory, without threads, that can lose power and fail to sync: what simulations and unit tests run on.
//!
//! A [`Disk`] survives what kills its node. Every call is a pending operation until a sync; syncs happen within the
//! call, or, held back, when the simulation asks for them. Power loss keeps a prefix of what is pending, which is what a
//! log on a real disk recovers: a torn tail is cut.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_types::GroupId;

use super::group_state::{Budget, Op, check_append};
use super::{Done, GroupLog, LogStore, Purged, Record, State};
use crate::health::{Failure, Health};
use crate::power::Power;

/// What survives a node's death. Clones share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    live: Images,
    durable: Images,
    pending: Vec<Pending>,
    waiting: Vec<Done>,
    hold_syncs: bool,
    fail_sync: bool,
    power: Power,
    /// Counts openings and deaths: handles of an earlier opening are refused.
    era: u64,
}

type Images = BTreeMap<GroupId, Image>;

struct Pending {
    group: GroupId,
    op: Op,
}

/// One group's log.
#[derive(Clone, Default)]
struct Image {
    records: BTreeMap<u64, Bytes>,
    purged: Option<Purged>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
}

impl Disk {
    pub(crate) fn powered_by(power: Power) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            power,
            ..Platter::default()
        })))
    }

    /// Opens the logs. Handles of an earlier opening are refused from now on.
    pub fn open(&self) -> Arc<dyn LogStore> {
        self.open_with(Health::default())
    }

    /// Opens the logs of a node with this health.
    pub fn open_with(&self, health: Health) -> Arc<dyn LogStore> {
        let mut platter = self.0.lock();
        platter.era += 1;
        Arc::new(Logs {
            disk: self.clone(),
            era: platter.era,
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

    /// Makes durable what is pending and answers those who wait for it.
    pub fn sync(&self) {
        let mut platter = self.0.lock();
        let synced = platter.sync();
        let waiting = std::mem::take(&mut platter.waiting);
        drop(platter);
        for done in waiting {
            done(synced.as_ref().copied().map_err(|error| io::Error::from(error.kind())));
        }
    }

    /// Cuts the power: of the pending operations the first `survivors` are found again, the others are lost. Nobody
    /// who waits is answered. With all of them surviving this is a killed process.
    pub fn power_loss(&self, survivors: usize) {
        let mut platter = self.0.lock();
        platter.era += 1;
        platter.fail_sync = false;
        platter.pending.truncate(survivors);
        platter.settle();
        platter.live = platter.durable.clone();
        let waiting = std::mem::take(&mut platter.waiting);
        drop(platter);
        drop(waiting);
    }
}

impl Platter {
    fn sync(&mut self) -> io::Result<()> {
        self.power.sync()?;
        if std::mem::take(&mut self.fail_sync) {
            return Err(io::Error::other("sync failed on request"));
        }
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        for pending in self.pending.drain(..) {
            apply(&mut self.durable, pending.group, pending.op);
        }
    }
}

fn apply(images: &mut Images, group: GroupId, op: Op) {
    let image = images.entry(group).or_default();
    match op {
        Op::Append(records) => image.records.extend(records.into_iter().map(|r| (r.index, r.bytes))),
        Op::TruncateAfter(None) => image.records.clear(),
        Op::TruncateAfter(Some(last)) => drop(image.records.split_off(&(last + 1))),
        Op::Purge(purged) if image.purged.as_ref().is_some_and(|last| purged.index <= last.index) => {}
        Op::Purge(purged) => {
            image.records = image.records.split_off(&(purged.index + 1));
            image.purged = Some(purged);
        }
        Op::Vote(vote) => image.vote = Some(vote),
        Op::Committed(committed) => image.committed = Some(committed),
        Op::Erase => drop(images.remove(&group)),
    }
}

impl Image {
    fn next(&self) -> Option<u64> {
        let last = self.records.last_key_value().map(|(index, _)| *index);
        last.or(self.purged.as_ref().map(|purged| purged.index))
            .map(|last| last + 1)
    }

    fn state(&self) -> State {
        State {
            first: self.records.first_key_value().map(|(index, _)| *index),
            last: self.records.last_key_value().map(|(index, bytes)| Record {
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
struct Logs {
    disk: Disk,
    era: u64,
    health: Health,
}

impl Logs {
    /// Runs `call` on the platter, unless this opening has ended or failed.
    fn with<T>(&self, call: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        self.health.check()?;
        let mut platter = self.disk.0.lock();
        if platter.era != self.era {
            return Err(io::Error::other("the memory disk lost power or was opened again"));
        }
        call(&mut platter)
    }

    fn write(&self, group: GroupId, op: Op) -> io::Result<()> {
        let powered = self.with(|platter| Ok(platter.power.write()))?;
        powered
            .map_err(|error| io::Error::from(self.health.fail(Failure::of_node("writing the memory log", error))))?;
        self.with(|platter| {
            if let Op::Append(records) = &op {
                check_append(records, platter.live.get(&group).and_then(Image::next))?;
            }
            apply(&mut platter.live, group, op.clone());
            platter.pending.push(Pending { group, op });
            Ok(())
        })
    }

    /// Writes and syncs; `done` is called before this returns unless syncs are held back.
    fn write_durably(&self, group: GroupId, op: Op, done: Done) {
        if let Err(error) = self.write(group, op) {
            return done(Err(error));
        }
        let health = self.health.clone();
        let done: Done = Box::new(move |synced| {
            done(synced.map_err(|error| health.fail(Failure::of_node("syncing the memory log", error)).into()));
        });
        let mut platter = self.disk.0.lock();
        platter.waiting.push(done);
        let hold = platter.hold_syncs;
        drop(platter);
        if !hold {
            self.disk.sync();
        }
    }
}

struct Group {
    logs: Logs,
    group: GroupId,
}

impl LogStore for Logs {
    fn group(&self, group: GroupId) -> Arc<dyn GroupLog> {
        let logs = self.clone();
        Arc::new(Group { logs, group })
    }

    fn groups(&self) -> Vec<GroupId> {
        self.disk.0.lock().live.keys().copied().collect()
    }

    fn erase(&self, group: GroupId, done: Done) {
        self.write_durably(group, Op::Erase, done);
    }

    fn holding_back(&self) -> Vec<GroupId> {
        Vec::new()
    }

    fn is_in_use(&self) -> bool {
        false
    }

    fn health(&self) -> &Health {
        &self.health
    }
}

impl GroupLog for Group {
    fn state(&self) -> io::Result<State> {
        self.logs
            .with(|platter| Ok(platter.live.get(&self.group).map(Image::state).unwrap_or_default()))
    }

    fn append(&self, records: Vec<Record>, done: Done) {
        self.logs.write_durably(self.group, Op::Append(records), done);
    }

    fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        self.logs.write(self.group, Op::TruncateAfter(last))
    }

    fn purge(&self, upto: u64, meta: Bytes) -> io::Result<()> {
        self.logs.write(self.group, Op::Purge(Purged { index: upto, meta }))
    }

    fn save_vote(&self, vote: Bytes, done: Done) {
        self.logs.write_durably(self.group, Op::Vote(vote), done);
    }

    fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        self.logs.write(self.group, Op::Committed(committed))
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Record>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut budget = Budget::new(max_bytes);
        self.logs.with(|platter| {
            let records = platter.live.get(&self.group).into_iter();
            let records = records.flat_map(|image| image.records.range(range.clone()));
            let fitting = records.take_while(|(_, bytes)| budget.take(bytes.len()));
            Ok(fitting
                .map(|(index, bytes)| Record {
                    index: *index,
                    bytes: bytes.clone(),
                })
                .collect())
        })
    }
}

#[cfg(test)]
mod memory_test;
