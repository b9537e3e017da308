//! Snapshots being read, and the rows that they have yet to read and that were overwritten since.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Rows, RowsMut, Unreadable};

use crate::table::Table;

/// All cuts of a machine; those that nobody reads any more are forgotten.
#[derive(Default)]
pub(super) struct Cuts(Vec<Weak<Cut>>);

/// What one snapshot keeps.
pub(super) struct Cut(Mutex<Kept>);

/// The rows of the cut that may be overwritten, from a key on.
#[derive(Default)]
struct Kept {
    /// What is before it has been read.
    from: Bytes,
    /// What the rows were; `None` where there was none. Never more than those of the cut and those that are new.
    rows: BTreeMap<Bytes, Option<Bytes>>,
    /// An old row could not be read when it was overwritten.
    is_broken: bool,
}

/// A row that a snapshot needs could not be read before it was overwritten.
#[derive(Debug, thiserror::Error)]
#[error("a row was overwritten that could not be read")]
struct Lost;

impl Cuts {
    /// Makes a cut here and now. Rows before `from` are not kept for it.
    pub(super) fn cut(&mut self, from: Bytes) -> Arc<Cut> {
        let kept = Kept {
            from,
            ..Kept::default()
        };
        let cut = Arc::new(Cut(Mutex::new(kept)));
        self.0.push(Arc::downgrade(&cut));
        cut
    }

    /// Returns a table whose old rows are kept for those who have yet to read them.
    pub(super) fn keeping<'a>(&mut self, table: &'a mut Table) -> Keeping<'a> {
        self.0.retain(|cut| cut.strong_count() > 0);
        let cuts = self.0.iter().filter_map(Weak::upgrade).collect();
        Keeping { table, cuts }
    }
}

impl Cut {
    /// Goes on behind what was read: from the next row on, up to a key. Returns what the rows between were where they
    /// were overwritten.
    pub(super) fn pass(&self, up_to: &Bytes) -> Result<BTreeMap<Bytes, Option<Bytes>>, Unreadable> {
        let mut kept = self.0.lock();
        if kept.is_broken {
            return Err(Unreadable(Box::new(Lost)));
        }
        let later = kept.rows.split_off(up_to);
        kept.from = up_to.clone();
        Ok(std::mem::replace(&mut kept.rows, later))
    }
}

/// A table whose old rows are kept.
pub(super) struct Keeping<'a> {
    table: &'a mut Table,
    cuts: Vec<Arc<Cut>>,
}

impl Keeping<'_> {
    fn keep(&self, key: &Bytes) {
        for cut in &self.cuts {
            let mut kept = cut.0.lock();
            if *key < kept.from || kept.rows.contains_key(key) {
                continue;
            }
            match self.table.get(key) {
                Ok(old) => drop(kept.rows.insert(key.clone(), old)),
                Err(_) => kept.is_broken = true,
            }
        }
    }
}

impl Rows for Keeping<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.table.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        self.table.range(range, order)
    }
}

impl RowsMut for Keeping<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.keep(&key);
        self.table.put(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.keep(&key);
        self.table.delete(key);
    }
}
