//! The rows of one group: what was applied lately in memory, before what an engine holds.
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
//! 1. A read sees the last write of its key, wherever that is.
//! 2. Frozen rows never change, so that they can be written while active ones do.
//! 3. A row that is in memory as fresh is in no layer below, but perhaps as a removal.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use stead_state::rows::{Order, Row, Rows, RowsMut, Unreadable};

use crate::engine::{Change, Engine};

mod merge;

/// The rows of one group, with an overlay in memory.
pub struct Table {
    engine: Arc<dyn Engine>,
    active: Overlay,
    frozen: Option<Arc<Frozen>>,
}

/// Rows that are on their way to the engine.
#[derive(Default)]
pub struct Frozen(Overlay);

/// Bytes of memory that a row takes beside those of its key and value.
const ROW_LEN: usize = 128;

#[derive(Default)]
struct Overlay {
    cells: BTreeMap<Bytes, Cell>,
    /// Bytes of memory.
    len: usize,
}

/// What an overlay says of a key.
enum Cell {
    /// Written; there may be a row below.
    Value(Bytes),
    /// Written; there is none below.
    Fresh(Bytes),
    /// Removed.
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

impl Overlay {
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
    /// A table over an engine, with nothing in memory.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            active: Overlay::default(),
            frozen: None,
        }
    }

    /// Returns how many rows the next [`Table::freeze`] would take.
    pub fn dirty_rows(&self) -> usize {
        self.active.cells.len()
    }

    /// Returns about how many bytes of memory rows take here.
    pub fn memory_len(&self) -> usize {
        self.active.len + self.frozen.as_ref().map_or(0, |frozen| frozen.0.len)
    }

    /// Freezes what was written since the last time, so that it can be written to the engine while the table goes on
    /// being written to. What is frozen already stays so: a flush that did not end is done again.
    pub fn freeze(&mut self) -> Arc<Frozen> {
        let frozen = match self.frozen.take() {
            None => Frozen(std::mem::take(&mut self.active)),
            Some(frozen) => return self.frozen.insert(frozen).clone(),
        };
        self.frozen.insert(Arc::new(frozen)).clone()
    }

    /// Lets go of what is frozen, once the engine has it.
    pub fn thaw(&mut self) {
        self.frozen = None;
    }

    fn layers(&self) -> impl Iterator<Item = &Overlay> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|frozen| &frozen.0))
    }
}

impl Frozen {
    /// Returns the rows in the order of their keys, as an engine takes them.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.0.cells.iter().map(|(key, cell)| Change {
            key: key.clone(),
            value: cell.value().cloned(),
        })
    }

    /// Returns how many rows there are.
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
        // A removal here hides a row below: then the new row is not the first of its key.
        let cell = match self.active.cells.get(&key) {
            None | Some(Cell::Fresh(_)) => Cell::Fresh(value),
            Some(Cell::Value(_) | Cell::Removed) => Cell::Value(value),
        };
        self.active.set(key, cell);
    }
}

#[cfg(test)]
mod table_test;
