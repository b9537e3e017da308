//! Engine in memory, without threads, with injected power loss and failures, for simulations and unit tests.
//!
//! A [`Disk`] survives the death of its node. The batches since the last checkpoint are lost with power, except for as
//! many as the simulation lets survive.
//!
//! [`Disk::fail_once`] makes one operation fail. A failed operation leaves no trace: a read returns an error and the
//! next one works again, a failed batch is not written, a failed sync leaves its batches to be lost with power. As with
//! every engine nothing more is written then, and the node stops; the disk works again once it is opened again.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Unreadable};

use super::{Engine, Kind, RowChange, guarded, is_empty, unreadable};
use crate::health::Health;
use crate::power::Power;

/// Rows of a page of a range.
const PAGE_LEN: usize = 64;

/// Simulated disk, which survives the death of its node. Clones share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<SimulatedDisk>>);

#[derive(Default)]
struct SimulatedDisk {
    live: BTreeMap<Bytes, Bytes>,
    durable: BTreeMap<Bytes, Bytes>,
    /// Batches since the last checkpoint.
    pending: Vec<Vec<RowChange>>,
    faults: Faults,
    power: Power,
    /// Counts openings and deaths: handles of an earlier opening are rejected.
    generation: u64,
}

/// Operation of the engine that a fault can be injected into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// A read of one row, or of one page of a range.
    Read,
    /// A write of one batch.
    Write,
    /// A checkpoint.
    Sync,
}

/// Injected faults: for each operation, how many of it still succeed before one fails.
#[derive(Default)]
struct Faults {
    read: Option<u64>,
    write: Option<u64>,
    sync: Option<u64>,
}

impl Faults {
    fn of(&mut self, operation: DiskOperation) -> &mut Option<u64> {
        match operation {
            DiskOperation::Read => &mut self.read,
            DiskOperation::Write => &mut self.write,
            DiskOperation::Sync => &mut self.sync,
        }
    }

