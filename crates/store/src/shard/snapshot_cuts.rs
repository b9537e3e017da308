//! Copy on write for open snapshots: the preimages of rows that were overwritten before a snapshot read them, and where
//! changes are that a rewind has moved.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::{
    rows::{COPY_PREFIX_LEN, CopyPrefix, Order, Row, Rows, RowsMut, Unreadable, change, kind},
    shard::MovedChanges,
};
use stead_types::Sequence;

use crate::table::Table;

/// All open cuts of a machine; those whose snapshot is dropped are removed.
#[derive(Default)]
pub(super) struct SnapshotCuts(Vec<Weak<SnapshotCut>>);

/// Cut of one open snapshot, with the preimages saved for it.
pub(super) struct SnapshotCut {
    preimages: Mutex<Preimages>,
    /// Changes that were moved since the cut, in the order of time: where a sequence was used again and moved again, the
    /// first is that of the cut.
    moved: Mutex<Vec<MovedChanges>>,
}

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
        let cut = Arc::new(SnapshotCut {
            preimages: Mutex::new(preimages),
            moved: Mutex::default(),
        });
        self.0.push(Arc::downgrade(&cut));
        cut
    }

    /// Notes for the open cuts where changes were moved to.
    pub(super) fn note_moved(&mut self, moved: &[MovedChanges]) {
        if moved.is_empty() {
            return;
        }
        self.0.retain(|cut| cut.strong_count() > 0);
        for cut in self.0.iter().filter_map(Weak::upgrade) {
            let mut all = cut.moved.lock();
            for moved in moved {
                // Steps of a rewind go down.
                match all.last_mut() {
                    Some(last) if (last.copy, last.to, last.after) == (moved.copy, moved.to, moved.up_to) => {
                        last.after = moved.after;
                    }
                    Some(_) | None => all.push(*moved),
                }
            }
        }
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
        let mut preimages = self.preimages.lock();
        if preimages.is_broken {
            return Err(Unreadable(Box::new(PreimageUnreadable)));
        }
        let later = preimages.rows.split_off(up_to);
        preimages.from = up_to.clone();
        Ok(std::mem::replace(&mut preimages.rows, later))
    }
}

/// Where rows of a range are that a snapshot reads.
pub(super) struct Located {
    /// The rows as they are stored now.
    pub(super) stored: Range<Bytes>,
    /// Copy that they belong to.
    copy: CopyPrefix,
    /// Key after them, in the range that was asked for.
    pub(super) end: Bytes,
}

impl Located {
    /// Returns the key that a stored row had at the cut.
    pub(super) fn key_at_cut(&self, stored: &Bytes) -> Bytes {
        let copy = self.copy.key(kind::CHANGE, stored.len() - COPY_PREFIX_LEN);
        { copy }.raw(&stored[COPY_PREFIX_LEN..]).finish()
    }
}

impl SnapshotCut {
    /// Returns where the first rows are of a range of changes of one copy; `None` where all are in their place.
    pub(super) fn locate(&self, range: &Range<Bytes>) -> Result<Option<Located>, Unreadable> {
        let moved = self.moved.lock();
        if moved.is_empty() || range.start.first() != Some(&kind::CHANGE) {
            return Ok(None);
        }
        let is_of_copy = |moved: &&MovedChanges| range.start.starts_with(&moved.copy.key(kind::CHANGE, 0).finish());
        let Some(copy) = moved.iter().find(is_of_copy).map(|moved| moved.copy) else {
            return Ok(None);
        };
        let (first, _) = change::parse_key(range.start.clone())?;
        // Up to where the first rows are in one place: those that were moved earlier are elsewhere.
        let (mut last, mut place) = (Sequence::MAX, copy);
        for moved in moved.iter().filter(|moved| moved.copy == copy) {
            if moved.after >= first {
                last = last.min(moved.after);
            } else if first <= moved.up_to {
                last = last.min(moved.up_to);
                place.number = moved.to;
                break;
            }
        }
        let end = match last.next() {
            Some(next) => change::key(copy, next, 0).min(range.end.clone()),
            None => range.end.clone(),
        };
        let in_place = |key: &Bytes| {
            let start = place.key(kind::CHANGE, key.len() - COPY_PREFIX_LEN);
            { start }.raw(&key[COPY_PREFIX_LEN..]).finish()
        };
        Ok(Some(Located {
            stored: in_place(&range.start)..in_place(&end),
            copy,
            end,
        }))
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
            let mut preimages = cut.preimages.lock();
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
