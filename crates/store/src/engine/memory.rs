//! Rows in memory, without threads, that can lose power and fail: what simulations and unit tests run on.
//!
//! A [`Disk`] survives what kills its node. What was written since the last checkpoint is lost with power, but for as
//! many batches as the simulation lets survive.
//!
//! [`Disk::fail_once`] makes one operation fail. What fails leaves no trace: a read returns an error and the next one
//! works again, a failed batch is not there, a failed sync leaves its batches to be lost with power. As with every
//! engine nothing more is written then, and the node stops; the disk works again once it is opened again.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Unreadable};

use super::{Change, Engine, Kind, is_empty, unreadable, watched};
use crate::health::Health;
use crate::power::Power;

/// Most rows that one step of a range copies.
const PAGE_LEN: usize = 64;

/// What survives a node's death. Clones share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    live: BTreeMap<Bytes, Bytes>,
    durable: BTreeMap<Bytes, Bytes>,
    /// Batches since the last checkpoint.
    pending: Vec<Vec<Change>>,
    faults: Faults,
    power: Power,
    /// Counts openings and deaths: handles of an earlier opening are refused.
    era: u64,
}

/// An operation of the engine that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read of one row, or of one page of a range.
    Read,
    /// A write of one batch.
    Write,
    /// A checkpoint.
    Sync,
}

/// For each operation, how many of it still succeed before one fails.
#[derive(Default)]
struct Faults {
    read: Option<u64>,
    write: Option<u64>,
    sync: Option<u64>,
}

impl Faults {
    fn of(&mut self, operation: Operation) -> &mut Option<u64> {
        match operation {
            Operation::Read => &mut self.read,
            Operation::Write => &mut self.write,
            Operation::Sync => &mut self.sync,
        }
    }

    /// Counts an operation; an error if this is the one to fail.
    fn count(&mut self, operation: Operation) -> io::Result<()> {
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
        Self(Arc::new(Mutex::new(Platter {
            power,
            ..Platter::default()
        })))
    }

    /// Opens the engine. Handles of an earlier opening are refused from now on.
    pub fn open(&self) -> Arc<dyn Engine> {
        self.open_with(Health::default())
    }

    /// Opens the engine of a node with this health.
    pub fn open_with(&self, health: Health) -> Arc<dyn Engine> {
        let mut platter = self.0.lock();
        platter.era += 1;
        let engine = Memory {
            disk: self.clone(),
            era: platter.era,
        };
        watched(Arc::new(engine), health)
    }

    /// Makes one operation fail: the next of its kind once `after` others have succeeded. Asked for again before it
    /// came to that, the last request counts; a power loss takes it back.
    pub fn fail_once(&self, operation: Operation, after: u64) {
        *self.0.lock().faults.of(operation) = Some(after);
    }

    /// Tells whether an operation that is to fail has not come yet.
    pub fn will_fail(&self, operation: Operation) -> bool {
        self.0.lock().faults.of(operation).is_some()
    }

    /// Returns how many batches a power loss now would put at risk.
    pub fn pending(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// Cuts the power: of the batches since the last checkpoint the first `survivors` are found again. With all of
    /// them surviving this is a killed process.
    pub fn power_loss(&self, survivors: usize) {
        let mut platter = self.0.lock();
        platter.era += 1;
        platter.faults = Faults::default();
        platter.pending.truncate(survivors);
        platter.settle();
        platter.live = platter.durable.clone();
    }
}

impl Platter {
    fn settle(&mut self) {
        for change in self.pending.drain(..).flatten() {
            apply(&mut self.durable, change);
        }
    }
}

fn apply(rows: &mut BTreeMap<Bytes, Bytes>, change: Change) {
    match change.value {
        Some(value) => rows.insert(change.key, value),
        None => rows.remove(&change.key),
    };
}

struct Memory {
    disk: Disk,
    era: u64,
}

impl Memory {
    /// Runs `call` on the platter, unless this opening has ended.
    fn with<T>(&self, call: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.disk.0.lock();
        if platter.era != self.era {
            return Err(io::Error::other("the memory disk lost power or was opened again"));
        }
        call(&mut platter)
    }

    fn page(&self, range: Range<&[u8]>, order: Order) -> io::Result<Vec<(Bytes, Bytes)>> {
        let clone = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        self.with(|platter| {
            platter.faults.count(Operation::Read)?;
            let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
            let rows = platter.live.range::<[u8], _>(bounds);
            Ok(match order {
                Order::Ascending => rows.take(PAGE_LEN).map(clone).collect(),
                Order::Descending => rows.rev().take(PAGE_LEN).map(clone).collect(),
            })
        })
    }
}

impl Engine for Memory {
    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let value = self.with(|platter| {
            platter.faults.count(Operation::Read)?;
            Ok(platter.live.get(key).cloned())
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

    fn write(&self, batch: &mut dyn Iterator<Item = Change>) -> io::Result<()> {
        let batch: Vec<Change> = batch.collect();
        self.with(|platter| {
            platter.faults.count(Operation::Write)?;
            platter.power.write()?;
            for change in &batch {
                apply(&mut platter.live, change.clone());
            }
            platter.pending.push(batch);
            Ok(())
        })
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.with(|platter| {
            platter.faults.count(Operation::Sync)?;
            platter.power.sync()?;
            platter.settle();
            Ok(())
        })
    }

    fn disk_len(&self) -> u64 {
        let len = |(key, value): (&Bytes, &Bytes)| key.len() as u64 + value.len() as u64;
        self.with(|platter| Ok(platter.durable.iter().map(len).sum()))
            .unwrap_or_default()
    }
}

/// A range, read page by page so that writes go on meanwhile.
struct Pages<'a> {
    memory: &'a Memory,
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
    fn it_is_an_engine() {
        let disk = Disk::default();
        conformance::check(&mut || disk.open());
    }

    #[test]
    fn power_loss_keeps_the_checkpoint_and_a_prefix_of_the_rest() {
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
    fn a_failed_sync_is_final_until_the_disk_is_opened_again() {
        let disk = Disk::default();
        let engine = disk.open();
        write(&*engine, vec![put("a", "1")]);
        disk.fail_once(Operation::Sync, 0);
        engine.checkpoint().unwrap_err();
        engine.checkpoint().unwrap_err();
        engine.write(&mut [put("b", "1")].into_iter()).unwrap_err();
        disk.power_loss(0);
        assert_eq!(disk.open().get(b"a").unwrap(), None);
    }

    #[test]
    fn failed_read_is_one_and_the_next_succeeds() {
        let disk = Disk::default();
        let engine = disk.open();
        write(&*engine, vec![put("a", "1"), put("b", "2")]);
        let rows = || {
            engine
                .range(&b"a"[..]..&b"z"[..], Order::Ascending)
                .collect::<Result<Vec<_>, _>>()
        };
        disk.fail_once(Operation::Read, 1);
        assert!(engine.get(b"a").is_ok());
        assert!(disk.will_fail(Operation::Read));
        engine.get(b"a").unwrap_err();
        assert!(!disk.will_fail(Operation::Read));
        assert!(engine.get(b"a").is_ok());
        disk.fail_once(Operation::Read, 0);
        rows().unwrap_err();
        assert_eq!(rows().unwrap().len(), 2);
    }

    #[test]
    fn failed_write_leaves_nothing_and_a_new_opening_writes_again() {
        let disk = Disk::default();
        let engine = disk.open();
        disk.fail_once(Operation::Write, 1);
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
