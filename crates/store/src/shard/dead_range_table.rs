//! Table that takes the keys that become live out of the known ranges without a live key.

use std::ops::Range;

use bytes::Bytes;
use stead_state::{
    rows::{Order, Row, Rows, RowsMut, Unreadable, current, kind},
    shard::read::DeadRanges,
};

use crate::table::Table;

/// The table of a group while an entry is applied.
pub(super) struct DeadRangeTable<'a> {
    pub(super) table: &'a mut Table,
    pub(super) dead: &'a mut DeadRanges,
}

impl DeadRangeTable<'_> {
    fn record_write(&mut self, key: &Bytes, value: &Bytes) {
        if key.first() == Some(&kind::CURRENT) && !current::is_tombstone(value) {
            self.dead.revive(key);
        }
    }
}

impl Rows for DeadRangeTable<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.table.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        self.table.range(range, order)
    }
}

impl RowsMut for DeadRangeTable<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.record_write(&key, &value);
        self.table.put(key, value);
    }

    fn put_new(&mut self, key: Bytes, value: Bytes) {
        self.record_write(&key, &value);
        self.table.put_new(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.table.delete(key);
    }
}
