//! Rows in memory, for tests of machines.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

use super::{Order, Row, Rows, RowsMut, Unreadable};

/// Rows in a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryRows(pub(crate) BTreeMap<Bytes, Bytes>);

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        Ok(self.0.get(key).cloned())
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        let range = Bytes::copy_from_slice(range.start)..Bytes::copy_from_slice(range.end);
        let rows = self.0.range(range).map(|(key, value)| Ok((key.clone(), value.clone())));
        match order {
            Order::Ascending => Box::new(rows),
            Order::Descending => Box::new(rows.rev()),
        }
    }
}

impl RowsMut for MemoryRows {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.0.remove(&key);
    }
}
