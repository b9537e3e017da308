//! Copy on write for open snapshots: the preimages of rows that were overwritten before a snapshot read them.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Rows, RowsMut, Unreadable};

use crate::table::Table;

/// All open cuts of a machine; those whose snapshot is dropped are removed.
#[derive(Default)]
pub(super) struct SnapshotCuts(Vec<Weak<SnapshotCut>>);

/// Cut of one open snapshot, with the preimages saved for it.
pub(super) struct SnapshotCut(Mutex<Preimages>);

/// Preimages of overwritten rows of a cut, from a key on.
#[derive(Default)]
struct Preimages {
    /// The snapshot has read the rows before this key.
    from: Bytes,
    /// Values of the rows at the cut; `None` where there was none. Never more than the rows of the cut and those that
    /// are new.
    rows: BTreeMap<Bytes, Option<Bytes>>,
    /// A preimage could not be read when its row was overwritten.
    is_broken: bool,
}

/// Error when a preimage that a snapshot needs could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a row of the snapshot that was overwritten")]
struct PreimageUnreadable;

impl SnapshotCuts {
    /// Makes a cut of the current state. Preimages of rows before `from` are not saved for it.
    pub(super) fn cut(&mut self, from: Bytes) -> Arc<SnapshotCut> {
        let preimages = Preimages {
            from,
            ..Preimages::default()
        };
        let cut = Arc::new(SnapshotCut(Mutex::new(preimages)));
        self.0.push(Arc::downgrade(&cut));
        cut
    }

    /// Returns a table that saves preimages for the open cuts.
    pub(super) fn copy_on_write<'a>(&mut self, table: &'a mut Table) -> CopyOnWriteTable<'a> {
        self.0.retain(|cut| cut.strong_count() > 0);
        let cuts = self.0.iter().filter_map(Weak::upgrade).collect();
        CopyOnWriteTable { table, cuts }
    }
}

impl SnapshotCut {
    /// Advances to a key, and returns the preimages of the rows before it that were overwritten.
    pub(super) fn pass(&self, up_to: &Bytes) -> Result<BTreeMap<Bytes, Option<Bytes>>, Unreadable> {
        let mut preimages = self.0.lock();
        if preimages.is_broken {
            return Err(Unreadable(Box::new(PreimageUnreadable)));
        }
        let later = preimages.rows.split_off(up_to);
        preimages.from = up_to.clone();
        Ok(std::mem::replace(&mut preimages.rows, later))
    }
}

/// Table that saves the preimages of rows before it overwrites them.
pub(super) struct CopyOnWriteTable<'a> {
    table: &'a mut Table,
    cuts: Vec<Arc<SnapshotCut>>,
}

impl CopyOnWriteTable<'_> {
    fn save_preimage(&self, key: &Bytes) {
        for cut in &self.cuts {
            let mut preimages = cut.0.lock();
            if *key < preimages.from || preimages.rows.contains_key(key) {
                continue;
            }
            match self.table.get(key) {
                Ok(old) => drop(preimages.rows.insert(key.clone(), old)),
                Err(_) => preimages.is_broken = true,
            }
        }
    }
}

impl Rows for CopyOnWriteTable<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.table.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        self.table.range(range, order)
    }
}

impl RowsMut for CopyOnWriteTable<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.save_preimage(&key);
        self.table.put(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.save_preimage(&key);
        self.table.delete(key);
    }
}