    /// Counts an operation; an error if this is the one to fail.
    fn count(&mut self, operation: DiskOperation) -> io::Result<()> {
        let fault = self.of(operation);
        match fault {
            None => Ok(()),
            Some(0) => {
                *fault = None;
                Err(io::Error::other(format!("{operation:?} failed on request")))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Disk {
    pub(crate) fn powered_by(power: Power) -> Self {
        Self(Arc::new(Mutex::new(SimulatedDisk {
            power,
            ..SimulatedDisk::default()
        })))
    }

    /// Opens the engine. Handles of an earlier opening are rejected from now on.
    pub fn open(&self) -> Arc<dyn Engine> {
        self.open_with(Health::default())
    }

    /// Opens the engine of a node with this health.
    pub fn open_with(&self, health: Health) -> Arc<dyn Engine> {
        let mut disk = self.0.lock();
        disk.generation += 1;
        let engine = MemoryEngine {
            disk: self.clone(),
            generation: disk.generation,
        };
        guarded(Arc::new(engine), health)
    }

    /// Makes one operation fail: the next of its kind once `after` others have succeeded. A later request replaces a
    /// pending one; a power loss cancels it.
    pub fn fail_once(&self, operation: DiskOperation, after: u64) {
        *self.0.lock().faults.of(operation) = Some(after);
    }

    /// Tells whether an injected fault is still pending.
    pub fn will_fail(&self, operation: DiskOperation) -> bool {
        self.0.lock().faults.of(operation).is_some()
    }

    /// Returns how many batches a power loss now would put at risk.
    pub fn pending(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// Simulates a power loss: of the batches since the last checkpoint the first `survivors` survive. With all of them
    /// surviving this is a killed process.
    pub fn power_loss(&self, survivors: usize) {
        let mut disk = self.0.lock();
        disk.generation += 1;
        disk.faults = Faults::default();
        disk.pending.truncate(survivors);
        disk.flush_pending();
        disk.live = disk.durable.clone();
    }
}

impl SimulatedDisk {
    fn flush_pending(&mut self) {
        for change in self.pending.drain(..).flatten() {
            apply(&mut self.durable, change);
        }
    }
}

fn apply(rows: &mut BTreeMap<Bytes, Bytes>, change: RowChange) {
    match change.value {
        Some(value) => rows.insert(change.key, value),
        None => rows.remove(&change.key),
    };
}

struct MemoryEngine {
    disk: Disk,
    generation: u64,
}

impl MemoryEngine {
    /// Runs `call` on the disk, unless this opening has ended.
    fn with<T>(&self, call: impl FnOnce(&mut SimulatedDisk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.0.lock();
        if disk.generation != self.generation {
            return Err(io::Error::other("the memory disk lost power or was opened again"));
        }
        call(&mut disk)
    }

    fn page(&self, range: Range<&[u8]>, order: Order) -> io::Result<Vec<(Bytes, Bytes)>> {
        let clone = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        self.with(|disk| {
            disk.faults.count(DiskOperation::Read)?;
            let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
            let rows = disk.live.range::<[u8], _>(bounds);
            Ok(match order {
                Order::Ascending => rows.take(PAGE_LEN).map(clone).collect(),
                Order::Descending => rows.rev().take(PAGE_LEN).map(clone).collect(),
            })
        })
    }
}

impl Engine for MemoryEngine {
    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let value = self.with(|disk| {
            disk.faults.count(DiskOperation::Read)?;
            Ok(disk.live.get(key).cloned())
        });
        value.map_err(unreadable)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        Box::new(Pages {
            memory: self,
            left: range.start.to_vec()..range.end.to_vec(),
            order,
            page: Vec::new().into_iter(),
        })
    }

    fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
        let batch: Vec<RowChange> = batch.collect();
        self.with(|disk| {
            disk.faults.count(DiskOperation::Write)?;
            disk.power.write()?;
            for change in &batch {
                apply(&mut disk.live, change.clone());
            }
            disk.pending.push(batch);
            Ok(())
        })
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.with(|disk| {
            disk.faults.count(DiskOperation::Sync)?;
            disk.power.sync()?;
            disk.flush_pending();
            Ok(())
        })
    }

    fn disk_len(&self) -> u64 {
        let len = |(key, value): (&Bytes, &Bytes)| key.len() as u64 + value.len() as u64;
        self.with(|disk| Ok(disk.durable.iter().map(len).sum()))
            .unwrap_or_default()
    }
}

/// Range that is read page by page, so that writes continue meanwhile.
struct Pages<'a> {
    memory: &'a MemoryEngine,
    left: Range<Vec<u8>>,
    order: Order,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl Iterator for Pages<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if let Some(row) = self.page.next() {
            return Some(Ok(row));
        }
        let range = &*self.left.start..&*self.left.end;
        if is_empty(&range) {
            return None;
        }
        match self.memory.page(range, self.order) {
            Err(error) => {
                self.left = Vec::new()..Vec::new();
                return Some(Err(unreadable(error)));
            }
            Ok(page) => self.page = page.into_iter(),
        }
        let last = self.page.as_slice().last();
        match (self.order, last) {
            (_, None) => self.left = Vec::new()..Vec::new(),
            // The least key above another one is that key with a zero byte behind it.
            (Order::Ascending, Some((key, _))) => self.left.start = [key, &[0][..]].concat(),
            (Order::Descending, Some((key, _))) => self.left.end = key.to_vec(),
        }
        self.page.next().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, put, write};
    use super::*;

    #[test]
    fn memory_engine_conforms_to_engine() {
        let disk = Disk::default();
        conformance::check(&mut || disk.open());
    }

    #[test]
    fn power_loss_keeps_checkpoint_and_prefix_of_batches() {
        let disk = Disk::default();
        let engine = disk.open();
        write(&*engine, vec![put("a", "1")]);
        engine.checkpoint().unwrap();
        write(&*engine, vec![put("b", "1")]);
        write(&*engine, vec![put("c", "1")]);
        assert_eq!(disk.pending(), 2);
        disk.power_loss(1);
        assert!(engine.get(b"a").is_err(), "a handle from before");
        let engine = disk.open();
        let found = ["a", "b", "c"].map(|key| engine.get(key.as_bytes()).unwrap().is_some());
        assert_eq!(found, [true, true, false]);
    }

    #[test]
    fn failed_sync_is_final_until_reopened() {
        let disk = Disk::default();
        let engine = disk.open();
        write(&*engine, vec![put("a", "1")]);
        disk.fail_once(DiskOperation::Sync, 0);
        engine.checkpoint().unwrap_err();
        engine.checkpoint().unwrap_err();
        engine.write(&mut [put("b", "1")].into_iter()).unwrap_err();
        disk.power_loss(0);
        assert_eq!(disk.open().get(b"a").unwrap(), None);
    }

    #[test]
    fn injected_read_failure_happens_once() {
        let disk = Disk::default();
        let engine = disk.open();
        write(&*engine, vec![put("a", "1"), put("b", "2")]);
        let rows = || {
            engine
                .range(&b"a"[..]..&b"z"[..], Order::Ascending)
                .collect::<Result<Vec<_>, _>>()
        };
        disk.fail_once(DiskOperation::Read, 1);
        assert!(engine.get(b"a").is_ok());
        assert!(disk.will_fail(DiskOperation::Read));
        engine.get(b"a").unwrap_err();
        assert!(!disk.will_fail(DiskOperation::Read));
        assert!(engine.get(b"a").is_ok());
        disk.fail_once(DiskOperation::Read, 0);
        rows().unwrap_err();
        assert_eq!(rows().unwrap().len(), 2);
    }

    #[test]
    fn failed_write_leaves_nothing_until_reopened() {
        let disk = Disk::default();
        let engine = disk.open();
        disk.fail_once(DiskOperation::Write, 1);
        write(&*engine, vec![put("a", "1")]);
        engine.write(&mut [put("b", "1")].into_iter()).unwrap_err();
        engine.write(&mut [put("b", "1")].into_iter()).unwrap_err();
        engine.checkpoint().unwrap_err();
        disk.power_loss(disk.pending());
        let engine = disk.open();
        assert!(engine.get(b"a").unwrap().is_some());
        assert!(engine.get(b"b").unwrap().is_none());
        write(&*engine, vec![put("b", "1")]);
        engine.checkpoint().unwrap();
    }
}
