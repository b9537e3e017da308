//! Table of one group's rows: an active and a frozen memtable in front of an engine.
//!
//! ```text
//!   put, delete ──> active ──freeze──> frozen ──write + checkpoint──> engine
//!   get, range  <──── active, else frozen, else engine ─────┘
//! ```
//!
//! The Raft log makes the rows in memory durable, so that a key which is written often reaches the disk once a
//! checkpoint, and rows reach it sorted.
//!
//! # Invariants
//!
//! 1. A read sees the last write of its key, in whichever layer.
//! 2. Frozen rows never change, so that they can be written while active ones do.
//! 3. A row that is fresh in a memtable is in no layer below, except perhaps as a tombstone.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use stead_state::rows::{Order, Row, Rows, RowsMut, Unreadable};

use crate::engine::{Engine, RowChange};

mod merge;

/// Rows of one group: memtables over an engine.
pub struct Table {
    engine: Arc<dyn Engine>,
    active: Memtable,
    frozen: Option<Arc<FrozenMemtable>>,
}

/// Memtable that is being flushed to the engine.
#[derive(Default)]
pub struct FrozenMemtable(Memtable);

/// Overhead of a row in memory, in bytes.
const ROW_LEN: usize = 128;

/// Rows in memory.
#[derive(Default)]
struct Memtable {
    cells: BTreeMap<Bytes, Cell>,
    /// Bytes of memory.
    len: usize,
}

/// State of a key in a memtable.
enum Cell {
    /// Written; a layer below may have the row.
    Value(Bytes),
    /// Written; no layer below has the row.
    Fresh(Bytes),
    /// Tombstone.
    Removed,
}

impl Cell {
    fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Value(value) | Self::Fresh(value) => Some(value),
            Self::Removed => None,
        }
    }

    fn len(&self) -> usize {
        self.value().map_or(0, Bytes::len)
    }
}

impl Memtable {
    fn set(&mut self, key: Bytes, cell: Cell) {
        let key_len = key.len() + ROW_LEN;
        self.len += key_len + cell.len();
        if let Some(old) = self.cells.insert(key, cell) {
            self.len -= key_len + old.len();
        }
    }

    fn range<'a>(&'a self, range: &Range<&[u8]>, order: Order) -> merge::Layer<'a> {
        if range.end <= range.start {
            return Box::new(std::iter::empty());
        }
        let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
        let cells = self.cells.range::<[u8], _>(bounds);
        let cells = cells.map(|(key, cell)| (key, cell.value()));
        match order {
            Order::Ascending => Box::new(cells),
            Order::Descending => Box::new(cells.rev()),
        }
    }
}

impl Table {
    /// Creates a table over an engine, with empty memtables.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            active: Memtable::default(),
            frozen: None,
        }
    }

    /// Returns the number of rows that the next [`Table::freeze`] would take.
    pub fn dirty_rows(&self) -> usize {
        self.active.cells.len()
    }

    /// Returns the approximate bytes of the memtables.
    pub fn memory_len(&self) -> usize {
        self.active.len + self.frozen.as_ref().map_or(0, |frozen| frozen.0.len)
    }

    /// Freezes the active memtable, so that it can be flushed to the engine while the table takes further writes. A
    /// memtable that is already frozen is returned again: its flush did not end.
    pub fn freeze(&mut self) -> Arc<FrozenMemtable> {
        let frozen = match self.frozen.take() {
            None => FrozenMemtable(std::mem::take(&mut self.active)),
            Some(frozen) => return self.frozen.insert(frozen).clone(),
        };
        self.frozen.insert(Arc::new(frozen)).clone()
    }

    /// Drops the frozen memtable, once the engine has it.
    pub fn drop_frozen(&mut self) {
        self.frozen = None;
    }

    fn layers(&self) -> impl Iterator<Item = &Memtable> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|frozen| &frozen.0))
    }
}

impl FrozenMemtable {
    /// Returns the rows as a batch for an engine, in the order of their keys.
    pub fn changes(&self) -> impl Iterator<Item = RowChange> + '_ {
        self.0.cells.iter().map(|(key, cell)| RowChange {
            key: key.clone(),
            value: cell.value().cloned(),
        })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.0.cells.len()
    }
}

impl Rows for Table {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        for layer in self.layers() {
            if let Some(cell) = layer.cells.get(key) {
                return Ok(cell.value().cloned());
            }
        }
        self.engine.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        let layers = self.layers().map(|layer| layer.range(&range, order)).collect();
        Box::new(merge::Merge::new(layers, self.engine.range(range, order), order))
    }
}

impl RowsMut for Table {
    fn put(&mut self, key: Bytes, value: Bytes) {
        let cell = match self.active.cells.get(&key) {
            Some(Cell::Fresh(_)) => Cell::Fresh(value),
            Some(Cell::Value(_) | Cell::Removed) | None => Cell::Value(value),
        };
        self.active.set(key, cell);
    }

    fn delete(&mut self, key: Bytes) {
        if let Some(Cell::Fresh(value)) = self.active.cells.get(&key) {
            self.active.len -= key.len() + ROW_LEN + value.len();
            self.active.cells.remove(&key);
        } else {
            self.active.set(key, Cell::Removed);
        }
    }

    fn put_new(&mut self, key: Bytes, value: Bytes) {
        // A tombstone here hides a row below: then the new row is not the first of its key.
        let cell = match self.active.cells.get(&key) {
            None | Some(Cell::Fresh(_)) => Cell::Fresh(value),
            Some(Cell::Value(_) | Cell::Removed) => Cell::Value(value),
        };
        self.active.set(key, cell);
    }
}

#[cfg(test)]
mod table_test;
